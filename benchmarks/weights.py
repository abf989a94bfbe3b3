"""A folder with random weights of a chosen size: enough of a model to publish, not one to run."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

TENSOR_BYTES = 64 << 20


@contextlib.contextmanager
def weight_folder(nbytes: int) -> Iterator[Path]:
    """Yield a folder that holds one safetensors file of about ``nbytes``; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pyrdma-bench-"))
    count = max(1, round(nbytes / TENSOR_BYTES))
    header = {
        f"layer_{i}_weight": {
            "dtype": "BF16",
            "shape": [TENSOR_BYTES // 2],
            "data_offsets": [i * TENSOR_BYTES, (i + 1) * TENSOR_BYTES],
        }
        for i in range(count)
    }
    encoded = json.dumps(header).encode()
    generator = np.random.default_rng(11)
    try:
        (folder / "config.json").write_text("{}")
        with (folder / "model.safetensors").open("wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            for _ in range(count):
                file.write(generator.bytes(TENSOR_BYTES))
        yield folder
    finally:
        shutil.rmtree(folder)
