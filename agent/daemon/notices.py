"""Notices of leases that run here: given by the owner of their devices or by the gateway, and withdrawn.

Rules: a lease's runner hears once that it ends, whoever says so, and that it goes on when nobody says so any
more; nobody withdraws another one's notice. A lease goes on when its runner has said that it serves again,
and not before: one that has begun to end cannot be held, and ends as it was told. Nothing here waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from agent.daemon.parts import Runner
from agent.daemon.starting import Notifier, OpenLease
from agent.errors import StateError
from agent.state import LeaseRecord, Store

_log = logging.getLogger(__name__)


class Notices:
    """The notices of one node's leases.

    Args:
        store: the books.
        end: begins to end a lease, with the reason.
    """

    def __init__(self, store: Store, end: Callable[[str, str], object]) -> None:
        self._store = store
        self._end = end
        self._tasks: set[asyncio.Task[None]] = set()

    def give(self, lease: OpenLease, who: Notifier, left_s: float, reason: str) -> None:
        """Let a lease finish what it has begun, since it is ended in ``left_s``."""
        if who in lease.notices:
            return
        first = not lease.notices
        lease.notices[who] = reason
        if not first:
            return
        lease.for_owner = who == "owner"
        if lease.runner is None or lease.record.state not in ("active", "draining"):
            self._end(lease.record.id, reason)  # it has begun nothing
            return
        _log.info("lease %s ends in %.0f s: %s", lease.record.id, left_s, reason)
        lease.undraining = None
        self._note(lease, "draining", reason)
        self._beside(lease.runner.drain(left_s))

    def withdraw(self, lease: OpenLease, who: Notifier) -> None:
        """Take a notice back; one that was not given is no error."""
        if lease.notices.pop(who, None) is None:
            return
        for other, reason in lease.notices.items():
            lease.for_owner = other == "owner"
            self._note(lease, "draining", reason)
        if not lease.notices and lease.runner is not None:
            lease.undraining = self._beside(self._undrain(lease, lease.runner))

    async def settle(self) -> None:
        """Wait until everything is told and written down."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _undrain(self, lease: OpenLease, runner: Runner) -> None:
        serves = await runner.undrain()
        if lease.ending is not None:
            return
        if not serves:
            self._end(lease.record.id, lease.notice)
        elif lease.undraining is asyncio.current_task():
            _log.info("lease %s goes on after all", lease.record.id)
            lease.for_owner = False
            self._note(lease, "active", "")

    def _note(self, lease: OpenLease, state: str, notice: str) -> None:
        lease.notice = notice
        lease.record = replace(lease.record, state=state, reason=notice)
        self._beside(self._write(lease.record))

    async def _write(self, record: LeaseRecord) -> None:
        try:
            await self._store.put_lease(record)
        except StateError as error:
            _log.error("lease %s is %s, not so on disk: %s", record.id, record.state, error.message)

    def _beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
