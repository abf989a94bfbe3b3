"""A donor's book in use: one event at a time is decided, written down, and then carried out.

Rules: an event that has begun goes to its end, even if nobody waits for it any more; a commit or a renewal is
on disk before anything is done or answered for it; an end is carried out even if it cannot be written; a
defect of whoever is told of a decision keeps nothing else of it from being carried out. Which events there
are and what follows from them is ``agent.gateway.core.leases``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from agent.daemon.faces import Heed, Host, LeaseNotice
from agent.errors import StateError
from agent.gateway.core.book import Book, Cause, Lease, LeaseState
from agent.gateway.core.events import (
    Decision,
    Effect,
    Ended,
    Event,
    Granted,
    Notice,
    OfferAsked,
    OfferCommitted,
    Offered,
    Queued,
    Record,
    Refuse,
    Renewed,
    Reprieve,
    Restored,
    RunnerEnded,
    Save,
    Start,
    Started,
    StartFailed,
    Stop,
    Tick,
)
from agent.gateway.core.law import Law
from agent.gateway.core.leases import State, next_deadline_s, step
from agent.gateway.core.request import LeaseRequest, Refused, RequestKey
from agent.gateway.orders import Orders
from agent.gateway.records import lease_of, record_of
from agent.limits import TICK_S
from agent.state import SiteLeaseRecord, SiteStore
from federation.errors import LedgerError

if TYPE_CHECKING:
    from sqlite_utils import Database

_log = logging.getLogger(__name__)
Answer = Offered | Queued | Granted | Refused | None


class Bill(Protocol):
    """What writes receipts together with leases."""

    def entry(self, lease: Lease) -> Callable[[Database], None] | None:
        """Return what is to be written with a lease that is new, or has ended, in its own transaction."""

    def entered(self, lease: Lease) -> None:
        """Note that it is on disk."""


class NoBill:
    """A donor without books."""

    def entry(self, lease: Lease) -> None:
        """Return nothing."""

    def entered(self, lease: Lease) -> None:
        """Note nothing."""


class Turns:
    """The events of one donor, one after the other.

    Args:
        site: its name.
        host: returns the node that is to run a lease.
        prepare: brings an image within a node's reach before it is told to start.
        books: where leases stand.
        boot_id: names the boot whose clock counts.
        clock: that clock, in s.
        lease_ttl_s: how long a lease lives from its commit or last renewal.
        record: keeps a decision for the books.
        law: by what is decided at first.
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
        record: Callable[[Decision], None],
        law: Law,
    ) -> None:
        self._site = site
        self._books = books
        self._boot_id = boot_id
        self._clock = clock
        self._record = record
        self.bill: Bill = NoBill()
        """Writes receipts with leases."""
        self.granted: Callable[[Lease, float], None] = lambda _lease, _waited_s: None
        """Told of each lease that was granted, and how long its request had waited."""
        self.state = State(Book(lease_ttl_s=lease_ttl_s), law=law)
        self.orders = Orders(
            host,
            prepare,
            left_s=self.left_s,
            started=self._started,
            failed=self._failed,
            stopped=self.gone_from,
        )
        self._turn = asyncio.Lock()
        self._ends: dict[str, asyncio.Future[str]] = {}
        self._heeds: dict[str, set[Heed]] = {}
        self._turns_come: dict[RequestKey, set[asyncio.Event]] = {}
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
        await self.apply(partial(Restored, known))
        self._counting = asyncio.create_task(self._tick(), name="lease clock")

    async def close(self) -> None:
        """Stop counting and call off starts. Leases go on at their nodes until their time is over."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)
        await self.orders.close()
        await asyncio.gather(*self._events, return_exceptions=True)

    async def apply(self, event: Callable[[float], Event]) -> Answer:
        """Have the rules decide on an event of this moment; return the answer for who asked.

        Raises:
            StateError: a promise could not be written down, so it was not made.
        """
        deciding = asyncio.create_task(self._decide(event))
        self._events.add(deciding)
        deciding.add_done_callback(self._events.discard)
        return await asyncio.shield(deciding)

    async def end_of(self, lease_id: str, heed: Heed) -> str:
        """Wait until a lease that has not ended does; return why. ``heed`` hears notices meanwhile."""
        lease = self.state.book.leases.get(lease_id)
        if lease is not None and lease.notice_deadline_s is not None:
            heed(LeaseNotice(lease.notice_reason, max(0.0, lease.notice_deadline_s - self._clock())))
        heeds = self._heeds.setdefault(lease_id, set())
        heeds.add(heed)
        try:
            return await asyncio.shield(self._ends.setdefault(lease_id, asyncio.Future()))
        finally:
            heeds.discard(heed)
            if not heeds and self._heeds.get(lease_id) is heeds:
                del self._heeds[lease_id]

    @contextmanager
    def turn_of(self, key: RequestKey) -> Iterator[asyncio.Event]:
        """Hand out what is set when a request is offered something, from now on."""
        come = asyncio.Event()
        waiting = self._turns_come.setdefault(key, set())
        waiting.add(come)
        try:
            yield come
        finally:
            waiting.discard(come)
            if not waiting and self._turns_come.get(key) is waiting:
                del self._turns_come[key]

    async def gone_from(self, node: str, lease_id: str, reason: str, *, for_owner: bool = False) -> None:
        """Note that a node has nothing of a lease left; it speaks only for what was given to it."""
        held = self.state.book.leases.get(lease_id) or self.state.book.stopping.get(lease_id)
        if held is not None and held.device.node == node:
            await self.apply(partial(RunnerEnded, lease_id, reason, for_owner=for_owner))

    def left_s(self, lease: Lease) -> float:
        """Return how long a lease lives from now, even if it was renewed since the caller has seen it."""
        return self.state.book.leases.get(lease.id, lease).deadline_s - self._clock()

    async def _started(self, lease_id: str) -> None:
        await self.apply(partial(Started, lease_id))

    async def _failed(self, lease_id: str, reason: str) -> None:
        await self.apply(partial(StartFailed, lease_id, reason))

    async def _decide(self, make: Callable[[float], Event]) -> Answer:
        async with self._turn:
            event = make(self._clock())
            before = self.state
            state, effects = step(before, event)
            promises = isinstance(event, OfferCommitted | Renewed)
            for effect in effects:
                if isinstance(effect, Save):
                    await self._save(effect.lease, promises=promises)
            self.state = state
            answer: Answer = None
            for effect in effects:
                try:
                    answer = self._carry_out(effect, event, before) or answer
                except Exception:  # noqa: BLE001 - the rest was decided, and stands on disk
                    _log.exception("%s of %s met a defect", type(effect).__name__, type(event).__name__)
            return answer

    def _carry_out(self, effect: Effect, event: Event, before: State) -> Answer:
        """Do what was decided; return what answers the one who asked."""
        match effect:
            case Offered(offer):
                for come in self._turns_come.get(offer.request.key, ()):
                    come.set()
                if isinstance(event, OfferAsked) and offer.request.key == event.request.key:
                    return effect
            case Granted(lease):
                taken = before.book.offers.get(lease.offer_id)
                if taken is not None and isinstance(event, OfferCommitted):
                    self._told_of_grant(lease, event.now_s - taken.since_s)
                return effect
            case Queued():
                return effect
            case Refuse(refused):
                return refused
            case Start(lease):
                self.orders.start(lease)
            case Stop(node, lease_id, reason):
                self.orders.stop(node, lease_id, reason)
            case Notice(lease, deadline_s, reason):
                self._notify(lease, LeaseNotice(reason, max(0.0, deadline_s - self._clock())))
            case Reprieve(lease):
                self._reprieve(lease)
            case Record(decision):
                self._record(decision)
            case Ended(lease, reason):
                self._end(lease, reason)
        return None

    def _told_of_grant(self, lease: Lease, waited_s: float) -> None:
        try:
            self.granted(lease, max(0.0, waited_s))
        except Exception:  # noqa: BLE001 - whoever counts grants must not keep a borrower from its lease
            _log.exception("the grant of %s was not counted, by a defect", lease.id)

    def _notify(self, lease: Lease, notice: LeaseNotice) -> None:
        site = lease.request.borrower_site
        _log.info("lease %s of %s ends in %.0f s: %s", lease.id, site, notice.left_s, notice.reason)
        if lease.notice_cause is not Cause.RECLAIMED:  # of the owner's its node has told it, and tells it
            self.orders.notice(lease, notice.left_s, notice.reason)
        self._tell(lease, notice)

    def _reprieve(self, lease: Lease) -> None:
        _log.info("lease %s of %s goes on after all", lease.id, lease.request.borrower_site)
        self.orders.reprieve(lease)
        self._tell(lease, None)

    def _tell(self, lease: Lease, notice: LeaseNotice | None) -> None:
        for heed in tuple(self._heeds.get(lease.id, ())):
            try:
                heed(notice)
            except Exception:  # noqa: BLE001 - the others hear of it all the same
                _log.exception("news to %s of %s met a defect", lease.request.borrower_site, lease.id)

    def _end(self, lease: Lease, reason: str) -> None:
        _log.info("lease %s of %s has ended: %s", lease.id, lease.request.borrower_site, reason)
        self.orders.call_off(lease.id)
        waiting = self._ends.pop(lease.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reason)

    async def _save(self, lease: Lease, *, promises: bool) -> None:
        over = lease.state is LeaseState.ENDED
        record = record_of(lease, self._site, self.state.book.lease_ttl_s, self._boot_id, time.time())
        record = replace(record, created_at=self._births.get(lease.id, record.created_at))
        try:
            await self._write(lease, record)
        except StateError as error:
            if promises and not over:
                raise
            # A full disk must not keep a device, nor leave a node unheard; a next start ends what is open.
            _log.error("lease %s is %s, not so on disk: %s", lease.id, lease.state, error.message)
        if over:
            self._births.pop(lease.id, None)
        else:
            self._births[lease.id] = record.created_at

    async def _write(self, lease: Lease, record: SiteLeaseRecord) -> None:
        entry = self.bill.entry(lease)
        try:
            await self._books.put_lease(record, entry)
        except LedgerError as error:
            # The books may be locked: a lease goes on and ends without them, and its receipt follows.
            _log.warning("lease %s has no receipt for the moment: %s", lease.id, error.message)
            await self._books.put_lease(record)
        else:
            if entry is not None:
                self.bill.entered(lease)

    async def _tick(self) -> None:
        while True:
            due_s = next_deadline_s(self.state)
            pause_s = TICK_S if due_s is None else min(TICK_S, max(0.0, due_s - self._clock()))
            await asyncio.sleep(pause_s + 0.01)
            try:
                await self.apply(Tick)
            except Exception:  # noqa: BLE001 - without this clock no lease would ever end by its time
                _log.exception("the lease clock met a defect; it goes on")
