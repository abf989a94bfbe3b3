"""The donated pool: budget, reuse, faulting in once, life after its process."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pyrdma.errors import BudgetError
from pyrdma.limits import GIB, MIB, PIECE_BYTES
from pyrdma.memory import ExtentPool, extent_bytes_for, map_extents
from pyrdma.memory.mapping import Access
from pyrdma.memory.pool import MOST_EXTENTS
from pyrdma.wire import Channel


@pytest.mark.parametrize("budget", [0, 1, 64 * MIB, 64 * GIB, 64 * GIB + 1, 6000 * GIB])
def test_extents_hold_whole_pieces_and_are_few(budget: int) -> None:
    """Whatever the budget, an extent is a multiple of a piece and their number is bounded."""
    size = extent_bytes_for(budget)
    assert size % PIECE_BYTES == 0
    assert budget // size <= MOST_EXTENTS


def test_an_image_past_the_budget_is_refused_with_what_there_is() -> None:
    """The sentence says what was wanted, what is free and what was donated; nothing is taken."""
    pool = ExtentPool(3 * PIECE_BYTES, PIECE_BYTES)
    held = pool.allocate(PIECE_BYTES + 1)
    with pytest.raises(BudgetError) as caught:
        pool.allocate(2 * PIECE_BYTES)
    assert caught.value.message == (
        "an image of 32 MiB does not fit: 16 of 48 MiB donated memory are free on this node."
    )
    assert "--memory" in caught.value.fix
    assert pool.used_bytes == 2 * PIECE_BYTES
    pool.release(held)
    assert pool.used_bytes == 0
    pool.release(pool.allocate(3 * PIECE_BYTES))
    pool.close()


def test_released_extents_are_used_again_and_faulted_in_once() -> None:
    """The second image lies in the memory of the first, and touching it costs nothing."""
    pool = ExtentPool(4 * PIECE_BYTES, 2 * PIECE_BYTES)
    first = pool.allocate(2 * PIECE_BYTES)
    pool.fault_in(first)
    assert pool.faulted_bytes == 2 * PIECE_BYTES
    pool.release(first)
    second = pool.allocate(1)
    assert second.fds == first.fds
    ctypes.memset(second.address(0, 1), 5, 1)
    pool.fault_in(second)
    assert pool.faulted_bytes == 2 * PIECE_BYTES
    assert ctypes.string_at(second.address(0, 1), 1) == b"\x05"
    pool.release(second)
    pool.close()


def test_a_range_never_crosses_extents() -> None:
    """An address is given only for what lies in one extent."""
    pool = ExtentPool(4 * PIECE_BYTES, 2 * PIECE_BYTES)
    region = pool.allocate(3 * PIECE_BYTES)
    assert region.address(PIECE_BYTES, PIECE_BYTES) == region.extents[0].mapping.address + PIECE_BYTES
    assert region.address(2 * PIECE_BYTES, 1) == region.extents[1].mapping.address
    with pytest.raises(ValueError, match="crosses"):
        region.address(PIECE_BYTES, PIECE_BYTES + 1)
    pool.release(region)
    pool.close()


def test_pre_faulting_never_takes_the_budget_from_an_image() -> None:
    """While a thread touches the budget, an image that needs all of it is not refused."""
    for _ in range(2):
        pool = ExtentPool(4 * PIECE_BYTES, PIECE_BYTES)
        began = threading.Event()

        def fault_in_all(pool: ExtentPool = pool, began: threading.Event = began) -> None:
            while pool.fault_in_one():
                began.set()

        thread = threading.Thread(target=fault_in_all)
        thread.start()
        assert began.wait(10)
        region = pool.allocate(4 * PIECE_BYTES)
        pool.fault_in(region)
        thread.join(10)
        assert pool.faulted_bytes == 4 * PIECE_BYTES
        pool.release(region)
        pool.close()


def test_an_extent_that_cannot_be_made_loses_none_of_the_others() -> None:
    """When the kernel refuses another extent, those that were taken for the image are free again."""
    pool = ExtentPool(3 * PIECE_BYTES, PIECE_BYTES)
    pool.release(pool.allocate(PIECE_BYTES))
    spare: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE,
        (max(int(one) for one in [entry.name for entry in Path("/proc/self/fd").iterdir()]) + 1, hard),
    )
    try:
        while True:
            try:
                spare.append(os.dup(0))
            except OSError:
                break
        with pytest.raises(OSError, match="Too many open files"):
            pool.allocate(2 * PIECE_BYTES)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in spare:
            os.close(fd)
    assert pool.used_bytes == 0
    pool.close()


_MAKER = """
import ctypes, os, sys
sys.path.insert(0, sys.argv[2])
from pyrdma.memory import ExtentPool
from pyrdma.wire import Channel
pool = ExtentPool(16 << 20, 16 << 20)
region = pool.allocate(1)
ctypes.memset(region.address(0, 1000), 42, 1000)
Channel.from_fd(int(sys.argv[1])).send({"op": "region"}, region.fds)
os.kill(os.getpid(), 9)
"""


def test_a_region_outlives_the_process_that_made_it() -> None:
    """After SIGKILL of the maker, whoever holds the descriptors still reads the image; nothing has a name."""
    root = Path(__file__).parents[3]
    channel, theirs = Channel.pair()
    with theirs:
        maker = subprocess.Popen(
            [sys.executable, "-c", _MAKER, str(theirs.fileno()), str(root)], pass_fds=[theirs.fileno()]
        )
    _, fds = channel.recv(30)
    assert maker.wait(30) == -9
    mapping = map_extents(fds, PIECE_BYTES, Access.PRIVATE)
    assert bytes(mapping.view(1000)) == b"\x2a" * 1000
    for fd in fds:
        os.close(fd)
    mapping.close()
    channel.close()


def test_memory_that_is_lent_no_more_goes_back_to_the_system() -> None:
    """Free extents go at once, those in regions with the next call; nothing more than is lent is made."""
    pool = ExtentPool(4 * PIECE_BYTES, PIECE_BYTES)
    held, free = pool.allocate(PIECE_BYTES), pool.allocate(2 * PIECE_BYTES)
    pool.fault_in(held)
    pool.fault_in(free)
    fds = free.fds
    pool.release(free)
    pool.lend(0)
    assert (pool.lent_bytes, pool.used_bytes, pool.faulted_bytes) == (0, PIECE_BYTES, PIECE_BYTES)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert not pool.fault_in_one()
    with pytest.raises(BudgetError, match="0 of 0 MiB"):
        pool.allocate(1)
    pool.release(held)
    pool.lend(0)
    assert (pool.used_bytes, pool.faulted_bytes) == (0, 0)
    pool.lend(99 * PIECE_BYTES)
    assert pool.lent_bytes == pool.budget_bytes == 4 * PIECE_BYTES
    pool.release(pool.allocate(4 * PIECE_BYTES))
    pool.close()
