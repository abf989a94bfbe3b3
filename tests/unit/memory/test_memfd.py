"""Seals: what a borrower of memory can and cannot do with it."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os

import pytest

from pyrdma.errors import ChannelError, LocalError
from pyrdma.memory import ExtentPool, lent_memfd, map_extents, memfd, read_bulk, sealed_bytes
from pyrdma.memory.mapping import PAGE_BYTES, Access

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_PUNCH_HOLE_KEEP_SIZE = 3
_MADV_REMOVE = 9
PIECE = 16 << 20


@pytest.fixture
def extent():
    """One extent of a pool as a borrower gets it: a descriptor of its own; its first byte is 7."""
    pool = ExtentPool(PIECE, PIECE)
    region = pool.allocate(1)
    ctypes.memset(region.address(0, 1), 7, 1)
    fd = os.dup(region.fds[0])
    yield fd
    assert os.pread(fd, 1, 0) == b"\x07"
    os.close(fd)
    pool.release(region)
    pool.close()


def test_a_lent_extent_cannot_be_mapped_writable(extent: int) -> None:
    """A shared writable mapping is refused, by our own call and by Python's."""
    with pytest.raises(LocalError, match="refused to map"):
        map_extents([extent], PIECE, Access.SHARED_WRITE)
    with pytest.raises(PermissionError):
        mmap.mmap(extent, PIECE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def test_a_read_only_mapping_cannot_be_made_writable(extent: int) -> None:
    """Mprotect does not turn what was mapped for reading into something writable."""
    mapping = map_extents([extent], PIECE, Access.SHARED_READ)
    assert _libc.mprotect(mapping.address, PAGE_BYTES, 3) == -1
    assert _libc.madvise(mapping.address, PAGE_BYTES, _MADV_REMOVE) == -1
    mapping.close()


def test_a_lent_extent_cannot_be_written_resized_or_punched(extent: int) -> None:
    """Neither write, truncate nor a hole changes what was lent."""
    with pytest.raises(PermissionError):
        os.pwrite(extent, b"x", 0)
    for size in (0, PIECE * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(extent, size)
    assert _libc.fallocate(extent, _PUNCH_HOLE_KEEP_SIZE, 0, PAGE_BYTES) == -1
    with pytest.raises(PermissionError):
        fcntl.fcntl(extent, 1033, memfd.SEAL_WRITE)


def test_reopening_through_proc_gives_no_way_to_write(extent: int) -> None:
    """A new open file description of the same memory is bound by the same seals."""
    try:
        again = os.open(f"/proc/self/fd/{extent}", os.O_RDWR)
    except OSError:
        return
    try:
        with pytest.raises(PermissionError):
            os.write(again, b"x")
        with pytest.raises(LocalError):
            map_extents([again], PIECE, Access.SHARED_WRITE)
    finally:
        os.close(again)


def test_a_private_mapping_is_a_copy_of_what_is_written(extent: int) -> None:
    """Writing to a private mapping changes this mapping alone."""
    private = map_extents([extent], PIECE, Access.PRIVATE)
    other = map_extents([extent], PIECE, Access.SHARED_READ)
    private.view()[0] = 99
    assert private.view()[0] == 99
    assert other.view()[0] == 7
    private.close()
    other.close()


def test_the_ring_that_is_lent_cannot_be_truncated() -> None:
    """A borrower may write into the ring but not shrink it, which would kill the lender with SIGBUS."""
    fd = lent_memfd("ring", PIECE)
    os.pwrite(fd, b"x", 0)
    for size in (0, PIECE - 1, PIECE + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    os.close(fd)


def test_less_memory_than_said_is_refused_before_it_is_touched() -> None:
    """Mapping a file that is shorter than it was said to be is an error, not a later SIGBUS."""
    fd = memfd.create("short", PAGE_BYTES)
    with pytest.raises(LocalError, match="less memory"):
        map_extents([fd], 2 * PAGE_BYTES, Access.SHARED_READ)
    os.close(fd)


def test_bulk_arrives_whole_and_cannot_be_changed_on_the_way() -> None:
    """Sealed bytes read back equal, and the descriptor refuses writes."""
    data = os.urandom(100_000)
    fd = sealed_bytes("bulk", data)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    assert read_bulk(os.dup(fd), 100_000) == data
    with pytest.raises(ChannelError, match="100000 bytes where 99999"):
        read_bulk(fd, 99_999)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_view_keeps_its_mapping() -> None:
    """Forgetting a mapping while a view of it is held does not unmap it."""
    fd = memfd.create("view", PAGE_BYTES)
    os.pwrite(fd, b"still here", 0)
    view = map_extents([fd], PAGE_BYTES, Access.PRIVATE).view()
    assert bytes(view[:10]) == b"still here"
    assert map_extents([fd], PAGE_BYTES, Access.PRIVATE).view(writable=False).readonly
    os.close(fd)
