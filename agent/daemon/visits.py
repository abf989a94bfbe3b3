"""What visitors run: people with a token and a laptop, whose leases this gateway holds for them.

Rules: a visitor's lease is stopped when nobody has attended it for ``VISITOR_ABSENT_S``, since only the
visitor's own process can use it; a visitor sees and ends its own leases and no other; revoking a token ends
its leases; of one token only so many streams are open at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agent.daemon.faces import Emit, Wish
from agent.daemon.node import Node
from agent.daemon.pipes import Pipe
from agent.errors import BusyError, Reported, UnknownLeaseError
from agent.limits import MAX_STREAMS_PER_TOKEN, VISITOR_ABSENT_S
from agent.local.people_views import WhoAmIView
from agent.local.views import GrantedView, LeaseView
from agent.people.model import Who

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Visit:
    """A lease of a visitor; the timer runs while nobody attends it."""

    who: Who
    attended: int = 0
    absent: asyncio.TimerHandle | None = None


class Visits:
    """The visitors of one gateway.

    Args:
        node: the gateway's node, which borrows for them.
        absent_s: how long a lease is kept that nobody attends.
    """

    def __init__(self, node: Node, absent_s: float = VISITOR_ABSENT_S) -> None:
        self._node = node
        self._absent_s = absent_s
        self._visits: dict[str, _Visit] = {}
        self._streams: Counter[str] = Counter()
        self._ending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Watch over nothing any more; the node gives back what it has borrowed."""
        for visit in self._visits.values():
            if visit.absent is not None:
                visit.absent.cancel()
        self._visits.clear()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def whoami(self, who: Who) -> WhoAmIView:
        """Return a visitor as this node knows it."""
        return await self._node.desk.whoami(who)

    async def run(self, wish: Wish, who: Who, emit: Emit) -> GrantedView:
        """Start a model; the lease has to be attended from then on."""
        granted = await self._node.run(wish, who, emit)
        visit = self._visits[granted.lease.id] = _Visit(who)
        self._await_visitor(granted.lease.id, visit)
        return granted

    async def stop(self, lease_id: str, who: Who) -> LeaseView:
        """End one of the visitor's leases."""
        self._own(lease_id, who)
        return await self._node.stop(lease_id, who)

    async def attend(self, lease_id: str, who: Who) -> str:
        """Wait until a lease ends; return why."""
        visit = self._own(lease_id, who)
        visit.attended += 1
        if visit.absent is not None:
            visit.absent.cancel()
        try:
            reason = await self._borrowed_end(lease_id)
            self._visits.pop(lease_id, None)
            return reason
        finally:
            visit.attended -= 1
            if not visit.attended and lease_id in self._visits:
                self._await_visitor(lease_id, visit)

    async def connect(self, lease_id: str, who: Who) -> Pipe:
        """Open a connection to a lease's runner."""
        self._own(lease_id, who)
        assert self._node.borrowed is not None, "a gateway borrows"
        return await self._node.borrowed.connect(lease_id)

    @contextmanager
    def stream(self, who: Who) -> Iterator[None]:
        """Count a stream of a visitor while it is open.

        Raises:
            BusyError: there are too many.
        """
        if self._streams[who.key] >= MAX_STREAMS_PER_TOKEN:
            raise BusyError("too many connections are open with this token.", fix="close some first")
        self._streams[who.key] += 1
        try:
            yield
        finally:
            self._streams[who.key] -= 1
            if not self._streams[who.key]:
                del self._streams[who.key]

    def end_all(self, token: str) -> None:
        """End what runs under a token that was revoked."""
        key = Who(None, token).key
        for lease_id in [one for one, visit in self._visits.items() if visit.who.key == key]:
            self._stop_soon(lease_id, "its token was revoked")

    async def _borrowed_end(self, lease_id: str) -> str:
        assert self._node.borrowed is not None, "a gateway borrows"
        return await self._node.borrowed.until_end(lease_id)

    def _own(self, lease_id: str, who: Who) -> _Visit:
        visit = self._visits.get(lease_id)
        if visit is None or visit.who.key != who.key:
            raise UnknownLeaseError(f"you have no lease {lease_id[:32]!r} here.")
        return visit

    def _await_visitor(self, lease_id: str, visit: _Visit) -> None:
        loop = asyncio.get_running_loop()
        visit.absent = loop.call_later(self._absent_s, self._stop_soon, lease_id, "its visitor has gone")

    def _stop_soon(self, lease_id: str, reason: str) -> None:
        self._visits.pop(lease_id, None)
        task = asyncio.create_task(self._stop(lease_id, reason))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _stop(self, lease_id: str, reason: str) -> None:
        try:
            await self._node.stop(lease_id, self._node.desk.owner)
            _log.info("the visitor's lease %s was stopped: %s", lease_id, reason)
        except Reported as error:
            _log.info("the visitor's lease %s could not be stopped: %s", lease_id, error.message)
