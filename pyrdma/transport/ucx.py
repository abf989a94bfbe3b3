"""The UCX lane as the weight cache sees it: a worker process that is never believed.

The worker may write into the ring, nothing else; of its messages only the end of a fetch that was ordered
counts. Any message that is not expected ends it: a worker that breaks its contract is not argued with.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pyrdma.errors import ChannelError, Error, LaneError, SourceError
from pyrdma.limits import MAX_LANE_ADDRESS_BYTES, PIECE_BYTES, RING_SLOTS, WAIT_EVERY_S
from pyrdma.memory import Region
from pyrdma.memory.mapping import Access, map_extents
from pyrdma.memory.memfd import lent_memfd
from pyrdma.transport import SourceGrant
from pyrdma.transport.ucx_serving import ServedSessions
from pyrdma.transport.worker_process import (
    ORDER_DEADLINE_S,
    START_DEADLINE_S,
    WORKER_COMMAND,
    WorkerProcess,
    said,
)
from pyrdma.wire import Message

_WAITS_PER_S: Final = 2 / WAIT_EVERY_S
"""Our worker passes on at most two of a source's signs in an interval: more is a flood."""
_MAX_SENT_BYTES: Final = 1 << 62
"""More than any wire carries; a count that is no number of bytes is the word of a broken worker."""
_WAITS_AT_ONCE: Final = 16
"""So many more are no flood yet."""


@dataclass(slots=True)
class _Source:
    """A source that we are connected to, and how often its worker may say that it waits."""

    session: int
    on_wait: Callable[[], None]
    since_s: float = field(default_factory=time.monotonic)
    waits: int = 0

    def take_wait(self) -> None:
        """Pass on that the source waits; a ValueError when our worker says it oftener than it may."""
        self.waits += 1
        if self.waits > _WAITS_AT_ONCE + _WAITS_PER_S * (time.monotonic() - self.since_s):
            raise ValueError("waiting")
        self.on_wait()


