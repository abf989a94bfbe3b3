"""What the package shows, and what it does not pull in."""

from __future__ import annotations

import subprocess
import sys

import pyrdma.image


def test_every_public_name_is_there() -> None:
    """``__all__`` is what the package has, in order."""
    assert [name for name in pyrdma.image.__all__ if not hasattr(pyrdma.image, name)] == []
    assert len(set(pyrdma.image.__all__)) == len(pyrdma.image.__all__)


def test_images_need_neither_torch_nor_numpy_nor_ucx() -> None:
    """The weight cache and the agent import images and must stay small."""
    probe = (
        "import sys, pyrdma.image; print(sorted({'torch', 'numpy', 'ucxx', 'asyncio'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
