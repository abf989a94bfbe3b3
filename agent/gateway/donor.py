"""This site as a donor: carries out what the rules of ``agent.gateway.leases`` order, and nothing else.

Rules: one event at a time, to its end even if nobody waits for it any more; a commit or a renewal is on disk before
anything is done or answered for it, but an end is carried out even if it cannot be written; a commit that is called
off before its grant leaves neither a lease nor an offer behind.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from agent.daemon.faces import Emit, Host, LeaseOffer, OfferRequest, Refusal, Report
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
from agent.gateway.orders import Orders
from agent.gateway.records import lease_of, record_of
from agent.gateway.request import LeaseRequest, Refused
from agent.limits import TICK_S
from agent.local.views import AcceptedView, GrantedView
from agent.state import SiteStore

_log = logging.getLogger(__name__)
_UNKNOWN_CODES = frozenset({"unknown-lease", "not-yours", "lease-ended"})
Answer = Offered | Granted | Refused | None


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
        self._books = books
        self._boot_id = boot_id
        self._clock = clock
        self.state = State(Book(lease_ttl_s=lease_ttl_s))
        self._turn = asyncio.Lock()
        self._orders = Orders(
            host,
            prepare,
            left_s=self._left_s,
            started=self._started,
            failed=self._failed,
            stopped=self._gone_from,
        )
        self._ends: dict[str, asyncio.Future[str]] = {}
        self._births: dict[str, float] = {}
        self._events: set[asyncio.Task[Answer]] = set()
        self._counting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take over the leases that an agent before this one had granted, and begin to count."""
        records = await self._books.leases(include_ended=False)
        mine = [one for one in records if one.side == "lent"]
        now_s = self._clock()
        self._births = {one.id: one.created_at for one in mine}
        known = tuple(lease_of(one, now_s, self._boot_id) for one in mine)
        await self._apply(partial(Restored, known))
        self._counting = asyncio.create_task(self._tick(), name="lease clock")

    async def close(self) -> None:
        """Stop counting and call off starts. Leases go on at their nodes until their time is over."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)
        await self._orders.close()
        await asyncio.gather(*self._events, return_exceptions=True)

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
        answer = await self._apply(partial(OfferAsked, asked, secrets.token_hex(8)))
        if isinstance(answer, Refused):
            return Refusal(answer.code, answer.sentence, answer.fix, answer.terminal)
        assert isinstance(answer, Offered), "an offer is asked for: it is given or refused"
        offer = answer.offer
        return LeaseOffer(offer.id, offer.expires_at_s - self._clock(), offer.device.node, offer.warm)

    async def commit(self, offer_id: str, site: str, emit: Emit) -> GrantedView:
        """Carry out an offer; being cancelled before the model answers ends the lease.

        Raises:
            RefusedError: the offer is not open or not this site's, or the lease ended before its model answered.
            StateError: the lease could not be written down.
            Error: the model could not be started.
        """
        lease_id = secrets.token_hex(8)
        start = self._orders.expect(lease_id)
        try:
            lease = self._granted(await self._apply(partial(OfferCommitted, offer_id, lease_id, site)))
            if lease.id != lease_id:
                raise RefusedError(
                    f"the offer {offer_id[:32]} was taken already: its lease is {lease.id}.",
                    fix="use that lease, or ask for another offer",
                )
            emit(AcceptedView(lease.id, self.state.book.lease_ttl_s, self.site, lease.device.node))
            start.listener = emit
            assert start.task is not None, "what was committed is being started"
            await asyncio.wait([start.task])
            over = self.state.book.ended.get(lease_id)
            if start.task.cancelled() or (over is not None and start.task.exception() is None):
                raise RefusedError(
                    f"the lease ended before its model answered: {over.reason if over else 'it was stopped'}.",
                    fix="try again",
                )
            return start.task.result()
        except BaseException:
            for one in (lease_id, offer_id):
                await self._apply(partial(Released, one, site, "the request was called off"))
            raise
        finally:
            self._orders.forget(lease_id)

    async def renew(self, lease_id: str, site: str) -> float:
        """Renew a lease; return how long it lives from now."""
        lease = self._granted(await self._apply(partial(Renewed, lease_id, site)))
        return self._left_s(lease)

    async def release(self, lease_id: str, reason: str, site: str) -> str:
        """End a lease, or give an offer back; return why it ended."""
        reason = reason or "given back"
        answer = await self._apply(partial(Released, lease_id, site, reason))
        if answer is not None:
            self._granted(answer)
        return reason

    async def attend(self, lease_id: str, site: str) -> str:
        """Wait until a lease ends; return why."""
        over = self.state.book.ended.get(lease_id)
        if over is not None and over.request.borrower_site == site:
            return over.reason
        self._held(lease_id, site)
        return await asyncio.shield(self._ends.setdefault(lease_id, asyncio.Future()))

    async def connect(self, lease_id: str, site: str) -> Pipe:
        """Open a connection to a lease's runner."""
        return await self._host(self._held(lease_id, site).device.node).connect(lease_id)

    def lends(self, lease_id: str, site: str, node: str) -> bool:
        """Say whether a node of a site holds a lease here, or held one of the last that ended."""
        lease = self.state.book.leases.get(lease_id) or self.state.book.ended.get(lease_id)
        return (
            lease is not None and lease.request.borrower_site == site and lease.request.borrower_node == node
        )

    def _held(self, lease_id: str, site: str) -> Lease:
        lease = self.state.book.leases.get(lease_id)
        if lease is None or lease.request.borrower_site != site:
            raise UnknownLeaseError(f"{site} holds no lease {lease_id[:32]!r} here.")
        return lease

    def _granted(self, answer: Answer) -> Lease:
        if isinstance(answer, Granted):
            return answer.lease
        assert isinstance(answer, Refused), "it is granted or refused"
        if answer.code in _UNKNOWN_CODES:
            raise UnknownLeaseError(answer.sentence, fix=answer.fix)
        raise RefusedError(answer.sentence, fix=answer.fix)

    def _left_s(self, lease: Lease) -> float:
        # The lease as it stands now: it may have been renewed since whoever asks has seen it.
        return self.state.book.leases.get(lease.id, lease).deadline_s - self._clock()

    # --- what nodes say -----------------------------------------------------------------------------------

    async def heard(self, node: str, report: Report) -> dict[str, float]:
        """Take a node's word; return the seconds that each of its leases has left."""
        for lease_id, reason in report.ended:
            await self._gone_from(node, lease_id, reason)
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
        await self._apply(partial(NodeHeard, said))
        theirs = [one for one in self.state.book.leases.values() if one.device.node == node]
        return {one.id: self._left_s(one) for one in theirs}

    async def gone(self, node: str, reason: str) -> None:
        """End what runs on a node that has left."""
        await self._apply(partial(Reclaimed, node, None, reason))

    async def _started(self, lease_id: str) -> None:
        await self._apply(partial(Started, lease_id))

    async def _failed(self, lease_id: str, reason: str) -> None:
        await self._apply(partial(StartFailed, lease_id, reason))

    async def _gone_from(self, node: str, lease_id: str, reason: str) -> None:
        # A node speaks for what was given to it, whatever lease it names.
        held = self.state.book.leases.get(lease_id) or self.state.book.stopping.get(lease_id)
        if held is not None and held.device.node == node:
            await self._apply(partial(RunnerEnded, lease_id, reason))

    # --- one event at a time ------------------------------------------------------------------------------

    async def _apply(self, event: Callable[[float], Event]) -> Answer:
        """Have the rules decide on the event of this moment; return the answer for who asked.

        Raises:
            StateError: a promise could not be written down, so it was not made.
        """
        deciding = asyncio.create_task(self._decide(event))
        self._events.add(deciding)
        deciding.add_done_callback(self._events.discard)
        return await asyncio.shield(deciding)

    async def _decide(self, make: Callable[[float], Event]) -> Answer:
        async with self._turn:
            event = make(self._clock())
            state, effects = step(self.state, event)
            promises = isinstance(event, OfferCommitted | Renewed)
            for effect in effects:
                if isinstance(effect, Save):
                    await self._save(effect.lease, promises=promises)
            self.state = state
            answer: Answer = None
            for effect in effects:
                match effect:
                    case Offered() | Granted():
                        answer = effect
                    case Refuse(refused):
                        answer = refused
                    case Start(lease):
                        self._orders.start(lease)
                    case Stop(node, lease_id, reason):
                        self._orders.stop(node, lease_id, reason)
                    case Ended(lease, reason):
                        self._end(lease, reason)
            return answer

    def _end(self, lease: Lease, reason: str) -> None:
        _log.info("lease %s of %s has ended: %s", lease.id, lease.request.borrower_site, reason)
        self._orders.call_off(lease.id)
        waiting = self._ends.pop(lease.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reason)

    async def _save(self, lease: Lease, *, promises: bool) -> None:
        over = lease.state is LeaseState.ENDED
        record = record_of(lease, self.site, self.state.book.lease_ttl_s, self._boot_id, time.time())
        record = replace(record, created_at=self._births.get(lease.id, record.created_at))
        try:
            await self._books.put_lease(record)
        except StateError as error:
            if promises and not over:
                raise
            # A full disk must not keep a device, nor make a node unheard; a next start ends what is still open.
            _log.error("lease %s is %s, which could not be written: %s", lease.id, lease.state, error.message)
        if over:
            self._births.pop(lease.id, None)
        else:
            self._births[lease.id] = record.created_at

    async def _tick(self) -> None:
        while True:
            due_s = next_deadline_s(self.state)
            pause_s = TICK_S if due_s is None else min(TICK_S, max(0.0, due_s - self._clock()))
            await asyncio.sleep(pause_s + 0.01)
            try:
                await self._apply(Tick)
            except Exception:  # noqa: BLE001 - without this clock no lease would ever end by its time
                _log.exception("the lease clock met a defect; it goes on")
