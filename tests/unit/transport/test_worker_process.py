"""Starting a lane worker where there is nothing to start."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from pyrdma.errors import LaneError
from pyrdma.transport.ucx import UcxTransport


def test_without_ucx_no_worker_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ucxx cannot be imported, the cache says so with a fix and starts no process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(children.read_text().split())  # the helper of multiprocessing of an earlier test is one
    monkeypatch.setitem(sys.modules, "ucxx", None)  # Python's own way to say that it is not there
    with pytest.raises(LaneError) as caught:
        asyncio.run(UcxTransport.start("lo"))
    assert caught.value.message == "UCX is not installed here."
    assert caught.value.fix == "install pyrdma-agent with the extra 'cpu' or 'cu12'"
    assert set(children.read_text().split()) <= before
