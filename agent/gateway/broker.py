"""The gateway as a borrower: who could run what is meant, and which offer is taken.

Rules: this site's own devices are asked first, then other sites that answered lately, ``MAX_DONORS_ASKED`` at
most; one offer is committed, the others are given back at once; a donor that fails after its offer is passed
over for the next one. Whose lease it is stands in the books before the borrower hears of it, and only the
node that borrowed a lease may do anything with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace

from agent.daemon.faces import Donor, Emit, LeaseOffer, OfferRequest, Refusal, Wish
from agent.daemon.pipes import Pipe
from agent.errors import BusyError, RefusedError, UnknownLeaseError
from agent.gateway.donor import LocalDonor
from agent.gateway.naming import Meant, Naming
from agent.gateway.neighbours import Neighbours
from agent.gateway.placement import ReceivedOffer, rank_offers
from agent.limits import GIVE_BACK_S, MAX_BROKERED, MAX_DONORS_ASKED
from agent.local.views import AcceptedView, GrantedView, NoteView, RunEvent
from agent.resolve import parse_ref
from agent.state import SiteLeaseRecord, SiteStore
from federation.errors import FederationError
from pyrdma.errors import Error

_log = logging.getLogger(__name__)


class OwnDonor:
    """This site as a donor for its own nodes."""

    def __init__(self, donor: LocalDonor) -> None:
        self.site = donor.site
        self._donor = donor

    def lends(self, lease_id: str, node: str) -> bool:
        """Say whether a node of this site holds a lease here."""
        return self._donor.lends(lease_id, self.site, node)

    async def ask_offer(self, request: OfferRequest) -> LeaseOffer | Refusal:
        """Ask for a device."""
        return await self._donor.ask_offer(request, self.site)

    async def commit(self, offer_id: str, emit: Emit) -> GrantedView:
        """Take an offer and wait until the model answers."""
        return await self._donor.commit(offer_id, self.site, emit)

    async def renew(self, lease_id: str) -> float:
        """Renew a lease."""
        return await self._donor.renew(lease_id, self.site)

    async def release(self, lease_id: str, reason: str) -> str:
        """End a lease, or give an offer back."""
        return await self._donor.release(lease_id, reason, self.site)

    async def attend(self, lease_id: str) -> str:
        """Wait until a lease ends."""
        return await self._donor.attend(lease_id, self.site)

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to its runner."""
        return await self._donor.connect(lease_id, self.site)


