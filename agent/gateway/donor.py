"""This site as a donor: what borrowers and the site's own nodes may say of its leases.

Rules: what is decided, ``core.leases`` decides; ``site`` is the borrower's, by its certificate; a
commit that is called off before its grant, or fails, leaves neither a lease nor an offer behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from functools import partial

from agent.daemon.faces import Emit, Heed, Host, LeaseOffer, OfferRequest, Refusal, unheeded
from agent.daemon.pipes import Pipe
from agent.daemon.reports import Report
from agent.errors import RefusedError, StateError, UnknownLeaseError
from agent.gateway.core.book import Lease, lease_id_of
from agent.gateway.core.events import (
    Decision,
    Event,
    Granted,
    NodeHeard,
    OfferAsked,
    OfferCommitted,
    Offered,
    Queued,
    Reclaimed,
    Released,
    Renewed,
    Withdrawn,
)
from agent.gateway.core.fleet import Device, NodeReport, Replica
from agent.gateway.core.law import Law
from agent.gateway.core.leases import State
from agent.gateway.core.places import place_now
from agent.gateway.core.request import KnownModel, LeaseRequest, Refused
from agent.gateway.turns import Answer, Bill, Turns
from agent.gateway.view import place_view
from agent.local.views import AcceptedView, GrantedView, PlaceView
from agent.state import SiteStore

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
        record: keeps a decision for the books.
        law: by what is decided at first.
        known: what the registry's lists say that an image is, by its id in hex.
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
        known: Callable[[str], tuple[KnownModel, ...]],
    ) -> None:
        self.site = site
        self._host = host
        self._clock = clock
        self._known = known
        self._refuses: Callable[[OfferRequest, str], Refusal | None] = lambda _request, _site: None
        self._undoing: set[asyncio.Task[None]] = set()
        self._committing: set[str] = set()
        self._turns = Turns(
            site,
            host=host,
            prepare=prepare,
            books=books,
            boot_id=boot_id,
            clock=clock,
            lease_ttl_s=lease_ttl_s,
            record=record,
            law=law,
        )

    @property
    def state(self) -> State:
        """All that it decides from, as it is now."""
        return self._turns.state

    def on_granted(self, granted: Callable[[Lease, float], None]) -> None:
        """Have somebody told of each grant, and how long the request had waited."""
        self._turns.granted = granted

    def keep_books(self, bill: Bill, refuses: Callable[[OfferRequest, str], Refusal | None]) -> None:
        """Have receipts written, and requests checked before they are looked at."""
        self._turns.bill = bill
        self._refuses = refuses

    async def apply(self, event: Callable[[float], Event]) -> Answer:
        """Have the rules decide on an event of this moment."""
        return await self._turns.apply(event)

    async def start(self) -> None:
        """Take over the leases that an agent before this one had granted, and begin to count."""
        await self._turns.start()

    async def close(self) -> None:
        """Stop counting and call off starts. Leases go on at their nodes until their time is over."""
        await self._turns.close()
        await asyncio.gather(*self._undoing, return_exceptions=True)

    # --- what borrowers ask -------------------------------------------------------------------------------

    async def ask_offer(
        self, request: OfferRequest, site: str, wait_s: float = 0.0
    ) -> LeaseOffer | PlaceView | Refusal:
        """Offer a device, let the request wait, or refuse; one that waits is answered within ``wait_s``."""
        refusal = self._refuses(request, site)
        if refusal is not None:
            return refusal
        asked = LeaseRequest(
            id=request.request_id,
            borrower_site=site,
            borrower_node=request.borrower_node,
            model=request.model,
            image_id=request.image_id.hex(),
            total_bytes=request.total_bytes,
            devices=request.devices,
            node=request.node or None,
            account=request.account,
            purpose=request.purpose,
            instant=request.instant,
            duration_s=request.duration_s,
            known=self._known(request.image_id.hex()),
            asked_at_s=request.asked_at_s,
            signature=request.signature,
        )
        with self._turns.turn_of(asked.key) as come:
            answer = await self._turns.apply(partial(OfferAsked, asked, secrets.token_hex(8)))
            if isinstance(answer, Queued) and wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await come.wait()
                answer = await self._turns.apply(partial(OfferAsked, asked, secrets.token_hex(8)))
        if isinstance(answer, Refused):
            return Refusal(answer.code, answer.sentence, answer.fix, answer.terminal)
        if isinstance(answer, Queued):
            return place_view(place_now(self.state, asked.key, self._clock()) or answer.place)
        assert isinstance(answer, Offered), "an offer is asked for: it is given, queued for, or refused"
        offer, terms = answer.offer, answer.offer.terms
        return LeaseOffer(
            offer.id,
            offer.expires_at_s - self._clock(),
            offer.device.node,
            offer.warm,
            grace_s=terms.grace_s,
            min_runtime_s=terms.min_runtime_s,
            max_duration_s=terms.max_duration_s,
            instant=terms.instant,
            starts_in_s=offer.starts_in_s,
        )

    async def commit(self, offer_id: str, site: str, emit: Emit) -> GrantedView:
        """Carry out an offer; being cancelled before the model answers ends the lease.

        Raises:
            RefusedError: the offer is not open here, or the lease ended before its model answered.
            StateError: the lease could not be written down.
            Error: the model could not be started.
        """
        offer = self.state.book.offers.get(offer_id)
        if offer is None or offer_id in self._committing:
            taken = await self._turns.apply(partial(OfferCommitted, offer_id, site))
            raise RefusedError(
                f"the offer {offer_id[:32]} was taken already: its lease is {self._granted(taken).id}.",
                fix="use that lease, or ask for another offer",
            )
        lease_id = lease_id_of(offer)
        self._committing.add(offer_id)
        start = self._turns.orders.expect(lease_id)
        try:
            lease = self._granted(await self._turns.apply(partial(OfferCommitted, offer_id, site)))
            emit(AcceptedView(lease.id, self.state.book.lease_ttl_s, self.site, lease.device.node))
            start.listener = emit
            await start.begun.wait()  # guests that have to make room are given their time first
            if start.task is not None:
                await asyncio.wait([start.task])
            over = self.state.book.ended.get(lease_id)
            failed = start.task is not None and not start.task.cancelled() and start.task.exception()
            if start.task is None or start.task.cancelled() or (over is not None and not failed):
                why = over.reason.rstrip(".") if over is not None else "it was stopped"
                raise RefusedError(f"the lease ended before its model answered: {why}.", fix="try again")
            granted = start.task.result()
        except BaseException as error:
            # Once begun it goes to its end: whoever calls off may do so more than once.
            start.listener = None
            untaken = offer_id if isinstance(error, StateError) else ""
            undoing = asyncio.create_task(self._call_off(lease_id, untaken, site))
            self._undoing.add(undoing)
            undoing.add_done_callback(self._undoing.discard)
            await asyncio.shield(undoing)
            raise
        finally:
            self._committing.discard(offer_id)
        self._turns.orders.forget(lease_id)
        return granted

    async def _call_off(self, lease_id: str, offer_id: str, site: str) -> None:
        for one in (lease_id, offer_id):
            if one:
                await self._turns.apply(partial(Released, one, site, "the request was called off"))
        self._turns.orders.forget(lease_id)

    async def renew(self, lease_id: str, site: str) -> float:
        """Renew a lease; return how long it lives from now."""
        lease = self._granted(await self._turns.apply(partial(Renewed, lease_id, site)))
        return self._turns.left_s(lease)

    async def release(self, lease_id: str, reason: str, site: str) -> str:
        """End a lease, give an offer back, or give up what a request waits for; return why it ended."""
        reason = reason or "given back"
        if self.state.waits((site, lease_id)):
            await self._turns.apply(partial(Withdrawn, lease_id, site))
            return reason
        answer = await self._turns.apply(partial(Released, lease_id, site, reason))
        if answer is not None:
            self._granted(answer)
        return reason

    async def attend(self, lease_id: str, site: str, heed: Heed = unheeded) -> str:
        """Wait until a lease ends; return why. ``heed`` hears notices meanwhile."""
        over = self.state.book.ended.get(lease_id)
        if over is not None and over.request.borrower_site == site:
            return over.reason
        self._held(lease_id, site)
        return await self._turns.end_of(lease_id, heed)

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

    # --- what nodes say -----------------------------------------------------------------------------------

    async def heard(self, node: str, report: Report) -> dict[str, float]:
        """Take a node's word; return the seconds that each of its leases has left."""
        for one in report.ended:
            await self._turns.gone_from(node, one.lease_id, one.reason, for_owner=one.for_owner)
        said = NodeReport(
            node=node,
            address=report.address,
            devices=tuple(
                Device(
                    one.id,
                    "gpu" if one.kind == "gpu" else "cpu",
                    one.memory_bytes,
                    device_class=one.device_class,
                    state=one.state,
                    reclaim_left_s=one.reclaim_left_s,
                )
                for one in report.devices
            ),
            replicas=tuple(Replica(one.image_id.hex(), one.whole) for one in report.images),
            leases=report.leases,
            spares_ready=report.spares_ready,
            donating=report.donating,
            transfer_bytes_per_s=report.transfer_bytes_per_s,
        )
        await self._turns.apply(partial(NodeHeard, said))
        theirs = [one for one in self.state.book.leases.values() if one.device.node == node]
        return {one.id: self._turns.left_s(one) for one in theirs}

    async def gone(self, node: str, reason: str) -> None:
        """End what runs on a node that has left."""
        await self._turns.apply(partial(Reclaimed, node, None, reason))
