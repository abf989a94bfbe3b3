"""The UCX lane as the weight cache sees it: a worker process that is never believed.

The worker may write into the ring, nothing else; of its messages only the end of a fetch that was ordered
counts. Any message that is not expected ends it: a worker that breaks its contract is not argued with.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Sequence

from pyrdma.errors import ChannelError, Error, LaneError, SourceError
from pyrdma.limits import MAX_LANE_ADDRESS_BYTES, MAX_MESSAGE_FDS, PIECE_BYTES, RING_SLOTS
from pyrdma.memory import Region
from pyrdma.memory.mapping import Access, map_extents
from pyrdma.memory.memfd import lent_memfd
from pyrdma.transport import SourceGrant
from pyrdma.transport.worker_process import (
    ORDER_DEADLINE_S,
    START_DEADLINE_S,
    WORKER_COMMAND,
    WorkerProcess,
    said,
)
from pyrdma.wire import Message


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
        self._opening: dict[int, asyncio.Future[None]] = {}
        self._sessions: dict[int, Callable[[], None]] = {}
        self._withdrawn: set[int] = set()
        self._peers: dict[int, int] = {}
        self._leaving: dict[int, asyncio.Future[None]] = {}
        self._gone: set[int] = set()
        self._numbers = itertools.count(1)
        self._broken: Error | None = None
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
        self, session: int, peer_address: bytes, region: Region, nbytes: int, *, on_end: Callable[[], None]
    ) -> None:
        """Let one peer read a region; returns when the worker is ready for its requests."""
        self._require_alive()
        fds = region.fds
        served = self._opening[session] = asyncio.get_running_loop().create_future()
        order = {
            "op": "serve",
            "session": session,
            "address": peer_address.hex(),
            "extents": len(fds),
            "extent_bytes": region.extent_bytes,
            "total_bytes": nbytes,
        }
        self._sessions[session] = on_end  # from now on: the worker may lose it as soon as it serves it
        try:
            if len(peer_address) > MAX_LANE_ADDRESS_BYTES:
                raise LaneError("the lane cannot serve: the peer's address is too long.")
            for first in range(0, len(fds), MAX_MESSAGE_FDS):
                await self._channel.asend(order, fds[first : first + MAX_MESSAGE_FDS])
            await asyncio.wait_for(served, self._order_deadline_s)
        except TimeoutError:
            raise self._break(LaneError("the UCX lane worker hangs.")) from None
        except Error:
            self._sessions.pop(session, None)
            raise
        finally:
            self._opening.pop(session, None)

    async def withdraw(self, session: int) -> None:
        """Stop serving a session."""
        if self._sessions.pop(session, None) is not None and self.alive:
            self._withdrawn.add(session)
            await self._channel.asend({"op": "withdraw", "session": session})

    async def connect(self, grant: SourceGrant) -> int:
        """Connect to a source's worker."""
        self._require_alive()
        await self._lend_ring()
        peer = next(self._numbers)
        if len(grant.address) > MAX_LANE_ADDRESS_BYTES:
            return peer  # no lane has such an address: fetches from it fail as those of a source that is gone
        self._peers[peer] = grant.session
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
        session = self._peers.get(peer)
        if session is None or not self.alive:
            return
        waiting: list[asyncio.Future[None]] = []
        if peer not in self._leaving:
            self._leaving[peer] = asyncio.get_running_loop().create_future()
            waiting = [self._fetches[name] for name, owner in self._fetch_peers.items() if owner == peer]
            await self._channel.asend({"op": "disconnect", "peer": peer, "session": session})
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
        elif op == "session_lost":
            if message["session"] in self._sessions:
                self._sessions.pop(message["session"])()
            elif message["session"] not in self._withdrawn:
                raise ValueError(op)
        elif op == "withdrawn":
            self._withdrawn.remove(message["session"])
        elif op == "failed":
            self._break(LaneError(said(message["message"]), fix="it is started again by itself"))
        elif op in ("serving", "serve_failed"):
            served = self._opening[message["session"]]
            if served.done():
                raise ValueError(op)
            if op == "serving":
                served.set_result(None)
            else:
                served.set_exception(LaneError(f"the lane cannot serve: {said(message['reason'])}."))
        else:
            raise ValueError(op)

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
            for waiting in (*self._fetches.values(), *self._opening.values()):
                if not waiting.done():
                    waiting.set_exception(error)
                    waiting.exception()
            for left in self._leaving.values():
                left.set_result(None)  # with the worker, whatever it could still write is gone
            self._leaving.clear()
            self._fetches.clear()
            self._fetch_peers.clear()
            for on_end in self._sessions.values():
                on_end()
            self._sessions.clear()
        return error
