"""Leases that run on this node: from an order to a runner that answers, and to their end.

Rules: a lease is committed before anything is done for it; its key is in the runner and in one answer, and
here only as a digest; whatever ends (the runner, the request, the agent, its time) ends the whole lease,
with a reason. A lease stays when the caller has gone after the answer; it is called off when the caller goes
before. A lease that the site's gateway ordered has a time, on this node's own clock: it ends then even if the
gateway is never heard again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.faces import Emit, Order
from agent.daemon.parts import Assignment, Runner
from agent.daemon.pipes import Pipe, StreamPipe
from agent.daemon.relay import HOST, Relay
from agent.daemon.spares import Spares
from agent.daemon.supply import Found, Supplied, Supply
from agent.errors import BusyError, StateError, StoppingError, UnknownLeaseError
from agent.limits import ASSIGN_S, MAX_LEASES, RUNNER_BACKLOG, SPARE_WAIT_SHOWN_S
from agent.local.views import GrantedView, LeaseView, PhaseView, StartView
from agent.paths import Paths
from agent.resolve import ModelRef, parse_ref
from agent.state import LeaseRecord, Store
from pyrdma.errors import Error

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Open:
    """A lease that has not ended, with what has to be undone."""

    record: LeaseRecord
    runner: Runner | None = None
    relay: Relay | None = None
    watch: asyncio.Task[None] | None = None
    over: asyncio.TimerHandle | None = None


class Leases:
    """The leases that run on one node.

    Args:
        here: what the borrower of a lease that this node uses itself is called; empty outside a site.
    """

    def __init__(
        self,
        store: Store,
        supply: Supply,
        keeper: CacheKeeper,
        spares: Spares,
        paths: Paths,
        here: str = "",
    ) -> None:
        self._store = store
        self._supply = supply
        self._keeper = keeper
        self._spares = spares
        self._paths = paths
        self._here = here
        self._open: dict[str, _Open] = {}
        self._ending: dict[str, asyncio.Task[LeaseRecord]] = {}
        self._stopping = False
        self.on_end: Callable[[str, str], None] = lambda _lease_id, _reason: None
        """Told of every end, after it: the lease's id and the reason."""

    @property
    def count(self) -> int:
        """How many leases have not ended."""
        return len(self._open)

    @property
    def lent(self) -> tuple[str, ...]:
        """The leases that the gateway ordered and that have not ended."""
        return tuple(one for one, lease in self._open.items() if lease.over is not None)

    async def list(self, *, include_ended: bool) -> tuple[LeaseView, ...]:
        """Return leases, newest first."""
        return tuple(self._view(record) for record in await self._store.leases(include_ended=include_ended))

    async def grant(self, model: str, emit: Emit) -> GrantedView:
        """Start the model for this node, with a port here; return its endpoint and key.

        Raises:
            Error: any of the tree; the lease, if there was one, has ended with the reason.
        """
        ref = parse_ref(model)
        self._refuse_more()
        found = await self._supply.resolve(ref)
        granted = await self._carry_out(secrets.token_hex(8), ref, found, emit)
        try:
            return await self.give_port(granted)
        except BaseException:
            await asyncio.shield(asyncio.create_task(self._end(granted.lease.id, "it could get no port")))
            raise

    async def start_runner(self, order: Order, emit: Emit) -> GrantedView:
        """Start a lease that the gateway ordered; it has no port here.

        Raises:
            Error: any of the tree; the lease has ended with the reason.
        """
        self._refuse_more()
        ref, found = ModelRef(order.model, order.image_id), Found(order.image_id, ())
        return await self._carry_out(order.lease_id, ref, found, emit, order)

    async def give_port(self, granted: GrantedView) -> GrantedView:
        """Open a port of this node for a lease that runs here and is used here.

        Raises:
            UnknownLeaseError: it has ended meanwhile.
        """
        lease = self._known(granted.lease.id)
        relay = await Relay.open(lambda: self.connect(lease.record.id))
        if lease.record.id not in self._open:
            await relay.close()
            raise self._unknown(lease.record.id)
        lease.relay = relay
        lease.record = replace(lease.record, port=relay.port)
        await self._store.put_lease(lease.record)
        endpoint = f"http://{HOST}:{relay.port}/v1"
        return replace(granted, lease=self._view(lease.record), endpoint=endpoint)

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to a lease's runner.

        Raises:
            UnknownLeaseError: it does not run here.
            OSError: the runner does not take it.
        """
        self._known(lease_id)
        return await StreamPipe.to(self._paths.runner_socket(lease_id))

    def runs(self, lease_id: str) -> bool:
        """Say whether a lease runs on this node."""
        return lease_id in self._open

    def set_times(self, remaining_s: Mapping[str, float]) -> None:
        """Take over what the gateway says is left of its leases; what it does not name keeps its time."""
        for lease_id, seconds in remaining_s.items():
            lease = self._open.get(lease_id)
            if lease is not None and lease.over is not None:
                self._set_time(lease_id, lease, seconds)

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        """End a lease of the gateway's; one that is gone is no error."""
        await self._end(lease_id, reason)

    async def _carry_out(
        self, lease_id: str, ref: ModelRef, found: Found, emit: Emit, order: Order | None = None
    ) -> GrantedView:
        if lease_id in self._open:
            raise BusyError(f"the lease {lease_id} runs on this node already.")
        key = secrets.token_urlsafe(32)
        borrower = "" if order is None or order.borrower == self._here else order.borrower
        record = LeaseRecord(
            id=lease_id,
            model=ref.name,
            image_id=found.image_id,
            state="warming",
            created_at=time.time(),
            ended_at=None,
            reason="",
            port=None,
            key_digest=hashlib.sha256(key.encode()).digest(),
            borrower=borrower,
        )
        lease = self._open[lease_id] = _Open(record)
        begun = time.monotonic()
        try:
            await self._store.put_lease(record)
            if order is not None:
                self._set_time(lease_id, lease, order.ttl_s)
            remember_as = "" if order is None else f"image-{found.image_id.short()}"
            supplied = await self._supply.provide(ref.name, found, emit, remember_as=remember_as)
            phases = await self._start(lease, key, emit)
        except BaseException as error:
            reason = error.message if isinstance(error, Error) else "the request was called off"
            await asyncio.shield(asyncio.create_task(self._end(lease_id, reason)))
            if lease.runner is not None:
                await lease.runner.stop()  # one that came after the end
            raise
        return GrantedView(
            lease=self._view(lease.record),
            endpoint="",
            api_key=key,
            start=_start_view(supplied, phases, time.monotonic() - begun),
        )

    def _refuse_more(self) -> None:
        if self._stopping:
            raise StoppingError("the agent is about to end.", fix="start it again with: pyrdma-agent serve")
        if len(self._open) >= MAX_LEASES:
            raise BusyError(
                f"this node has {MAX_LEASES} leases already.", fix="end one with: pyrdma-agent stop LEASE"
            )

    def _known(self, lease_id: str) -> _Open:
        lease = self._open.get(lease_id)
        if lease is None:
            raise self._unknown(lease_id)
        return lease

    def _unknown(self, lease_id: str) -> UnknownLeaseError:
        return UnknownLeaseError(
            f"no lease {lease_id[:32]!r} runs on this node.", fix="see them with: pyrdma-agent leases"
        )

    def _set_time(self, lease_id: str, lease: _Open, seconds: float) -> None:
        if lease.over is not None:
            lease.over.cancel()
        loop = asyncio.get_running_loop()
        lease.over = loop.call_later(max(0.0, seconds), self._time_is_over, lease_id)

    def _time_is_over(self, lease_id: str) -> None:
        self._begin_end(lease_id, "its time was over and nobody renewed it")

    async def stop(self, lease_id: str, reason: str = "stopped by request") -> LeaseView:
        """End a lease and everything that runs for it; return how it ended.

        Raises:
            UnknownLeaseError: there is none of this id that still runs.
        """
        record = await self._end(lease_id, reason)
        if record is None:
            raise self._unknown(lease_id)
        return self._view(record)

    async def close(self) -> None:
        """End every lease and grant no other."""
        self._stopping = True
        await asyncio.gather(*(self._end(lease_id, "the agent stopped") for lease_id in list(self._open)))

    async def _start(self, lease: _Open, key: str, emit: Emit) -> tuple[PhaseView, ...]:
        record = lease.record
        asked = time.monotonic()
        self._known(record.id)  # it may have been ended while its image came
        lease.runner = runner = await self._spares.take()
        waited_s = time.monotonic() - asked
        self._known(record.id)
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
        lease.record = replace(lease.record, state="active")
        await self._store.put_lease(lease.record)
        lease.watch = asyncio.create_task(self._watch(record.id, runner), name=f"lease-{record.id}")
        waited = (PhaseView("spare", waited_s),) if waited_s >= SPARE_WAIT_SHOWN_S else ()
        return (*waited, *(PhaseView(name, seconds) for name, seconds in phases.items()))

    async def _watch(self, lease_id: str, runner: Runner) -> None:
        await runner.ended.wait()
        _log.warning("lease %s: its runner %s", lease_id, runner.end_reason())
        self._begin_end(lease_id, f"its runner {runner.end_reason()}")

    async def _end(self, lease_id: str, reason: str) -> LeaseRecord | None:
        ending = self._begin_end(lease_id, reason)
        return await asyncio.shield(ending) if ending is not None else None

    def _begin_end(self, lease_id: str, reason: str) -> asyncio.Task[LeaseRecord] | None:
        # Who asks for the end of a lease that is ending already waits for the same end.
        lease = self._open.pop(lease_id, None)
        if lease is not None:
            ending = asyncio.create_task(self._undo(lease_id, lease, reason), name=f"end-{lease_id}")
            self._ending[lease_id] = ending
            ending.add_done_callback(lambda _: self._ending.pop(lease_id, None))
        return self._ending.get(lease_id)

    async def _undo(self, lease_id: str, lease: _Open, reason: str) -> LeaseRecord:
        if lease.watch is not None:
            lease.watch.cancel()
        if lease.over is not None:
            lease.over.cancel()
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
        self.on_end(lease_id, reason)
        return record

    def _view(self, record: LeaseRecord) -> LeaseView:
        lease = self._open.get(record.id)
        return view_of(record, lease.runner.pid if lease is not None and lease.runner is not None else None)


def view_of(record: LeaseRecord, pid: int | None) -> LeaseView:
    """Return a lease as the local API shows it."""
    return LeaseView(
        id=record.id,
        model=record.model,
        image_id=record.image_id.hex(),
        state=record.state,
        created_at=record.created_at,
        ended_at=record.ended_at,
        reason=record.reason,
        port=record.port,
        pid=pid,
        donor=record.donor,
        borrower=record.borrower,
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
