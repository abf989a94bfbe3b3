"""Leases that run on this node: from an order to a runner that answers, and to their end.

Rules: a lease is committed before anything is done for it; its key is in the runner and in one answer, and
here only as a digest; whatever ends (the runner, the request, the agent, its time) ends the whole lease,
with a reason. A lease stays when the caller has gone after the answer; it is called off when the caller goes
before. A lease that the site's gateway ordered has a time, on this node's own clock: it ends then even if the
gateway is never heard again. A lease stands on devices of this node; who has those, ``agent.devices`` says,
and what it says of a lease is carried out at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.clocks import boot_time_s
from agent.daemon.faces import Emit, LeaseEnd, Order
from agent.daemon.fence import FencedPipe
from agent.daemon.notices import Notices
from agent.daemon.parts import Runner
from agent.daemon.pipes import Pipe, StreamPipe
from agent.daemon.relay import HOST, Relay
from agent.daemon.spares import Spares
from agent.daemon.starting import Notifier, OpenLease, Starting
from agent.daemon.supply import Found, Supply
from agent.errors import BusyError, StateError, StoppingError, UnknownLeaseError
from agent.limits import GRACE_S, MAX_LEASE_TTL_S, MAX_LEASES
from agent.local.views import GrantedView, LeaseView
from agent.paths import Paths
from agent.resolve import ModelRef, parse_ref
from agent.state import LeaseRecord, Store
from pyrdma.errors import Error

_log = logging.getLogger(__name__)


class LeaseDevices(Protocol):
    """What gives leases the devices of this node."""

    def place(self, lease_id: str, wanted: Sequence[str], grace_s: float) -> str:
        """Give a lease its devices; return what CUDA calls them. Raises RequestError, OwnedError."""

    def left(self, lease_id: str, group: int | None) -> None:
        """Note that nothing of a lease runs any more; ``group``: the process group that its runner had."""

    def sent(self, lease_id: str, nbytes: int) -> None:
        """Count what a lease's runner sent."""


