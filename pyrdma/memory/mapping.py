"""Memory files mapped side by side into one address range.

Python's ``mmap`` cannot place a mapping at an address, so the calls go to libc; ``ctypes`` lets go of the GIL
during each, which matters for the ones that touch pages.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from enum import Enum
from typing import Final

from pyrdma.errors import LocalError

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

_PROT_NONE: Final = 0
_PROT_READ: Final = 1
_PROT_WRITE: Final = 2
_MAP_SHARED: Final = 0x01
_MAP_PRIVATE: Final = 0x02
_MAP_FIXED: Final = 0x10
_MAP_ANONYMOUS: Final = 0x20
_MAP_NORESERVE: Final = 0x4000
_MADV_POPULATE_WRITE: Final = 23
_MAP_FAILED: Final = ctypes.c_void_p(-1).value
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Access(Enum):
    """How a mapping may be used."""

    SHARED_WRITE = (_PROT_READ | _PROT_WRITE, _MAP_SHARED)
    """Changes are seen by everyone who maps the file."""
    SHARED_READ = (_PROT_READ, _MAP_SHARED)
    """Reads only."""
    PRIVATE = (_PROT_READ | _PROT_WRITE, _MAP_PRIVATE)
    """Reads the file; a page that is written becomes this process's own copy."""


class Mapping:
    """A range of addresses backed by memory files; unmapped by ``close`` or when forgotten."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.address = address
        self.nbytes = nbytes
        self._open = True

    def view(self, nbytes: int | None = None, *, writable: bool = True) -> memoryview:
        """Return the first ``nbytes`` as flat bytes. Whoever holds the view must drop it before ``close``."""
        array = (ctypes.c_ubyte * (self.nbytes if nbytes is None else nbytes)).from_address(self.address)
        # The array keeps the mapping alive, the view keeps the array: no use after unmapping by accident.
        array._mapping = self  # type: ignore[attr-defined]  # noqa: SLF001
        view = memoryview(array).cast("B")
        return view if writable else view.toreadonly()

    def populate(self, offset: int, nbytes: int) -> None:
        """Fault pages in for writing, outside the GIL.

        Raises:
            LocalError: the machine has no memory left.
        """
        if _libc.madvise(self.address + offset, nbytes, _MADV_POPULATE_WRITE) == 0:
            return
        error = ctypes.get_errno()
        if error == 22:  # EINVAL: a kernel before 5.14; touch each page instead
            for at in range(offset, offset + nbytes, PAGE_BYTES):
                ctypes.memset(self.address + at, 0, 1)
            return
        raise LocalError(
            f"this machine could not provide the donated memory ({os.strerror(error)}).",
            fix="donate less with --memory",
        )

    def close(self) -> None:
        """Unmap the range; a second call does nothing."""
        if self._open:
            self._open = False
            _libc.munmap(self.address, self.nbytes)

    def __del__(self) -> None:
        self.close()


def map_extents(fds: Sequence[int], extent_bytes: int, access: Access) -> Mapping:
    """Map files of ``extent_bytes`` each one behind the other; the descriptors stay the caller's.

    Raises:
        LocalError: the kernel refused, as it does for a writable mapping of sealed memory.
    """
    total = len(fds) * extent_bytes
    base = _libc.mmap(None, total, _PROT_NONE, _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE, -1, 0)
    if base == _MAP_FAILED:
        raise _refused()
    mapping = Mapping(base, total)
    protection, flags = access.value
    for index, fd in enumerate(fds):
        at = base + index * extent_bytes
        if os.fstat(fd).st_size < extent_bytes:
            mapping.close()
            raise LocalError("a process of this node lent less memory than it said.")
        if _libc.mmap(at, extent_bytes, protection, flags | _MAP_FIXED, fd, 0) == _MAP_FAILED:
            error = _refused()
            mapping.close()
            raise error
    return mapping


def _refused() -> LocalError:
    return LocalError(f"this kernel refused to map memory ({os.strerror(ctypes.get_errno())}).")
