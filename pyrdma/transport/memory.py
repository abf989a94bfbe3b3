"""A transport inside one process: it really moves bytes, from one node's region to another's ring.

Tests and simulation run the pull engine over it without a network; faults are subclasses of it.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
from collections.abc import Callable

from pyrdma.errors import SourceError
from pyrdma.limits import PIECE_BYTES, RING_SLOTS
from pyrdma.memory import Region
from pyrdma.memory.mapping import Access, Mapping, map_extents
from pyrdma.memory.memfd import lent_memfd
from pyrdma.transport import SourceGrant


class MemoryNetwork:
    """What joins the memory transports of one process: addresses and what lies behind them."""

    def __init__(self) -> None:
        self.members: dict[bytes, MemoryTransport] = {}


class MemoryTransport:
    """One member of a ``MemoryNetwork``."""

    lane = "memory"
    alive = True

    def __init__(self, network: MemoryNetwork, address: bytes, *, slots: int = RING_SLOTS) -> None:
        self.address = address
        self.slots = slots
        self._network = network
        self._ring: Mapping = map_extents(
            [lent_memfd("ring", slots * PIECE_BYTES)], slots * PIECE_BYTES, Access.SHARED_WRITE
        )
        self._served: dict[int, tuple[Region, int]] = {}
        self._peers: dict[int, bytes] = {}
        self._numbers = itertools.count(1)
        network.members[address] = self

    def slot_address(self, slot: int) -> int:
        """Return the address of a slot."""
        return self._ring.address + slot * PIECE_BYTES

    async def serve(
        self,
        session: int,
        peer_address: bytes,  # noqa: ARG002 - everybody in the network is reached
        region: Region,
        nbytes: int,
        *,
        on_end: Callable[[], None],  # noqa: ARG002 - nobody in it dies
    ) -> None:
        """Let a peer read a region; a session of this transport never ends by itself."""
        self._served[session] = (region, nbytes)

    async def withdraw(self, session: int) -> None:
        """Stop serving a session."""
        self._served.pop(session, None)

    async def connect(self, grant: SourceGrant) -> int:
        """Return a number for a source."""
        number = next(self._numbers)
        self._peers[number] = grant.address
        return number

    async def disconnect(self, peer: int) -> None:
        """Let go of a source."""
        self._peers.pop(peer, None)

    async def fetch(self, peer: int, grant: SourceGrant, offset: int, nbytes: int, slot: int) -> None:
        """Copy a range into a slot."""
        await asyncio.sleep(0)  # a turn of the loop, as any network would take
        source = self._network.members.get(self._peers.get(peer, b""))
        if source is None or not source.alive:
            raise SourceError("the source is gone.")
        await source.answer(grant.session, offset, nbytes, self.slot_address(slot))

    async def answer(self, session: int, offset: int, nbytes: int, into: int) -> None:
        """Write the range that a peer asked for to an address in its ring."""
        served = self._served.get(session)
        if served is None or offset + nbytes > served[1]:
            raise SourceError("the source refused.")
        ctypes.memmove(into, served[0].address(offset, nbytes), nbytes)

    async def close(self) -> None:
        """Leave the network."""
        self.alive = False
        self._network.members.pop(self.address, None)