class UcxTransport:
    """A lane worker, its ring and what it was ordered to do. Made by ``start``."""

    def __init__(self, worker: WorkerProcess, *, slots: int, order_deadline_s: float) -> None:
        self.lane = worker.lane
        self.address = worker.address
        self.slots = slots
        self.pid = worker.pid
        self._worker = worker
        self._channel = worker.channel
        self._order_deadline_s = order_deadline_s
        ring_bytes = slots * PIECE_BYTES
        self._ring_fd = lent_memfd("ring", ring_bytes)
        self._ring = map_extents([self._ring_fd], ring_bytes, Access.SHARED_WRITE)
        self._ring_lent = False
        self._ring_lock = asyncio.Lock()
        self._fetches: dict[int, asyncio.Future[None]] = {}
        self._fetch_peers: dict[int, int] = {}
        self._sessions = ServedSessions(worker.channel, order_deadline_s, self._break)
        self._peers: dict[int, _Source] = {}
        self._leaving: dict[int, asyncio.Future[None]] = {}
        self._gone: set[int] = set()
        self._numbers = itertools.count(1)
        self._broken: Error | None = None
        self.sent_bytes = 0
        """Of metered sessions, as the worker says: it is believed for this count alone."""
        self._reader = asyncio.create_task(self._read(), name="ucx-lane")

    @classmethod
    async def start(
        cls,
        interface: str,
        *,
        slots: int = RING_SLOTS,
        command: Sequence[str] = WORKER_COMMAND,
        start_deadline_s: float = START_DEADLINE_S,
        order_deadline_s: float = ORDER_DEADLINE_S,
    ) -> UcxTransport:
        """Start a lane worker on a protected interface.

        Raises:
            LaneError: UCX is missing, the interface is not usable, or the worker did not come up.
        """
        worker = await WorkerProcess.start(interface, command=command, deadline_s=start_deadline_s)
        return cls(worker, slots=slots, order_deadline_s=order_deadline_s)

    @property
    def alive(self) -> bool:
        """Whether the worker may be used."""
        return self._broken is None

    def slot_address(self, slot: int) -> int:
        """Return the address of a slot of the ring."""
        return self._ring.address + slot * PIECE_BYTES

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
        """Let one peer read a region; returns when the worker is ready for its requests."""
        self._require_alive()
        await self._sessions.serve(
            session, peer_address, region, nbytes, gated=gated, metered=metered, on_end=on_end
        )

    async def bound_egress(self, bytes_per_s: int, until_bytes: int | None) -> None:
        """Bound the pace and the count of what metered sessions send, all together."""
        if self.alive:
            order = {"op": "egress", "bytes_per_s": bytes_per_s, "until_bytes": until_bytes}
            await self._channel.asend(order)

    async def allow(self, session: int, pieces: Sequence[int]) -> bool:
        """Let the peer of a gated session have these pieces, too."""
        return self.alive and await self._sessions.allow(session, pieces)

    async def withdraw(self, session: int) -> None:
        """Stop serving a session."""
        if self.alive:
            await self._sessions.withdraw(session)

    async def connect(self, grant: SourceGrant, *, on_wait: Callable[[], None]) -> int:
        """Connect to a source's worker."""
        self._require_alive()
        await self._lend_ring()
        peer = next(self._numbers)
        if len(grant.address) > MAX_LANE_ADDRESS_BYTES:
            return peer  # no lane has such an address: fetches from it fail as those of a source that is gone
        self._peers[peer] = _Source(grant.session, on_wait)
        await self._channel.asend({"op": "connect", "peer": peer, "address": grant.address.hex()})
        return peer

    async def _lend_ring(self) -> None:
        """Touch the ring and lend it to the worker, once: a node that only serves never holds one."""
        async with self._ring_lock:
            if not self._ring_lent:
                # Before the first piece: fresh pages are slow.
                await asyncio.to_thread(self._ring.populate, 0, self._ring.nbytes)
                order = {"op": "ring", "slots": self.slots, "slot_bytes": PIECE_BYTES}
                await self._channel.asend(order, [self._ring_fd])
                self._ring_lent = True

    async def disconnect(self, peer: int) -> None:
        """Close the way to a source and wait until its fetches have ended."""
        source = self._peers.get(peer)
        if source is None or not self.alive:
            return
        waiting: list[asyncio.Future[None]] = []
        if peer not in self._leaving:
            self._leaving[peer] = asyncio.get_running_loop().create_future()
            waiting = [self._fetches[name] for name, owner in self._fetch_peers.items() if owner == peer]
            await self._channel.asend({"op": "disconnect", "peer": peer, "session": source.session})
        if peer in self._leaving:
            waiting.append(self._leaving[peer])
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=self._order_deadline_s)
            if late:
                self._break(LaneError("the UCX lane worker hangs on a source that was dropped."))

    async def fetch(self, peer: int, grant: SourceGrant, offset: int, nbytes: int, slot: int) -> None:
        """Bring a range into a slot."""
        self._require_alive()
        if peer in self._gone or peer in self._leaving or peer not in self._peers:
            raise SourceError("the source is gone.")
        name = next(self._numbers)
        done = self._fetches[name] = asyncio.get_running_loop().create_future()
        self._fetch_peers[name] = peer
        try:
            await self._channel.asend(
                {
                    "op": "fetch",
                    "fetch": name,
                    "peer": peer,
                    "session": grant.session,
                    "offset": offset,
                    "nbytes": nbytes,
                    "slot": slot,
                }
            )
            # The slot is the worker's until it says so: a caller that is cancelled does not get it back
            # earlier.
            await asyncio.shield(done)
        finally:
            if done.done():
                self._forget(name)

    async def close(self) -> None:
        """End the worker."""
        self._break(LaneError("the UCX lane was closed."))
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        if self._ring_fd >= 0:
            os.close(self._ring_fd)
            self._ring_fd = -1

    # --- the worker's side --------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                message, fds = await self._channel.arecv()
                for fd in fds:
                    os.close(fd)
                self._take(message)
        except ChannelError:
            self._break(LaneError("the UCX lane worker died.", fix="it is started again by itself"))
        except (KeyError, TypeError, ValueError):
            self._break(LaneError("the UCX lane worker broke its contract and was ended."))

    def _take(self, message: Message) -> None:
        """Believe nothing that was not waited for; a KeyError ends the worker."""
        op = message["op"]
        if op == "fetched":
            self._end(message["fetch"], None)
        elif op == "fetch_failed":
            self._end(message["fetch"], SourceError(f"a fetch failed: {said(message['reason'])}."))
        elif op == "peer_lost":
            if message["peer"] not in self._peers or message["peer"] in self._gone:
                raise ValueError(op)
            self._gone.add(message["peer"])
        elif op == "disconnected":
            self._leaving.pop(message["peer"]).set_result(None)
            self._peers.pop(message["peer"])
            self._gone.discard(message["peer"])
        elif op == "waiting":
            if message["peer"] not in self._fetch_peers.values():
                raise ValueError(op)
            self._peers[message["peer"]].take_wait()
        elif op in ("serving", "serve_failed", "session_lost", "withdrawn"):
            self._sessions.take(message)
        elif op == "sent":
            self._count(message["bytes"])
        elif op == "failed":
            self._break(LaneError(said(message["message"]), fix="it is started again by itself"))
        else:
            raise ValueError(op)

    def _count(self, sent_bytes: object) -> None:
        if type(sent_bytes) is not int or not self.sent_bytes < sent_bytes <= _MAX_SENT_BYTES:
            raise ValueError("sent")
        self.sent_bytes = sent_bytes

    def _end(self, name: int, error: Error | None) -> None:
        done = self._fetches[name]
        if done.done():
            raise ValueError("a fetch ended twice")
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
        done.exception()  # seen: its caller may have been cancelled
        self._forget(name)

    def _forget(self, name: int) -> None:
        self._fetches.pop(name, None)
        self._fetch_peers.pop(name, None)

    def _require_alive(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _break(self, error: LaneError) -> LaneError:
        """End the worker for good; every fetch and order that waits gets the error."""
        if self._broken is None:
            self._broken = error
            self._worker.end()
            for waiting in self._fetches.values():
                if not waiting.done():
                    waiting.set_exception(error)
                    waiting.exception()
            for left in self._leaving.values():
                left.set_result(None)  # with the worker, whatever it could still write is gone
            self._leaving.clear()
            self._fetches.clear()
            self._fetch_peers.clear()
            self._sessions.end_all(error)
        return error
