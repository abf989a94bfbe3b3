"""A transport inside one process: it really moves bytes, from one node's region to another's ring.

Tests and simulation run the pull engine over it without a network; faults are subclasses of it.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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


@dataclass(slots=True)
class _Served:
    """What one peer may read: the pieces in ``gate``, or all."""

    region: Region
    nbytes: int
    gate: set[int] | None
    on_end: Callable[[], None]
    changed: asyncio.Event = field(default_factory=asyncio.Event)


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
        self._served: dict[int, _Served] = {}
        self._peers: dict[int, tuple[bytes, Callable[[], None]]] = {}
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
        gated: bool = False,
        metered: bool = False,  # noqa: ARG002 - within one process nothing leaves a site
        on_end: Callable[[], None],
    ) -> None:
        """Let a peer read a region; a session of this transport never ends by itself."""
        self._served[session] = _Served(region, nbytes, set() if gated else None, on_end)

    async def allow(self, session: int, pieces: Sequence[int]) -> bool:
        """Let the peer of a gated session have these pieces, too."""
        served = self._served.get(session)
        if served is None or served.gate is None:
            return False
        served.gate.update(pieces)
        served.changed.set()
        return True

    async def withdraw(self, session: int) -> None:
        """Stop serving a session; what waits for a piece of it is refused."""
        served = self._served.pop(session, None)
        if served is not None:
            served.changed.set()
            served.on_end()

    async def connect(self, grant: SourceGrant, *, on_wait: Callable[[], None]) -> int:
        """Return a number for a source."""
        number = next(self._numbers)
        self._peers[number] = (grant.address, on_wait)
        return number

    async def disconnect(self, peer: int) -> None:
        """Let go of a source."""
        self._peers.pop(peer, None)

    async def fetch(self, peer: int, grant: SourceGrant, offset: int, nbytes: int, slot: int) -> None:
        """Copy a range into a slot."""
        await asyncio.sleep(0)  # a turn of the loop, as any network would take
        address, on_wait = self._peers.get(peer, (b"", lambda: None))
        source = self._network.members.get(address)
        if source is None or not source.alive:
            raise SourceError("the source is gone.")
        await source.until_allowed(grant.session, offset // PIECE_BYTES, on_wait)
        await source.answer(grant.session, offset, nbytes, self.slot_address(slot))

    async def until_allowed(self, session: int, piece: int, on_wait: Callable[[], None]) -> None:
        """Wait until the peer of a session may have a piece, or the session is over."""
        while (served := self._served.get(session)) and served.gate is not None and piece not in served.gate:
            on_wait()
            served.changed.clear()
            await served.changed.wait()

    async def answer(self, session: int, offset: int, nbytes: int, into: int) -> None:
        """Write the range that a peer asked for to an address in its ring."""
        served = self._served.get(session)
        if served is None or offset + nbytes > served.nbytes:
            raise SourceError("the source refused.")
        if served.gate is not None and offset // PIECE_BYTES not in served.gate:
            raise SourceError("the source does not have that yet.")
        ctypes.memmove(into, served.region.address(offset, nbytes), nbytes)

    async def close(self) -> None:
        """Leave the network."""
        self.alive = False
        self._network.members.pop(self.address, None)
