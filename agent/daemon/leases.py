"""Leases: from a granted request to an endpoint that answers, and to their end.

Rules: a lease is committed before anything is done for it; its key is in the runner and in one answer, and
here only as a digest; whatever ends (the runner, the request, the agent) ends the whole lease, with a reason.
A lease stays when the caller has gone after the answer; it is called off when the caller goes before.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.parts import Assignment, Runner
from agent.daemon.relay import HOST, Relay
from agent.daemon.spares import Spares
from agent.daemon.supply import Supplied, Supply
from agent.errors import BusyError, StateError, StoppingError, UnknownLeaseError
from agent.limits import ASSIGN_S, MAX_LEASES, RUNNER_BACKLOG, SPARE_WAIT_SHOWN_S
from agent.local.views import GrantedView, LeaseView, PhaseView, RunEvent, StartView
from agent.paths import Paths
from agent.resolve import parse_ref
from agent.state import LeaseRecord, Store
from pyrdma.errors import Error

_log = logging.getLogger(__name__)
Emit = Callable[[RunEvent], None]


@dataclass(slots=True)
class _Open:
    """A lease that has not ended, with what has to be undone."""

    record: LeaseRecord
    runner: Runner | None = None
    relay: Relay | None = None
    watch: asyncio.Task[None] | None = None


class Leases:
    """The leases of one node."""

    def __init__(
        self, store: Store, supply: Supply, keeper: CacheKeeper, spares: Spares, paths: Paths
    ) -> None:
        self._store = store
        self._supply = supply
        self._keeper = keeper
        self._spares = spares
        self._paths = paths
        self._open: dict[str, _Open] = {}
        self._stopping = False

    @property
    def count(self) -> int:
        """How many leases have not ended."""
        return len(self._open)

    async def list(self, *, include_ended: bool) -> tuple[LeaseView, ...]:
        """Return leases, newest first."""
        return tuple(self._view(record) for record in await self._store.leases(include_ended=include_ended))

    async def grant(self, model: str, emit: Emit) -> GrantedView:
        """Start the model and return its endpoint and key.

        Raises:
            Error: any of the tree; the lease, if there was one, has ended with the reason.
        """
        if self._stopping:
            raise StoppingError("the agent is about to end.", fix="start it again with: pyrdma-agent serve")
        if len(self._open) >= MAX_LEASES:
            raise BusyError(
                f"this node has {MAX_LEASES} leases already.", fix="end one with: pyrdma-agent stop LEASE"
            )
        ref = parse_ref(model)
        found = await self._supply.resolve(ref)
        key = secrets.token_urlsafe(32)
        record = LeaseRecord(
            id=secrets.token_hex(8),
            model=ref.name,
            image_id=found.image_id,
            state="warming",
            created_at=time.time(),
            ended_at=None,
            reason="",
            port=None,
            key_digest=hashlib.sha256(key.encode()).digest(),
        )
        await self._store.put_lease(record)
        lease = self._open[record.id] = _Open(record)
        begun = time.monotonic()
        try:
            supplied = await self._supply.provide(ref.name, found, emit)
            phases = await self._start(lease, key, emit)
        except BaseException as error:
            reason = error.message if isinstance(error, Error) else "the request was called off"
            await asyncio.shield(asyncio.create_task(self._end(record.id, reason)))
            raise
        return GrantedView(
            lease=self._view(lease.record),
            endpoint=f"http://{HOST}:{lease.record.port}/v1",
            api_key=key,
            start=_start_view(supplied, phases, time.monotonic() - begun),
        )

    async def stop(self, lease_id: str, reason: str = "stopped by request") -> LeaseView:
        """End a lease and everything that runs for it; return how it ended.

        Raises:
            UnknownLeaseError: there is none of this id that still runs.
        """
        record = await self._end(lease_id, reason)
        if record is None:
            raise UnknownLeaseError(
                f"no lease {lease_id[:32]!r} runs on this node.", fix="see them with: pyrdma-agent leases"
            )
        return self._view(record)

    async def close(self) -> None:
        """End every lease and grant no other."""
        self._stopping = True
        await asyncio.gather(*(self._end(lease_id, "the agent stopped") for lease_id in list(self._open)))

    async def _start(self, lease: _Open, key: str, emit: Emit) -> tuple[PhaseView, ...]:
        record = lease.record
        asked = time.monotonic()
        lease.runner = runner = await self._spares.take()
        waited_s = time.monotonic() - asked
        lease.record = replace(record, state="starting")
        await self._store.put_lease(lease.record)
        path = self._paths.runner_socket(record.id)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen(RUNNER_BACKLOG)
            assignment = Assignment(record.id, record.model, key, listener.fileno())
            parcel = await self._keeper.cache.attach(record.image_id)
            async with asyncio.timeout(ASSIGN_S):
                phases = await runner.assign(
                    assignment, parcel, lambda name, seconds: emit(PhaseView(name, seconds))
                )
        lease.relay = await Relay.open(path)
        lease.record = replace(lease.record, state="active", port=lease.relay.port)
        await self._store.put_lease(lease.record)
        lease.watch = asyncio.create_task(self._watch(record.id, runner), name=f"lease-{record.id}")
        waited = (PhaseView("spare", waited_s),) if waited_s >= SPARE_WAIT_SHOWN_S else ()
        return (*waited, *(PhaseView(name, seconds) for name, seconds in phases.items()))

    async def _watch(self, lease_id: str, runner: Runner) -> None:
        await runner.ended.wait()
        _log.warning("lease %s: its runner %s", lease_id, runner.end_reason())
        await self._end(lease_id, f"its runner {runner.end_reason()}")

    async def _end(self, lease_id: str, reason: str) -> LeaseRecord | None:
        lease = self._open.pop(lease_id, None)
        if lease is None:
            return None
        if lease.watch is not None and lease.watch is not asyncio.current_task():
            lease.watch.cancel()
        if lease.relay is not None:
            await lease.relay.close()
        if lease.runner is not None:
            await lease.runner.stop()
        with contextlib.suppress(OSError):
            self._paths.runner_socket(lease_id).unlink()
        record = replace(lease.record, state="ended", ended_at=time.time(), reason=reason)
        try:
            await self._store.put_lease(record)
        except StateError as error:
            # A full disk must not keep a device; the next start of the agent closes the record.
            _log.error("lease %s has ended, its record could not be written: %s", lease_id, error.message)
        _log.info("lease %s of %s has ended: %s", lease_id, record.model, reason)
        return record

    def _view(self, record: LeaseRecord) -> LeaseView:
        lease = self._open.get(record.id)
        return LeaseView(
            id=record.id,
            model=record.model,
            image_id=record.image_id.hex(),
            state=record.state,
            created_at=record.created_at,
            ended_at=record.ended_at,
            reason=record.reason,
            port=record.port,
            pid=lease.runner.pid if lease is not None and lease.runner is not None else None,
        )


def _start_view(supplied: Supplied, phases: tuple[PhaseView, ...], ready_s: float) -> StartView:
    connect = (PhaseView("connect", supplied.connect_s),) if supplied.connect_s else ()
    return StartView(
        lane=supplied.lane,
        bytes=supplied.bytes,
        pull_s=supplied.pull_s,
        verify_s=supplied.verify_s,
        ready_s=ready_s,
        verified=supplied.verified,
        phases=(*connect, *phases),
        sources=supplied.sources,
    )
