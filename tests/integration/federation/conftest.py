"""Fixtures of the institutions in ``institutions.py``: one consortium for a test, or for a module's tests."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import institutions
import pytest
import site_nodes


@pytest.fixture(name="until", scope="session")
def until_fixture() -> Callable[..., Any]:
    """Hand out ``until(condition, what, deadline_s)``."""
    return site_nodes.until


@pytest.fixture(name="say", scope="session")
def say_fixture() -> Callable[..., bytes]:
    """Hand out ``say(granted, data)``."""
    return institutions.say


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


@pytest.fixture(scope="module")
def two_sites(shared_federation: Any) -> tuple[Any, Any]:
    """Found north and south, each with a node that lends a device, and have them hear of each other."""
    north = shared_federation.found(shared_federation.node("n1", "north"))
    south = shared_federation.found(shared_federation.node("s1", "south"))
    shared_federation.acquaint(north, south)
    return north, south


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
