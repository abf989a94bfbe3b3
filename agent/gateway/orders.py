"""What a donor has its nodes do: starts and stops, each beside the others.

Rules: whoever waits for a start hears how it went, from its node or by the lease's end; a lease that ends
calls its start off before its node is told to stop; an order to stop that is under way is not given twice;
what could not be told to a node is told again after its next report, or ends there by its time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from agent.daemon.faces import Emit, Host, Order
from agent.gateway.core.book import Lease
from agent.gateway.core.request import LeaseRequest
from agent.limits import TELL_AGAIN_S
from agent.local.views import GrantedView, RunEvent
from federation.errors import FederationError
from pyrdma.errors import Error
from pyrdma.image.manifest import ImageId

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Start:
    """One start: who listens to it, and how far it is."""

    listener: Emit | None = None
    task: asyncio.Task[GrantedView] | None = None
    answered: bool = False
    """Its node has said yes or no; there is nothing to call off any more."""
    called_off: bool = False
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Its node is being told, or never will be."""

    def emit(self, event: RunEvent) -> None:
        """Pass an event on to whoever listens."""
        if self.listener is not None:
            self.listener(event)


class Orders:
    """The orders of one donor that are under way.

    Args:
        host: returns the node that is to run a lease.
        prepare: brings an image within a node's reach before it is told to start.
        left_s: returns how long a lease lives from now.
        started: told that a lease's runner answers.
        failed: told that a lease could not be started, and why.
        stopped: told that a node has nothing of a lease left, and why.
    """

    def __init__(
        self,
        host: Callable[[str], Host],
        prepare: Callable[[str, LeaseRequest], Awaitable[None]],
        *,
        left_s: Callable[[Lease], float],
        started: Callable[[str], Awaitable[None]],
        failed: Callable[[str, str], Awaitable[None]],
        stopped: Callable[[str, str, str], Awaitable[None]],
    ) -> None:
        self._host = host
        self._prepare = prepare
        self._left_s = left_s
        self._started = started
        self._failed = failed
        self._stopped = stopped
        self._starts: dict[str, Start] = {}
        self._words: set[asyncio.Task[None]] = set()
        self._last_words: dict[str, asyncio.Task[None]] = {}
        self._stops: dict[tuple[str, str], asyncio.Task[None]] = {}

    def expect(self, lease_id: str) -> Start:
        """Return the start of a lease that is about to be committed; ``forget`` it afterwards."""
        start = self._starts[lease_id] = Start()
        return start

    def forget(self, lease_id: str) -> None:
        """Let go of a start that nobody waits for any more."""
        self._starts.pop(lease_id, None)

    def start(self, lease: Lease) -> None:
        """Have a lease's node start it."""
        start = self._starts.setdefault(lease.id, Start())  # after a restart nobody waits for it
        start.task = asyncio.create_task(self._run(lease, start), name=f"start-{lease.id}")
        start.task.add_done_callback(_retrieve)
        start.begun.set()

    def call_off(self, lease_id: str) -> None:
        """Call off what a lease's node is not told yet: its start, and that it goes on after all."""
        self._last_words.pop(lease_id, None)
        start = self._starts.get(lease_id)
        if start is not None and not start.answered:
            start.called_off = True
            start.begun.set()
            if start.task is not None:
                start.task.cancel()

    def stop(self, node: str, lease_id: str, reason: str) -> None:
        """Have a node stop what it starts or runs for a lease."""
        key = (node, lease_id)
        if key in self._stops:
            return
        stopping = asyncio.create_task(self._stop(node, lease_id, reason), name=f"stop-{lease_id}")
        self._stops[key] = stopping
        stopping.add_done_callback(lambda _: self._stops.pop(key, None))

    def notice(self, lease: Lease, left_s: float, reason: str) -> None:
        """Have a node tell a lease's runner that it will be stopped: it takes nothing new on."""
        self._tell(lease, partial(self._notice, lease, left_s, reason))

    def reprieve(self, lease: Lease) -> None:
        """Have a node tell a lease's runner that it may go on after all."""
        self._tell(lease, partial(self._reprieve, lease))

    def _tell(self, lease: Lease, word: Callable[[], Awaitable[None]]) -> None:
        # One word after the other: a notice that overtakes its withdrawal would stand for good.
        before = self._last_words.get(lease.id)

        async def tell() -> None:
            if before is not None:
                await asyncio.wait([before])
            await word()

        telling = asyncio.create_task(tell(), name=f"notice-{lease.id}")
        self._last_words[lease.id] = telling
        self._words.add(telling)
        telling.add_done_callback(partial(self._told, lease.id))

    def _told(self, lease_id: str, telling: asyncio.Task[None]) -> None:
        self._words.discard(telling)
        if self._last_words.get(lease_id) is telling:
            del self._last_words[lease_id]

    async def close(self) -> None:
        """Call off every start, and wait for no node any more."""
        tasks: list[asyncio.Task[GrantedView] | asyncio.Task[None]] = [*self._stops.values(), *self._words]
        tasks += [one.task for one in self._starts.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, lease: Lease, start: Start) -> GrantedView:
        request, node = lease.request, lease.device.node
        try:
            await self._prepare(node, request)
            order = Order(
                lease_id=lease.id,
                model=request.model,
                image_id=ImageId.parse(request.image_id),
                ttl_s=self._left_s(lease),
                borrower=f"{request.borrower_site}/{request.borrower_node}",
                devices=tuple(one.device for one in lease.devices),
                grace_s=lease.terms.grace_s,
                most_bytes=max(1, request.total_bytes),
            )
            granted = await self._host(node).start_runner(order, start.emit)
        except Exception as error:
            start.answered = True
            reason = "a defect of the donor's gateway"
            if isinstance(error, Error | FederationError):
                reason = error.message
            _log.warning("lease %s did not start: %s", lease.id, reason)
            await self._failed(lease.id, reason)
            raise
        start.answered = True
        await self._started(lease.id)
        return granted

    async def _notice(self, lease: Lease, left_s: float, reason: str) -> None:
        try:
            await self._host(lease.device.node).notice_runner(lease.id, left_s, reason)
        except (Error, FederationError) as error:
            # It is stopped at the deadline all the same.
            _log.warning("the node of %s could not be told that it ends: %s", lease.id, error.message)

    async def _reprieve(self, lease: Lease) -> None:
        # Without this word the lease would refuse everything there until its time is over.
        while self._last_words.get(lease.id) is asyncio.current_task():
            try:
                await self._host(lease.device.node).withdraw_notice(lease.id)
            except (Error, FederationError) as error:
                _log.warning("the node of %s could not be told that it goes on: %s", lease.id, error.message)
                await asyncio.sleep(TELL_AGAIN_S)
            else:
                return

    async def _stop(self, node: str, lease_id: str, reason: str) -> None:
        start = self._starts.get(lease_id)
        if start is not None and start.called_off and start.task is not None:
            # The order to stop must not overtake what it is to stop.
            await asyncio.wait([start.task])
        try:
            await self._host(node).stop_runner(lease_id, reason)
        except (Error, FederationError) as error:
            _log.warning("the node %s could not be told to stop %s: %s", node, lease_id, error.message)
            return
        await self._stopped(node, lease_id, reason)


def _retrieve(task: asyncio.Task[GrantedView]) -> None:
    # A start whose borrower has gone fails with nobody to hear of it.
    if not task.cancelled():
        task.exception()
