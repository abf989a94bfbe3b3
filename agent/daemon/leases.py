"""Leases that run on this node: from an order to a runner that answers, and what is asked of them then.

Rules: a lease is committed before anything is done for it; its key is in the runner and in one answer, and
here only as a digest; whatever ends (the runner, the request, the agent, its time) ends the whole lease,
with a reason: ``open_leases``. A lease stays when the caller has gone after the answer; it is called off
when the caller goes before. A lease that the site's gateway ordered has a time: it ends then even if the
gateway is never heard again. A lease stands on devices of this node; who has those, ``agent.devices`` says,
and what it says of a lease is carried out at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.faces import Emit, Order
from agent.daemon.fence import FencedPipe
from agent.daemon.lease_views import view_of, whose
from agent.daemon.notices import Notices
from agent.daemon.open_leases import OpenLeases, is_over, unknown
from agent.daemon.pipes import Pipe, StreamPipe
from agent.daemon.relay import HOST, Relay
from agent.daemon.reports import LeaseEnd
from agent.daemon.spares import Spares
from agent.daemon.starting import Notifier, OpenLease, Starting
from agent.daemon.supply import Found, Supply
from agent.errors import BusyError, StoppingError, UnknownLeaseError
from agent.limits import GRACE_S, MAX_LEASES
from agent.local.views import GrantedView, LeaseView
from agent.paths import Paths
from agent.resolve import ModelRef, parse_ref
from agent.state import LeaseRecord, Store
from pyrdma.errors import Error


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
        freed = devices.left if devices is not None else _no_devices
        self._open = OpenLeases(store, paths, freed, lambda end: self.on_end(end))
        self._notices = Notices(store, self._open.begin_end)
        self._stopping = False
        self.on_end: Callable[[LeaseEnd], None] = lambda _end: None
        """Told of every end, after it."""
        self.on_change: Callable[[], None] = lambda: None
        """Told when a device of this node changes hands, or begins to."""

    @property
    def count(self) -> int:
        """How many leases have not ended."""
        return self._open.count

    @property
    def lent(self) -> tuple[str, ...]:
        """The leases that the gateway ordered and of which something is left here."""
        return tuple(lease.record.id for lease in self._open.all_left() if lease.ordered)

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
            await asyncio.shield(
                asyncio.create_task(self._open.end(granted.lease.id, "it could get no port"))
            )
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
        lease = self._open.known(granted.lease.id)
        relay = await Relay.open(lambda: self.connect(lease.record.id))
        if self._open.get(lease.record.id) is None:
            await relay.close()
            raise unknown(lease.record.id)
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
        lease = self._open.known(lease_id)

        def check() -> None:
            if self._open.get(lease_id) is not lease or is_over(lease):
                raise ConnectionError(f"the lease {lease_id} is over")

        def count(nbytes: int) -> None:
            if self._devices is not None:
                self._devices.sent(lease_id, nbytes)

        return FencedPipe(await StreamPipe.to(self._paths.runner_socket(lease_id)), check, count)

    def runs(self, lease_id: str) -> bool:
        """Say whether a lease runs on this node."""
        return self._open.get(lease_id) is not None

    def set_times(self, remaining_s: Mapping[str, float], since_s: float | None = None) -> None:
        """Take over what the gateway says is left of its leases; what it does not name keeps its time.

        Args:
            remaining_s: seconds by lease.
            since_s: from when they count, on the clock of boots: when the gateway was asked.
        """
        for lease_id, seconds in remaining_s.items():
            lease = self._open.get(lease_id)
            if lease is not None and lease.ordered:
                self._open.set_time(lease, seconds, since_s)

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        """End a lease of the gateway's; one that is gone is no error."""
        await self._open.end(lease_id, reason)

    async def stop(self, lease_id: str, reason: str = "stopped by request") -> LeaseView:
        """End a lease and everything that runs for it; return how it ended.

        Raises:
            UnknownLeaseError: there is none of this id that still runs.
        """
        record = await self._open.end(lease_id, reason)
        if record is None:
            raise unknown(lease_id)
        return self._view(record)

    async def close(self) -> None:
        """End every lease and grant no other."""
        self._stopping = True
        await self._open.end_all("the agent stopped")
        await self._notices.settle()

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
        lease = self._open.left(lease_id)
        if lease is None:
            return
        if lease.ending is None:
            lease.for_owner = True
        if lease.runner is not None:
            lease.runner.kill()
        self._open.begin_end(lease_id, reason)

    def expire(self) -> None:
        """End the leases whose time is over by the clock of boots, which a sleeping machine's timers miss."""
        self._open.expire()

    def record(self, lease_id: str) -> LeaseRecord | None:
        """Return the record of a lease of which something is left here."""
        lease = self._open.left(lease_id)
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
        lease = OpenLease(record, ordered=order is not None, gpus=gpus)
        self._open.add(lease)
        if order is not None:
            self._open.set_time(lease, order.ttl_s)
        remember_as = "" if order is None else f"image-{found.image_id.short()}"
        lease.work = asyncio.create_task(
            self._starting.start(lease, found, key, emit, remember_as=remember_as), name=f"start-{lease_id}"
        )
        try:
            await asyncio.wait([lease.work])
            if self._open.get(lease_id) is None:
                raise UnknownLeaseError(
                    f"the lease {lease_id} ended before its model answered: {lease.reason.rstrip('.')}."
                )
            start = lease.work.result()
        except BaseException as error:
            reason = error.message if isinstance(error, Error) else "the request was called off"
            await asyncio.shield(asyncio.create_task(self._open.end(lease_id, reason)))
            raise
        assert lease.runner is not None, "what has started has a runner"
        self._open.watch(lease, lease.runner)
        return GrantedView(lease=self._view(lease.record), endpoint="", api_key=key, start=start)

    def _refuse_more(self, lease_id: str) -> None:
        if self._stopping:
            raise StoppingError("the agent is about to end.", fix="start it again with: pyrdma-agent serve")
        if self._open.count >= MAX_LEASES:
            raise BusyError(
                f"this node has {MAX_LEASES} leases already.", fix="end one with: pyrdma-agent stop LEASE"
            )
        if self._open.left(lease_id) is not None:
            raise BusyError(f"the lease {lease_id} is on this node already.")

    def _view(self, record: LeaseRecord) -> LeaseView:
        lease = self._open.get(record.id)
        return view_of(record, lease.runner.pid if lease is not None and lease.runner is not None else None)


def _notifier(*, for_owner: bool) -> Notifier:
    return "owner" if for_owner else "gateway"


def _no_devices(lease_id: str, group: int | None) -> None:
    del lease_id, group
