"""The donated memory of one node: extents that are faulted in once and reused.

The first touch of fresh shared memory is slow (on a virtual machine under 1 GB/s), so an extent is touched
once and lent out again and again. An extent is a memory file that only this process can write (see
``pyrdma.memory.memfd``); an image's region is a list of them, so no budget is lost to fragmentation and
whoever maps an image gets descriptors of that image alone.

When this process dies, the extents live on in whoever maps them and are freed by the kernel with the last
one: nothing has a name, so nothing is left behind.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import Final

from pyrdma.errors import BudgetError
from pyrdma.limits import MIB, PIECE_BYTES
from pyrdma.memory import memfd
from pyrdma.memory.mapping import Access, Mapping, map_extents

SMALLEST_EXTENT_BYTES: Final = 64 * MIB
MOST_EXTENTS: Final = 1024
"""Descriptors that a budget costs at most; above 64 GiB extents grow instead."""
_FAULT_STEP_BYTES: Final = 16 * MIB
"""Faulted in at a time, so that another thread gets its turn in between."""


def extent_bytes_for(budget_bytes: int) -> int:
    """Return the extent size for a budget: a multiple of the piece size; no piece crosses one."""
    steps = -(-budget_bytes // (MOST_EXTENTS * SMALLEST_EXTENT_BYTES))
    size = max(1, steps) * SMALLEST_EXTENT_BYTES
    assert size % PIECE_BYTES == 0
    return size


@dataclass(slots=True)
class Extent:
    """One memory file of the pool and our writable mapping of it."""

    fd: int
    mapping: Mapping
    faulted_bytes: int = 0
    faulting: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Region:
    """The extents that one image lies in, in order."""

    extents: tuple[Extent, ...]
    extent_bytes: int

    def address(self, offset: int, nbytes: int) -> int:
        """Return the address of a range of the flat space that lies in one extent."""
        index, within = divmod(offset, self.extent_bytes)
        if within + nbytes > self.extent_bytes:
            raise ValueError("a range crosses extents")
        return self.extents[index].mapping.address + within

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors, in order; they stay the pool's."""
        return tuple(extent.fd for extent in self.extents)


class ExtentPool:
    """Extents up to a budget, made when first needed or by ``fault_in``; safe for threads.

    Args:
        budget_bytes: memory that may ever be held; rounded down to whole extents.
        extent_bytes: size of one extent, a multiple of the piece size.
    """

    def __init__(self, budget_bytes: int, extent_bytes: int | None = None) -> None:
        self.extent_bytes = extent_bytes_for(budget_bytes) if extent_bytes is None else extent_bytes
        self._most = self._lent = budget_bytes // self.extent_bytes
        self._free: list[Extent] = []
        self._made = 0
        self._faulted_bytes = 0
        self._lock = threading.Lock()

    @property
    def budget_bytes(self) -> int:
        """The budget in whole extents."""
        return self._most * self.extent_bytes

    @property
    def lent_bytes(self) -> int:
        """How much of the budget may be held at the moment, in whole extents."""
        return self._lent * self.extent_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes in regions."""
        with self._lock:
            return (self._made - len(self._free)) * self.extent_bytes

    @property
    def faulted_bytes(self) -> int:
        """Bytes that have been touched and so are really held."""
        return self._faulted_bytes

    def extents_for(self, nbytes: int) -> int:
        """Return how many extents hold ``nbytes``."""
        return -(-nbytes // self.extent_bytes)

    def allocate(self, nbytes: int) -> Region:
        """Return a region of at least ``nbytes``, its content undefined.

        Raises:
            BudgetError: the budget does not hold it beside what is there.
        """
        wanted = self.extents_for(nbytes)
        with self._lock:
            available = max(0, self._lent - self._made + len(self._free))
            if wanted > available:
                raise BudgetError(
                    f"an image of {nbytes / MIB:,.0f} MiB does not fit:"
                    f" {available * self.extent_bytes / MIB:,.0f} of {self.lent_bytes / MIB:,.0f} MiB"
                    " donated memory are free on this node.",
                    fix="start the agent with a larger --memory, or end leases of other models",
                )
            # Those that are faulted in first: they are what the pool is for.
            self._free.sort(key=lambda extent: extent.faulted_bytes)
            taken = [self._free.pop() for _ in range(min(wanted, len(self._free)))]
            try:
                while len(taken) < wanted:
                    taken.append(self._make())
            except BaseException:
                self._free.extend(taken)
                raise
            return Region(tuple(taken), self.extent_bytes)

    def release(self, region: Region) -> None:
        """Give a region back. Nobody may map it any longer: the next image overwrites it."""
        with self._lock:
            self._free.extend(region.extents)

    def fault_in(self, region: Region) -> None:
        """Touch every page of a region that was not touched before; costs nothing the second time."""
        for extent in region.extents:
            self._fault(extent)

    def fault_in_one(self) -> bool:
        """Touch one more extent of the budget that nobody uses; False when all of it is there.

        For a thread that pre-faults the budget after start. The extent stays free meanwhile: an image that
        needs the whole budget gets it, and its own ``fault_in`` shares what is left to touch.
        """
        with self._lock:
            extent = next((one for one in self._free if one.faulted_bytes < self.extent_bytes), None)
            if extent is None:
                if self._made >= self._lent:
                    return False
                extent = self._make()
                self._free.append(extent)
        self._fault(extent)
        return True

    def lend(self, nbytes: int) -> None:
        """Hold at most this much of the budget from now on; free extents beyond it go back to the system.

        What is in regions stays until it is released; ``lend`` again then. Memory that is lent again later is
        touched by the images that need it.
        """
        with self._lock:
            self._lent = min(self._most, max(0, nbytes) // self.extent_bytes)
            beyond = min(len(self._free), max(0, self._made - self._lent))
            self._unmake([self._free.pop() for _ in range(beyond)])

    def close(self) -> None:
        """Unmap and close every free extent; call it when no region is out."""
        with self._lock:
            self._unmake(self._free)
            self._free.clear()

    def _unmake(self, extents: list[Extent]) -> None:
        for extent in extents:
            with extent.faulting:
                self._faulted_bytes -= extent.faulted_bytes
                extent.faulted_bytes = self.extent_bytes  # nothing to touch any more
                extent.mapping.close()
            os.close(extent.fd)
        self._made -= len(extents)

    def _make(self) -> Extent:
        fd = memfd.create("extent", self.extent_bytes)
        mapping = map_extents([fd], self.extent_bytes, Access.SHARED_WRITE)
        memfd.add_seals(fd, memfd.SEAL_SHRINK | memfd.SEAL_GROW | memfd.SEAL_FUTURE_WRITE | memfd.SEAL_SEAL)
        self._made += 1
        return Extent(fd, mapping)

    def _fault(self, extent: Extent) -> None:
        while True:
            # Nobody writes into a region before its ``fault_in`` has returned, so touching never meets
            # content.
            with extent.faulting:
                if extent.faulted_bytes >= self.extent_bytes:
                    return
                extent.mapping.populate(extent.faulted_bytes, _FAULT_STEP_BYTES)
                extent.faulted_bytes += _FAULT_STEP_BYTES
            with self._lock:
                self._faulted_bytes += _FAULT_STEP_BYTES
