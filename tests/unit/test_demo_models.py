"""Generated Llama-shaped checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from agent.demo.models import generate_llama
from pyrdma.image import scan_folder
from pyrdma.limits import MIB


@pytest.mark.parametrize("size_bytes", [MIB, 20 * MIB])
def test_the_size_is_about_what_was_asked(tmp_path: Path, size_bytes: int) -> None:
    """The weights come within a layer of the size, as a folder that makes an image."""
    generate_llama(tmp_path, size_bytes)
    assert scan_folder(tmp_path).layout.tensor_bytes == pytest.approx(size_bytes, rel=0.2)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """A model can be made again; another seed makes another."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate_llama(tmp_path / name, MIB, seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c
    tokenizers = {(tmp_path / name / "tokenizer.json").read_bytes() for name in "abc"}
    assert len(tokenizers) == 1


def test_the_weights_are_sane(tmp_path: Path) -> None:
    """Matrices are normal noise of Llama's width, norms are ones, and no stretch repeats."""
    generate_llama(tmp_path, 20 * MIB)
    scan = scan_folder(tmp_path)
    data = np.fromfile(tmp_path / "model.safetensors", dtype=np.uint8)
    starts = {segment.offset: segment.file_offset for segment in scan.segments}
    for span in scan.layout.tensors:
        if span.offset not in starts:
            continue
        raw = data[starts[span.offset] :][: span.nbytes].view(np.uint16).astype(np.uint32) << 16
        values = raw.view(np.float32)
        if len(span.shape) == 1:
            assert (values == 1).all()
        else:
            assert values.std() == pytest.approx(0.02, rel=0.1)
            assert abs(values.mean()) < 0.001
    blocks = [data[at : at + 4096].tobytes() for at in range(4096, len(data) - 4096, 4096)]
    assert len(set(blocks)) == len(blocks)


def test_whatever_it_says_can_be_shown(tmp_path: Path) -> None:
    """Every token of the vocabulary decodes to printable text."""
    generate_llama(tmp_path, MIB)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for token in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([token], skip_special_tokens=False)
        assert text.isprintable() or text in ("\n", "\n\n"), (token, text)
    assert tokenizer.decode(tokenizer.encode("What is a lease?").ids) == "What is a lease?"
