"""Fixtures of the institutions in ``institutions.py``: one consortium for a test, or for a module's tests."""

from __future__ import annotations

import importlib.util
import json
import random
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def _load(name: str) -> Any:
    # Tests are no packages, so what they share has no name to import it by.
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert specification is not None
        assert specification.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(sys.modules[name])
    return sys.modules[name]


site_nodes, institutions = map(_load, ("site_nodes", "institutions"))


@pytest.fixture(name="until", scope="session")
def until_fixture() -> Callable[..., Any]:
    """Hand out ``until(condition, what, deadline_s)``."""
    return site_nodes.until  # type: ignore[no-any-return]


@pytest.fixture(name="say", scope="session")
def say_fixture() -> Callable[..., bytes]:
    """Hand out ``say(granted, data)``."""
    return institutions.say  # type: ignore[no-any-return]


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Any]:
    """Make a consortium without sites; what a test starts in it ends with it, and leaves nothing behind."""
    with institutions.consortium_in(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared_federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Make a consortium without sites for the tests of a module."""
    with institutions.consortium_in(tmp_path_factory.mktemp("consortium")) as made:
        yield made


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a small model folder; other seeds give other weights."""

    def make(name: str, *, seed: int = 0, nbytes: int = 1 << 20) -> Path:
        folder = tmp_path_factory.mktemp("model") / name
        folder.mkdir()
        header = {"w": {"dtype": "U8", "shape": [nbytes], "data_offsets": [0, nbytes]}}
        text = json.dumps(header).encode()
        data = random.Random(seed).randbytes(nbytes)
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
        (folder / "config.json").write_text(json.dumps({"architectures": ["Tiny"]}))
        return folder

    return make
