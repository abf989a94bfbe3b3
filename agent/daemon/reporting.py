"""This node's word on itself to its site's gateway, on this machine or another, again and again.

Rules: a report goes out every ``REPORT_EVERY_S``, and at once when a lease has ended or a device begins to
change hands; an end is named in each report until one of them was answered; what the answer says of leases'
times is taken over, counted from the question on. When the agent stops, what runs here ends first, and a
last report says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from agent.daemon.clocks import boot_time_s
from agent.daemon.leases import Leases
from agent.daemon.reports import LeaseEnd, Report
from agent.limits import MAX_REPORTED_IMAGES, REPORT_CALL_S, REPORT_EVERY_S
from federation.errors import FederationError
from pyrdma.errors import Error

_log = logging.getLogger(__name__)


class Reporting:
    """The reports of one node.

    Args:
        describe: returns this node's word on itself, given the leases that ended lately.
        send: gives it to the gateway; returns the seconds that each of its leases here has left.
        running: the leases that run here; ``None`` where nothing is donated.
        unanswered: told when the gateway did not take a report.
    """

    def __init__(
        self,
        describe: Callable[[tuple[LeaseEnd, ...]], Awaitable[Report]],
        send: Callable[[Report], Awaitable[dict[str, float]]],
        running: Leases | None,
        unanswered: Callable[[], None] = lambda: None,
    ) -> None:
        self._describe = describe
        self._send = send
        self._running = running
        self._unanswered = unanswered
        self._ended: dict[str, LeaseEnd] = {}
        self._news = asyncio.Event()
        self._fault = ""
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        if running is not None:
            running.on_end = self._note_end
            running.on_change = self._news.set

    def start(self) -> None:
        """Begin to report."""
        self._task = asyncio.create_task(self._report_always(), name="report")

    async def close(self) -> None:
        """Stop reporting."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def now(self) -> None:
        """Report at once; return when that report was answered, or not taken."""
        async with self._turn:
            await self._report()

    async def last_word(self) -> None:
        """End what runs here and say so, and that nothing is donated any more; then report nothing more."""
        await self.close()
        if self._running is not None:
            await self._running.close()
        try:
            async with asyncio.timeout(REPORT_CALL_S), self._turn:
                report = await self._describe(tuple(self._ended.values()))
                await self._send(replace(report, donating=False))
        except (Error, FederationError, TimeoutError) as error:
            _log.warning("the gateway did not hear that this node stops: %s", error)

    def _note_end(self, end: LeaseEnd) -> None:
        # One that finds no place is missed by the gateway in what runs here.
        if len(self._ended) < MAX_REPORTED_IMAGES:
            self._ended[end.lease_id] = end
        self._news.set()

    async def _report_always(self) -> None:
        while True:
            self._news.clear()
            try:
                await self.now()
            except Exception:  # noqa: BLE001 - a node that reports no more loses its leases
                _log.exception("a report met a defect; the next one follows")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), REPORT_EVERY_S)

    async def _report(self) -> None:
        ended = tuple(self._ended.values())
        try:
            report = await self._describe(ended)
        except Error as error:
            _log.warning("this node cannot say how it is: %s", error.message)
            return
        try:
            asked_s = boot_time_s()
            left = await self._send(report)
        except (Error, FederationError) as error:
            if error.message != self._fault:
                _log.warning("no report to the gateway: %s", error.message)
            self._fault = error.message
            self._unanswered()
            return
        if self._fault:
            _log.info("the gateway takes reports again")
        self._fault = ""
        for one in ended:
            self._ended.pop(one.lease_id, None)
        if self._running is not None:
            self._running.set_times(left, asked_s)
