"""How pieces travel: one interface, and what implements it.

A transport owns a ring of slots. ``fetch`` brings a range of a source's image into a slot; nothing in a slot
is believed until the caller has copied it out and proven the copy. What it serves is proven: a region that is
still being filled is served piece by piece, each once the caller allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyrdma.memory import Region


@dataclass(frozen=True, slots=True)
class SourceGrant:
    """The right to pull one image from one source.

    ``session`` is 64 random bits that the source chose, ``lane`` the transport it speaks, ``address`` where
    its lane worker is reached.
    """

    session: int
    lane: str
    address: bytes


class Transport(Protocol):
    """One lane of one node: serves regions to peers and fetches ranges from them."""

    @property
    def lane(self) -> str:
        """What carries the bytes (``tcp``, ``rc``, ``memory``...); shown to people."""

    @property
    def address(self) -> bytes:
        """What a peer needs to reach this lane."""

    @property
    def slots(self) -> int:
        """How many pieces the ring holds."""

    @property
    def alive(self) -> bool:
        """False once the lane cannot be used any more."""

    def slot_address(self, slot: int) -> int:
        """Return the address in this process of a slot's first byte."""

    async def serve(
        self,
        session: int,
        peer_address: bytes,
        region: Region,
        nbytes: int,
        *,
        gated: bool = False,
        metered: bool = False,
        on_end: Callable[[], None],
    ) -> None:
        """Let one peer read the first ``nbytes`` of a region; with ``gated``, only what ``allow`` names.

        What is sent of ``metered`` sessions counts as sent to other sites.

        ``on_end`` is called once, when nothing of the region is read for this session any more: it was
        withdrawn, the peer left or died, or the lane broke.

        Raises:
            LaneError: the lane cannot.
        """

    async def allow(self, session: int, pieces: Sequence[int]) -> bool:
        """Let the peer of a gated session have these pieces, too; what it asked for before waits for them.

        At most ``MAX_PIECES_PER_MESSAGE`` at a time. False: the session has ended.
        """

    async def withdraw(self, session: int) -> None:
        """End a session: nothing of it is read any more on return; one that is gone is no error."""

    async def connect(self, grant: SourceGrant, *, on_wait: Callable[[], None]) -> int:
        """Return a number for a source, which may fail at the first fetch.

        ``on_wait`` is called whenever the source says that it waits itself for what it was asked for.
        """

    async def disconnect(self, peer: int) -> None:
        """Let go of a source: every fetch from it has ended on return, nothing lands later."""

    async def fetch(self, peer: int, grant: SourceGrant, offset: int, nbytes: int, slot: int) -> None:
        """Bring a range of the source's flat space into a slot.

        Raises:
            SourceError: the source is gone or refused.
            LaneError: the lane itself broke.
        """

    async def close(self) -> None:
        """End the lane and whatever runs for it."""