class Leases:
    """The leases that run on one node.

    Args:
        here: what the borrower of a lease that this node uses itself is called; empty outside a site.
        devices: gives leases their devices; without it they have none.
        grace_s: what a lease gets that no gateway ordered, between notice and end.
    """

    def __init__(
        self,
        store: Store,
        supply: Supply,
        keeper: CacheKeeper,
        spares: Spares,
        paths: Paths,
        here: str = "",
        devices: LeaseDevices | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self._store = store
        self._supply = supply
        self._starting = Starting(store, supply, keeper, spares, paths)
        self._paths = paths
        self._here = here
        self._devices = devices
        self._grace_s = grace_s
        self._notices = Notices(store, self._begin_end)
        self._open: dict[str, OpenLease] = {}
        self._ending: dict[str, OpenLease] = {}
        self._stopping = False
        self.on_end: Callable[[LeaseEnd], None] = lambda _end: None
        """Told of every end, after it."""
        self.on_change: Callable[[], None] = lambda: None
        """Told when a device of this node changes hands, or begins to."""

    @property
    def count(self) -> int:
        """How many leases have not ended."""
        return len(self._open)

    @property
    def lent(self) -> tuple[str, ...]:
        """The leases that the gateway ordered and of which something is left here."""
        return tuple(one for one, lease in (*self._open.items(), *self._ending.items()) if lease.ordered)

    async def list(self, *, include_ended: bool) -> tuple[LeaseView, ...]:
        """Return leases, newest first."""
        return tuple(self._view(record) for record in await self._store.leases(include_ended=include_ended))

    async def grant(self, model: str, emit: Emit, *, account: str = "", who: str = "") -> GrantedView:
        """Start the model for this node, with a port here; return its endpoint and key.

        Args:
            model: its reference.
            emit: told how far it is.
            account: who is charged.
            who: whose it is, of this node's people.

        Raises:
            Error: any of the tree; the lease, if there was one, has ended with the reason.
        """
        ref = parse_ref(model)
        found = await self._supply.resolve(ref)
        granted = await self._carry_out(secrets.token_hex(8), ref, found, emit)
        try:
            return await self.give_port(whose(granted, account, who))
        except BaseException:
            await asyncio.shield(asyncio.create_task(self._end(granted.lease.id, "it could get no port")))
            raise

    async def start_runner(self, order: Order, emit: Emit) -> GrantedView:
        """Start a lease that the gateway ordered; it has no port here.

        Raises:
            Error: any of the tree; the lease has ended with the reason.
        """
        ref, found = ModelRef(order.model, order.image_id), Found(order.image_id, (), order.most_bytes)
        return await self._carry_out(order.lease_id, ref, found, emit, order)

    async def give_port(self, granted: GrantedView) -> GrantedView:
        """Open a port of this node for a lease that runs here and is used here, and note whose it is.

        Raises:
            UnknownLeaseError: it has ended meanwhile.
        """
        lease = self._known(granted.lease.id)
        relay = await Relay.open(lambda: self.connect(lease.record.id))
        if lease.record.id not in self._open:
            await relay.close()
            raise self._unknown(lease.record.id)
        lease.relay = relay
        said = granted.lease
        lease.record = replace(lease.record, port=relay.port, account=said.account, who=said.who)
        await self._store.put_lease(lease.record)
        endpoint = f"http://{HOST}:{relay.port}/v1"
        return replace(granted, lease=self._view(lease.record), endpoint=endpoint)

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to a lease's runner.

        Raises:
            UnknownLeaseError: it does not run here.
            OSError: the runner does not take it.
        """
        lease = self._known(lease_id)

        def check() -> None:
            if self._open.get(lease_id) is not lease or _is_over(lease):
                raise ConnectionError(f"the lease {lease_id} is over")

        def count(nbytes: int) -> None:
            if self._devices is not None:
                self._devices.sent(lease_id, nbytes)

        return FencedPipe(await StreamPipe.to(self._paths.runner_socket(lease_id)), check, count)

    def runs(self, lease_id: str) -> bool:
        """Say whether a lease runs on this node."""
        return lease_id in self._open

    def set_times(self, remaining_s: Mapping[str, float], since_s: float | None = None) -> None:
        """Take over what the gateway says is left of its leases; what it does not name keeps its time.

        Args:
            remaining_s: seconds by lease.
            since_s: from when they count, on the clock of boots: when the gateway was asked.
        """
        for lease_id, seconds in remaining_s.items():
            lease = self._open.get(lease_id)
            if lease is not None and lease.ordered:
                self._set_time(lease_id, lease, seconds, since_s)

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        """End a lease of the gateway's; one that is gone is no error."""
        await self._end(lease_id, reason)

    # --- what the owner of its devices says, or the gateway ----------------------------------------------

    def notice(self, lease_id: str, left_s: float, reason: str, *, for_owner: bool = False) -> None:
        """Let a lease finish what it has begun, since it is ended in ``left_s``; returns at once.

        One that does not answer yet has begun nothing: it ends now.
        """
        lease = self._open.get(lease_id)
        if lease is not None:
            self._notices.give(lease, _notifier(for_owner=for_owner), left_s, reason)

    def withdraw(self, lease_id: str, *, for_owner: bool = False) -> None:
        """Take back a notice of the owner's, or of the gateway's; returns at once.

        The lease goes on once its runner has said so, unless the other one's notice stands.
        """
        lease = self._open.get(lease_id)
        if lease is not None:
            self._notices.withdraw(lease, _notifier(for_owner=for_owner))

    def kill(self, lease_id: str, reason: str) -> None:
        """End a lease and its runner at once, for the owner of its devices; returns at once."""
        lease = self._open.get(lease_id) or self._ending.get(lease_id)
        if lease is None:
            return
        if lease_id in self._open:
            lease.for_owner = True
        if lease.runner is not None:
            lease.runner.kill()
        self._begin_end(lease_id, reason)

    def expire(self) -> None:
        """End the leases whose time is over by the clock of boots, which a sleeping machine's timers miss."""
        for lease_id in [one for one, lease in self._open.items() if _is_over(lease)]:
            self._time_is_over(lease_id)

    def record(self, lease_id: str) -> LeaseRecord | None:
        """Return the record of a lease of which something is left here."""
        lease = self._open.get(lease_id) or self._ending.get(lease_id)
        return lease.record if lease is not None else None

    # --- its life -----------------------------------------------------------------------------------------

    async def _carry_out(
        self, lease_id: str, ref: ModelRef, found: Found, emit: Emit, order: Order | None = None
    ) -> GrantedView:
        self._refuse_more(lease_id)
        wanted, grace_s = (order.devices, order.grace_s) if order is not None else ((), self._grace_s)
        gpus = self._devices.place(lease_id, wanted, grace_s) if self._devices is not None else ""
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
        lease = self._open[lease_id] = OpenLease(record, ordered=order is not None, gpus=gpus)
        if order is not None:
            self._set_time(lease_id, lease, order.ttl_s)
        remember_as = "" if order is None else f"image-{found.image_id.short()}"
        lease.work = asyncio.create_task(
            self._starting.start(lease, found, key, emit, remember_as=remember_as), name=f"start-{lease_id}"
        )
        try:
            await asyncio.wait([lease.work])
            if lease_id not in self._open:
                raise UnknownLeaseError(
                    f"the lease {lease_id} ended before its model answered: {lease.reason.rstrip('.')}."
                )
            start = lease.work.result()
        except BaseException as error:
            reason = error.message if isinstance(error, Error) else "the request was called off"
            await asyncio.shield(asyncio.create_task(self._end(lease_id, reason)))
            raise
        assert lease.runner is not None, "what has started has a runner"
        lease.watch = asyncio.create_task(self._watch(lease_id, lease.runner), name=f"lease-{lease_id}")
        return GrantedView(lease=self._view(lease.record), endpoint="", api_key=key, start=start)

    def _refuse_more(self, lease_id: str) -> None:
        if self._stopping:
            raise StoppingError("the agent is about to end.", fix="start it again with: pyrdma-agent serve")
        if len(self._open) >= MAX_LEASES:
            raise BusyError(
                f"this node has {MAX_LEASES} leases already.", fix="end one with: pyrdma-agent stop LEASE"
            )
        if lease_id in self._open or lease_id in self._ending:
            raise BusyError(f"the lease {lease_id} is on this node already.")

    def _known(self, lease_id: str) -> OpenLease:
        lease = self._open.get(lease_id)
        if lease is not None and _is_over(lease):
            self._time_is_over(lease_id)
            lease = None
        if lease is None:
            raise self._unknown(lease_id)
        return lease

    def _unknown(self, lease_id: str) -> UnknownLeaseError:
        return UnknownLeaseError(
            f"no lease {lease_id[:32]!r} runs on this node.", fix="see them with: pyrdma-agent leases"
        )

    def _set_time(
        self, lease_id: str, lease: OpenLease, seconds: float, since_s: float | None = None
    ) -> None:
        if lease.over is not None:
            lease.over.cancel()
        now_s = boot_time_s()
        ttl_s = min(max(0.0, seconds), MAX_LEASE_TTL_S)
        lease.until_s = (since_s if since_s is not None else now_s) + ttl_s
        left_s = max(0.0, lease.until_s - now_s)
        lease.over = asyncio.get_running_loop().call_later(left_s, self._time_is_over, lease_id)

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
        every = [*self._open, *self._ending]
        await asyncio.gather(*(self._end(lease_id, "the agent stopped") for lease_id in every))
        await self._notices.settle()

    async def _watch(self, lease_id: str, runner: Runner) -> None:
        await runner.ended.wait()
        lease = self._open.get(lease_id)
        if lease is not None and lease.notice:
            self._begin_end(lease_id, lease.notice)
            return
        _log.warning("lease %s: its runner %s", lease_id, runner.end_reason())
        self._begin_end(lease_id, f"its runner {runner.end_reason()}")

    async def _end(self, lease_id: str, reason: str) -> LeaseRecord | None:
        ending = self._begin_end(lease_id, reason)
        return await asyncio.shield(ending) if ending is not None else None

    def _begin_end(self, lease_id: str, reason: str) -> asyncio.Task[LeaseRecord] | None:
        # Who asks for the end of a lease that is ending already waits for the same end.
        lease = self._open.pop(lease_id, None)
        if lease is not None:
            lease.reason = reason
            self._ending[lease_id] = lease
            lease.ending = asyncio.create_task(self._undo(lease_id, lease), name=f"end-{lease_id}")
        ending = self._ending.get(lease_id)
        return ending.ending if ending is not None else None

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
        self.on_end(LeaseEnd(lease_id, lease.reason, lease.for_owner))
        return record

    async def _stop_runner(self, lease_id: str, lease: OpenLease) -> None:
        try:
            if lease.runner is not None:
                await lease.runner.stop()
        finally:
            if (
                self._devices is not None
            ):  # at once: the owner does not wait for good-byes on the lease's port
                self._devices.left(lease_id, lease.runner.pid if lease.runner is not None else None)

    def _view(self, record: LeaseRecord) -> LeaseView:
        lease = self._open.get(record.id)
        return view_of(record, lease.runner.pid if lease is not None and lease.runner is not None else None)


def _notifier(*, for_owner: bool) -> Notifier:
    return "owner" if for_owner else "gateway"


def _is_over(lease: OpenLease) -> bool:
    return lease.until_s is not None and boot_time_s() >= lease.until_s


def whose(granted: GrantedView, account: str, who: str) -> GrantedView:
    """Return a granted lease with its account and its user."""
    return replace(granted, lease=replace(granted.lease, account=account, who=who))


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
        account=record.account,
        who=record.who,
    )
