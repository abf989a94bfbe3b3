"""This site as a donor: carries out what the rules of ``agent.gateway.leases`` order, and nothing else.

Rules: one event at a time; a lease is on disk before anything is done or answered for it, but an end is carried
out even if it cannot be written; starts and stops run beside the events, so a slow node holds up nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from agent.daemon.faces import Emit, Host, LeaseOffer, OfferRequest, Order, Refusal, Report
from agent.daemon.pipes import Pipe
from agent.errors import RefusedError, StateError, UnknownLeaseError
from agent.gateway.book import Book, Lease, LeaseState
from agent.gateway.events import (
    Ended,
    Event,
    Granted,
    NodeHeard,
    OfferAsked,
    OfferCommitted,
    Offered,
    Reclaimed,
    Refuse,
    Released,
    Renewed,
    Restored,
    RunnerEnded,
    Save,
    Start,
    Started,
    StartFailed,
    Stop,
    Tick,
)
from agent.gateway.fleet import Device, NodeReport, Replica
from agent.gateway.leases import State, next_deadline_s, step
from agent.gateway.records import lease_of, record_of
from agent.gateway.request import LeaseRequest, Refused
from agent.limits import TICK_S
from agent.local.views import AcceptedView, GrantedView, RunEvent
from agent.state import SiteLeaseRecord, SiteStore
from federation.errors import FederationError
from pyrdma.errors import Error
from pyrdma.image.manifest import ImageId

_log = logging.getLogger(__name__)
_UNKNOWN_CODES = frozenset({"unknown-lease", "not-yours", "lease-ended"})


class LocalDonor:
    """The leases that this site grants.

    Args:
        site: its name.
        host: returns the node that is to run a lease.
        prepare: brings an image within a node's reach before it is told to start.
        books: where leases stand.
        boot_id: names the boot whose clock counts.
        clock: that clock, in s.
        lease_ttl_s: how long a lease lives from its commit or last renewal.
    """

    def __init__(
        self,
        site: str,
        *,
        host: Callable[[str], Host],
        prepare: Callable[[str, LeaseRequest], Awaitable[None]],
        books: SiteStore,
        boot_id: str,
        clock: Callable[[], float],
        lease_ttl_s: float,
    ) -> None:
        self.site = site
        self._host = host
        self._prepare = prepare
        self._books = books
        self._boot_id = boot_id
        self._clock = clock
        self.state = State(Book(lease_ttl_s=lease_ttl_s))
        self._turn = asyncio.Lock()
        self._starts: dict[str, asyncio.Task[GrantedView]] = {}
        self._emits: dict[str, Emit] = {}
        self._ends: dict[str, asyncio.Future[str]] = {}
        self._births: dict[str, float] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    async def start(self) -> None:
        """Take over the leases that an agent before this one had granted, and begin to count."""
        records = await self._books.leases(include_ended=False)
        mine = [one for one in records if one.side == "lent"]
        now_s = self._clock()
        self._births = {one.id: one.created_at for one in mine}
        known = tuple(lease_of(one, now_s, self._boot_id) for one in mine)
        await self._apply(Restored(known, now_s))
        self._spawn(self._tick(), "lease clock")

    async def close(self) -> None:
        """Stop counting. Leases go on at their nodes until their time is over."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what borrowers ask; ``site`` is theirs, by their certificate -----------------------------------------

    async def ask_offer(self, request: OfferRequest, site: str) -> LeaseOffer | Refusal:
        """Offer a device or refuse."""
        asked = LeaseRequest(
            id=request.request_id,
            borrower_site=site,
            borrower_node=request.borrower_node,
            model=request.model,
            image_id=request.image_id.hex(),
            total_bytes=request.total_bytes,
            devices=request.devices,
            node=request.node or None,
            account="",
            purpose="",
        )
        answer = await self._apply(OfferAsked(asked, secrets.token_hex(8), self._clock()))
        if isinstance(answer, Refused):
            return Refusal(answer.code, answer.sentence, answer.fix, answer.terminal)
        assert isinstance(answer, Offered), "an offer is asked for: it is given or refused"
        offer = answer.offer
        return LeaseOffer(offer.id, offer.expires_at_s - self._clock(), offer.device.node, offer.warm)

    async def commit(self, offer_id: str, site: str, emit: Emit) -> GrantedView:
        """Carry out an offer; being cancelled before the model answers ends the lease.

        Raises:
            RefusedError: the offer is not open, or not this site's.
            Error: the model could not be started.
        """
        answer = await self._apply(OfferCommitted(offer_id, secrets.token_hex(8), site, self._clock()))
        lease = self._granted(answer)
        starting = self._starts.get(lease.id)
        if starting is None:
            raise RefusedError(f"the lease {lease.id} has been granted already.", fix="use it, or ask anew")
        self._emits[lease.id] = emit
        emit(AcceptedView(lease.id, self.state.book.lease_ttl_s, self.site, lease.device.node))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if starting.cancelled() and not (task and task.cancelling()):
                over = self.state.book.ended.get(lease.id)
                raise RefusedError(
                    f"the lease ended before its model answered: {over.reason if over else 'it was stopped'}.",
                    fix="try again",
                ) from None
            called_off = Released(lease.id, site, "the request was called off", self._clock())
            await asyncio.shield(asyncio.create_task(self._apply(called_off)))
            raise
        finally:
            self._emits.pop(lease.id, None)
            self._starts.pop(lease.id, None)  # the key that it has is given once

    async def renew(self, lease_id: str, site: str) -> float:
        """Renew a lease; return how long it lives from now."""
        lease = self._granted(await self._apply(Renewed(lease_id, site, self._clock())))
        return lease.deadline_s - self._clock()

    async def release(self, lease_id: str, reason: str, site: str) -> str:
        """End a lease, or give an offer back; return why it ended."""
        reason = reason or "given back"
        answer = await self._apply(Released(lease_id, site, reason, self._clock()))
        if isinstance(answer, Refused):
            self._granted(answer)
        return reason

    async def attend(self, lease_id: str, site: str) -> str:
        """Wait until a lease ends; return why."""
        book = self.state.book
        over = book.ended.get(lease_id)
        if over is not None and over.request.borrower_site == site:
            return over.reason
        self._held(lease_id, site)
        return await asyncio.shield(self._ends.setdefault(lease_id, asyncio.Future()))

    async def connect(self, lease_id: str, site: str) -> Pipe:
        """Open a connection to a lease's runner."""
        return await self._host(self._held(lease_id, site).device.node).connect(lease_id)

    def lends(self, lease_id: str, site: str, node: str) -> bool:
        """Say whether a node of a site holds a lease here."""
        lease = self.state.book.leases.get(lease_id)
        return (
            lease is not None and lease.request.borrower_site == site and lease.request.borrower_node == node
        )

    def _held(self, lease_id: str, site: str) -> Lease:
        lease = self.state.book.leases.get(lease_id)
        if lease is None or lease.request.borrower_site != site:
            raise UnknownLeaseError(f"{site} holds no lease {lease_id[:32]!r} here.")
        return lease

    def _granted(self, answer: object) -> Lease:
        if isinstance(answer, Granted):
            return answer.lease
        assert isinstance(answer, Refused), "it is granted or refused"
        if answer.code in _UNKNOWN_CODES:
            raise UnknownLeaseError(answer.sentence, fix=answer.fix)
        raise RefusedError(answer.sentence, fix=answer.fix)

    # --- what nodes say -----------------------------------------------------------------------------------

    async def heard(self, node: str, report: Report) -> dict[str, float]:
        """Take a node's word; return the seconds that each of its leases has left."""
        for lease_id, reason in report.ended:
            lease = self.state.book.leases.get(lease_id)
            if lease is not None and lease.device.node == node:
                await self._apply(RunnerEnded(lease_id, reason, self._clock()))
        said = NodeReport(
            node=node,
            address=report.address,
            devices=tuple(
                Device(one.id, "gpu" if one.kind == "gpu" else "cpu", one.memory_bytes)
                for one in report.devices
            ),
            replicas=tuple(Replica(one.image_id.hex(), one.whole) for one in report.images),
            leases=report.leases,
            spares_ready=report.spares_ready,
            donating=report.donating,
            transfer_bytes_per_s=report.transfer_bytes_per_s,
        )
        await self._apply(NodeHeard(said, self._clock()))
        now_s = self._clock()
        return {
            one.id: one.deadline_s - now_s
            for one in self.state.book.leases.values()
            if one.device.node == node
        }

    async def gone(self, node: str, reason: str) -> None:
        """End what runs on a node that has left."""
        await self._apply(Reclaimed(node, None, reason, self._clock()))

    # --- carrying out -------------------------------------------------------------------------------------

    async def _apply(self, event: Event) -> Offered | Granted | Refused | None:
        """Let the rules decide, carry out what they order, and return the answer for who asked."""
        async with self._turn:
            state, effects = step(self.state, event)
            for effect in effects:
                if isinstance(effect, Save):
                    await self._save(effect.lease)
            self.state = state
        answer: Offered | Granted | Refused | None = None
        for effect in effects:
            match effect:
                case Offered() | Granted():
                    answer = effect
                case Refuse(refused):
                    answer = refused
                case Start(lease):
                    self._starts[lease.id] = asyncio.create_task(self._run(lease), name=f"start-{lease.id}")
                    self._starts[lease.id].add_done_callback(_retrieve)
                case Stop(node, lease_id, reason):
                    self._spawn(self._stop(node, lease_id, reason), f"stop-{lease_id}")
                case Ended(lease, reason):
                    self._tell_end(lease, reason)
        return answer

    async def _save(self, lease: Lease) -> None:
        record = record_of(lease, self.site, self.state.book.lease_ttl_s, self._boot_id, time.time())
        try:
            await self._books.put_lease(self._with_birth(record))
        except StateError as error:
            if lease.state is not LeaseState.ENDED:
                raise
            # A full disk must not keep a device; a next start ends what is still open in the books.
            _log.error("lease %s has ended, its record could not be written: %s", lease.id, error.message)

    def _with_birth(self, record: SiteLeaseRecord) -> SiteLeaseRecord:
        born = self._births.setdefault(record.id, record.created_at)
        if record.ended_at is not None:
            self._births.pop(record.id, None)
        return replace(record, created_at=born)

    async def _run(self, lease: Lease) -> GrantedView:
        request = lease.request

        def emit(event: RunEvent) -> None:
            listener = self._emits.get(lease.id)
            if listener is not None:
                listener(event)

        try:
            await self._prepare(lease.device.node, request)
            order = Order(
                lease_id=lease.id,
                model=request.model,
                image_id=ImageId.parse(request.image_id),
                ttl_s=lease.deadline_s - self._clock(),
                borrower=f"{request.borrower_site}/{request.borrower_node}",
            )
            granted = await self._host(lease.device.node).start_runner(order, emit)
        except (Error, FederationError) as error:
            _log.warning("lease %s did not start: %s", lease.id, error.message)
            await self._apply(StartFailed(lease.id, error.message, self._clock()))
            raise
        except asyncio.CancelledError:
            raise
        except BaseException:
            await self._apply(StartFailed(lease.id, "a defect of the donor's gateway", self._clock()))
            raise
        await self._apply(Started(lease.id, self._clock()))
        return granted

    async def _stop(self, node: str, lease_id: str, reason: str) -> None:
        starting = self._starts.get(lease_id)
        if starting is not None:
            starting.cancel()
        try:
            await self._host(node).stop_runner(lease_id, reason)
        except (Error, FederationError) as error:
            # The node's next report, or the lease's time over there, ends it.
            _log.warning("the node %s could not be told to stop %s: %s", node, lease_id, error.message)
            return
        await self._apply(RunnerEnded(lease_id, reason, self._clock()))

    def _tell_end(self, lease: Lease, reason: str) -> None:
        _log.info("lease %s of %s has ended: %s", lease.id, lease.request.borrower_site, reason)
        waiting = self._ends.pop(lease.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reason)

    async def _tick(self) -> None:
        while True:
            now_s = self._clock()
            due_s = next_deadline_s(self.state)
            await asyncio.sleep(TICK_S if due_s is None else min(TICK_S, max(0.0, due_s - now_s)) + 0.01)
            await self._apply(Tick(self._clock()))

    def _spawn(self, work: Awaitable[object], name: str) -> None:
        task: asyncio.Task[object] = asyncio.ensure_future(work)
        task.set_name(name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _retrieve(task: asyncio.Task[GrantedView]) -> None:
    # A start whose borrower has gone fails with nobody to hear of it.
    if not task.cancelled():
        task.exception()