class SiteBroker:
    """What gets leases for the nodes of this site.

    Args:
        own: this site as a donor.
        neighbours: the other sites.
        naming: what names mean.
        books: where leases of other sites stand; those of this site stand in the donor's own.
        boot_id: names the present boot.
    """

    def __init__(
        self, own: OwnDonor, neighbours: Neighbours, naming: Naming, books: SiteStore, boot_id: str
    ) -> None:
        self._own = own
        self._neighbours = neighbours
        self._naming = naming
        self._books = books
        self._boot_id = boot_id
        self._brokered: dict[str, SiteLeaseRecord] = {}

    async def restore(self) -> None:
        """Know again the leases that were brokered before this agent started."""
        records = await self._books.leases(include_ended=False)
        self._brokered = {one.id: one for one in records if one.side == "brokered"}

    async def borrow(self, wish: Wish, borrower: str, emit: Emit) -> GrantedView:
        """Get a lease for a node of this site and wait until it answers; being cancelled calls it off.

        Raises:
            Error, FederationError: the name means nothing, or nobody grants a lease.
        """
        if len(self._brokered) >= MAX_BROKERED:
            raise BusyError(f"this site borrows {MAX_BROKERED} leases already.", fix="stop one first")
        ref = parse_ref(wish.model)
        meant = await self._naming.resolve(ref)
        if meant.note:
            emit(NoteView(meant.note))
        request = OfferRequest(
            request_id=secrets.token_hex(8),
            model=ref.name,
            image_id=meant.image_id,
            total_bytes=meant.total_bytes,
            devices=1,
            node=wish.node,
            borrower_node=borrower,
        )
        donors = {donor.site: donor for donor in self._donors(wish)}
        offers, reasons = await self._ask(request, tuple(donors.values()))
        ranked = rank_offers([_received(site, offer, meant) for site, offer in offers], self._own.site)
        for position, best in enumerate(ranked):
            others = ranked[position + 1 :]
            try:
                return await self._commit(donors[best.site], best, others, donors, request, emit)
            except (Error, FederationError) as error:
                reasons[best.site] = error.message
                if others:
                    emit(NoteView(f"{best.site} failed after its offer: {error.message}"))
        said = " ".join(f"{site}: {reason}" for site, reason in reasons.items())
        raise RefusedError(
            f"nobody grants a lease for {ref}. {said or 'No site answers that has a device.'}",
            fix="see who has devices with: pyrdma-agent nodes; or try again later",
        )

    async def renew(self, lease_id: str, borrower: str) -> float:
        """Renew a lease; return the seconds that it lives from the moment of asking."""
        return await self._donor_of(lease_id, borrower).renew(lease_id)

    async def release(self, lease_id: str, reason: str, borrower: str) -> str:
        """End a lease; return why it ended."""
        donor = self._donor_of(lease_id, borrower)
        try:
            reason = await donor.release(lease_id, reason)
        finally:
            await self._strike(lease_id, reason)
        return reason

    async def attend(self, lease_id: str, borrower: str) -> str:
        """Wait until a lease ends; return why."""
        try:
            reason = await self._donor_of(lease_id, borrower).attend(lease_id)
        except UnknownLeaseError:
            await self._strike(lease_id, "its donor no longer knows it")
            raise
        await self._strike(lease_id, reason)
        return reason

    async def connect(self, lease_id: str, borrower: str) -> Pipe:
        """Open a connection to a lease's runner."""
        return await self._donor_of(lease_id, borrower).connect(lease_id)

    # --- whom to ask, whom to take ------------------------------------------------------------------------

    def _donors(self, wish: Wish) -> Sequence[Donor]:
        if wish.site == self._own.site:
            return [self._own]
        if wish.site:
            return [self._neighbours.get(wish.site).peer]
        ready = self._neighbours.ready()
        free = [one for one in ready if one.summary is not None and one.summary.devices > one.summary.leased]
        return [self._own, *(one.peer for one in free)][:MAX_DONORS_ASKED]

    async def _ask(
        self, request: OfferRequest, donors: Sequence[Donor]
    ) -> tuple[list[tuple[str, LeaseOffer]], dict[str, str]]:
        replies = await asyncio.gather(*(one.ask_offer(request) for one in donors), return_exceptions=True)
        offers: list[tuple[str, LeaseOffer]] = []
        reasons: dict[str, str] = {}
        for donor, reply in zip(donors, replies, strict=True):
            if isinstance(reply, LeaseOffer):
                offers.append((donor.site, reply))
            elif isinstance(reply, Refusal):
                reasons[donor.site] = reply.sentence
            elif isinstance(reply, Error | FederationError):
                reasons[donor.site] = reply.message
            else:
                raise reply
        return offers, reasons

    async def _commit(
        self,
        donor: Donor,
        offer: ReceivedOffer,
        others: Sequence[ReceivedOffer],
        donors: dict[str, Donor],
        request: OfferRequest,
        emit: Emit,
    ) -> GrantedView:
        accepted: list[str] = []
        writing: list[asyncio.Task[None]] = []

        def on_event(event: RunEvent) -> None:
            if isinstance(event, AcceptedView):
                accepted.append(event.lease_id)
                if donor is not self._own:
                    record = self._record(event, donor.site, request)
                    self._brokered[event.lease_id] = record
                    writing.append(asyncio.create_task(self._books.put_lease(record)))
                writing.extend(asyncio.create_task(_withdraw(donors[one.site], one)) for one in others)
                event = replace(event, site=donor.site)
            emit(event)

        try:
            return await donor.commit(offer.offer_id, on_event)
        except BaseException:
            for lease_id in accepted:
                await self._strike(lease_id, "it did not start")
            raise
        finally:
            await asyncio.gather(*writing)

    def _donor_of(self, lease_id: str, borrower: str) -> Donor:
        if self._own.lends(lease_id, borrower):
            return self._own
        record = self._brokered.get(lease_id)
        if record is None or record.borrower_node != borrower:
            raise UnknownLeaseError(
                f"{borrower} has borrowed no lease {lease_id[:32]!r}.",
                fix="see them with: pyrdma-agent leases",
            )
        return self._neighbours.get(record.donor_site).peer

    def _record(self, accepted: AcceptedView, donor: str, request: OfferRequest) -> SiteLeaseRecord:
        return SiteLeaseRecord(
            id=accepted.lease_id,
            side="brokered",
            model=request.model,
            image_id=request.image_id,
            total_bytes=request.total_bytes,
            borrower_site=self._own.site,
            borrower_node=request.borrower_node,
            donor_site=donor,
            node=accepted.node,
            device="",
            state="committed",
            created_at=time.time(),
            deadline_s=0.0,  # its donor counts, and its borrower
            ttl_s=accepted.ttl_s,
            boot_id=self._boot_id,
        )

    async def _strike(self, lease_id: str, reason: str) -> None:
        record = self._brokered.pop(lease_id, None)
        if record is not None:
            ended = replace(record, state="ended", ended_at=time.time(), reason=reason)
            await self._books.put_lease(ended)


class BrokerFor:
    """The broker as one node of this site uses it; a ``Broker``."""

    def __init__(self, broker: SiteBroker, node: str) -> None:
        self._broker = broker
        self._node = node

    async def borrow(self, wish: Wish, emit: Emit) -> GrantedView:
        """Get a lease and wait until it answers."""
        return await self._broker.borrow(wish, self._node, emit)

    async def renew(self, lease_id: str) -> float:
        """Renew a lease."""
        return await self._broker.renew(lease_id, self._node)

    async def release(self, lease_id: str, reason: str) -> str:
        """End a lease."""
        return await self._broker.release(lease_id, reason, self._node)

    async def attend(self, lease_id: str) -> str:
        """Wait until it ends."""
        return await self._broker.attend(lease_id, self._node)

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to its runner."""
        return await self._broker.connect(lease_id, self._node)


async def _withdraw(donor: Donor, offer: ReceivedOffer) -> None:
    with contextlib.suppress(Error, FederationError, TimeoutError):  # it ends by itself soon
        async with asyncio.timeout(GIVE_BACK_S):
            await donor.release(offer.offer_id, "another offer was taken")


def _received(site: str, offer: LeaseOffer, meant: Meant) -> ReceivedOffer:
    to_move = 0 if offer.warm else meant.total_bytes
    return ReceivedOffer(site, offer.offer_id, offer.node, offer.warm, to_move, 0.0)
