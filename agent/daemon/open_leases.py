"""The leases of which something is left on this node: open until each begins to end, then until it is gone.

Rules: a lease ends once and as a whole, with the reason of whoever ended it first; who asks later waits for
the same end. A lease that has a time ends when it is over on this node's own clock, also after the machine
has slept. The devices are free as soon as the runner is gone, and nothing that fails on the way keeps them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from agent.daemon.clocks import boot_time_s
from agent.daemon.parts import Runner
from agent.daemon.reports import LeaseEnd
from agent.daemon.starting import OpenLease
from agent.errors import StateError, UnknownLeaseError
from agent.limits import MAX_LEASE_TTL_S
from agent.paths import Paths
from agent.state import LeaseRecord, Store

_log = logging.getLogger(__name__)


class OpenLeases:
    """The leases of one node, and their ends.

    Args:
        freed: told of a lease of which nothing runs any more, with the process group that its runner had.
        ended: told of every end, after it.
    """

    def __init__(
        self,
        store: Store,
        paths: Paths,
        freed: Callable[[str, int | None], None],
        ended: Callable[[LeaseEnd], None],
    ) -> None:
        self._store = store
        self._paths = paths
        self._freed = freed
        self._ended = ended
        self._open: dict[str, OpenLease] = {}
        self._ending: dict[str, OpenLease] = {}

    @property
    def count(self) -> int:
        """How many leases have not begun to end."""
        return len(self._open)

    def add(self, lease: OpenLease) -> None:
        """Take in a lease that begins."""
        self._open[lease.record.id] = lease

    def get(self, lease_id: str) -> OpenLease | None:
        """Return a lease that has not begun to end."""
        return self._open.get(lease_id)

    def known(self, lease_id: str) -> OpenLease:
        """Return a lease that has not begun to end and whose time is not over; one whose time is over ends.

        Raises:
            UnknownLeaseError: there is none of this id.
        """
        lease = self._open.get(lease_id)
        if lease is not None and is_over(lease):
            self._time_is_over(lease_id)
            lease = None
        if lease is None:
            raise unknown(lease_id)
        return lease

    def left(self, lease_id: str) -> OpenLease | None:
        """Return a lease of which something is left, even if it ends."""
        return self._open.get(lease_id) or self._ending.get(lease_id)

    def all_left(self) -> tuple[OpenLease, ...]:
        """Return every lease of which something is left; those that end come last."""
        return (*self._open.values(), *self._ending.values())

    # --- their time ---------------------------------------------------------------------------------------

    def set_time(self, lease: OpenLease, seconds: float, since_s: float | None = None) -> None:
        """Let a lease end when its time is over; what was said before counts no more.

        Args:
            lease: it has not begun to end.
            seconds: what it has left; ``MAX_LEASE_TTL_S`` at most count.
            since_s: from when they count, on the clock of boots; ``None``: from now on.
        """
        if lease.over is not None:
            lease.over.cancel()
        now_s = boot_time_s()
        ttl_s = min(max(0.0, seconds), MAX_LEASE_TTL_S)
        lease.until_s = (since_s if since_s is not None else now_s) + ttl_s
        left_s = max(0.0, lease.until_s - now_s)
        lease.over = asyncio.get_running_loop().call_later(left_s, self._time_is_over, lease.record.id)

    def expire(self) -> None:
        """End the leases whose time is over by the clock of boots, which a sleeping machine's timers miss."""
        for lease_id in [one for one, lease in self._open.items() if is_over(lease)]:
            self._time_is_over(lease_id)

    def _time_is_over(self, lease_id: str) -> None:
        self.begin_end(lease_id, "its time was over and nobody renewed it")

    # --- their end ----------------------------------------------------------------------------------------

    def watch(self, lease: OpenLease, runner: Runner) -> None:
        """End a lease when its runner ends; returns at once."""
        lease_id = lease.record.id
        lease.watch = asyncio.create_task(self._watch(lease_id, runner), name=f"lease-{lease_id}")

    def begin_end(self, lease_id: str, reason: str) -> asyncio.Task[LeaseRecord] | None:
        """Begin to end a lease; return its end, which may have begun before; ``None``: it is gone."""
        lease = self._open.pop(lease_id, None)
        if lease is not None:
            lease.reason = reason
            self._ending[lease_id] = lease
            lease.ending = asyncio.create_task(self._undo(lease_id, lease), name=f"end-{lease_id}")
        ending = self._ending.get(lease_id)
        return ending.ending if ending is not None else None

    async def end(self, lease_id: str, reason: str) -> LeaseRecord | None:
        """End a lease; return its last record, or ``None`` if nothing was left of it.

        Who calls may go: the end goes on.
        """
        ending = self.begin_end(lease_id, reason)
        return await asyncio.shield(ending) if ending is not None else None

    async def end_all(self, reason: str) -> None:
        """End every lease."""
        await asyncio.gather(*(self.end(lease.record.id, reason) for lease in self.all_left()))

    async def _watch(self, lease_id: str, runner: Runner) -> None:
        await runner.ended.wait()
        lease = self._open.get(lease_id)
        if lease is not None and lease.notice:
            self.begin_end(lease_id, lease.notice)
            return
        _log.warning("lease %s: its runner %s", lease_id, runner.end_reason())
        self.begin_end(lease_id, f"its runner {runner.end_reason()}")

    async def _undo(self, lease_id: str, lease: OpenLease) -> LeaseRecord:
        if lease.watch is not None:
            lease.watch.cancel()
        if lease.over is not None:
            lease.over.cancel()
        if lease.work is not None:
            # It ends first: whatever runner it takes stands in the lease before that one is stopped.
            lease.work.cancel()
            await asyncio.wait([lease.work])
        letting_go = [one.close() for one in (lease.relay,) if one is not None]
        letting_go.append(self._stop_runner(lease_id, lease))
        for fault in await asyncio.gather(*letting_go, return_exceptions=True):
            if fault is not None:
                _log.error("lease %s: something of it could not be ended", lease_id, exc_info=fault)
        with contextlib.suppress(OSError):
            self._paths.runner_socket(lease_id).unlink()
        record = replace(lease.record, state="ended", ended_at=time.time(), reason=lease.reason)
        try:
            await self._store.put_lease(record)
        except StateError as error:
            # A full disk must not keep a device; the next start of the agent closes the record.
            _log.error("lease %s has ended, its record could not be written: %s", lease_id, error.message)
        _log.info("lease %s of %s has ended: %s", lease_id, record.model, lease.reason)
        del self._ending[lease_id]
        self._ended(LeaseEnd(lease_id, lease.reason, lease.for_owner))
        return record

    async def _stop_runner(self, lease_id: str, lease: OpenLease) -> None:
        try:
            if lease.runner is not None:
                await lease.runner.stop()
        finally:
            # At once: the owner does not wait for good-byes on the lease's port.
            self._freed(lease_id, lease.runner.pid if lease.runner is not None else None)


def is_over(lease: OpenLease) -> bool:
    """Say whether a lease's time is over; one without a time goes on."""
    return lease.until_s is not None and boot_time_s() >= lease.until_s


def unknown(lease_id: str) -> UnknownLeaseError:
    """Return the error for a lease that does not run here."""
    return UnknownLeaseError(
        f"no lease {lease_id[:32]!r} runs on this node.", fix="see them with: pyrdma-agent leases"
    )
