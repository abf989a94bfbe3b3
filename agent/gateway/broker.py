"""The gateway as a borrower: who could run what is meant, and which offer is taken.

Rules: this site's own devices are asked first, then other sites that answered lately, those with most devices
free first; ``MAX_DONORS_ASKED`` at once, as many more each ``WIDEN_S``, and at once when nobody is left;
those that could not serve it are asked anew each ``WIDEN_S``, as long as it waits anywhere. One offer is
committed, the other offers and places are given up once it is accepted; a donor that fails after its offer is
passed over for the next one. Whose lease it is stands in the books before the borrower hears of it, and only
the node that borrowed a lease may do anything with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine
from typing import Protocol

from agent.daemon.faces import Donor, Emit, Heed, LeaseOffer, OfferRequest, Wish, unheeded
from agent.daemon.pipes import Pipe
from agent.daemon.reports import SiteSummary
from agent.errors import BusyError, RefusedError, UnknownLeaseError
from agent.gateway.asking import Asking
from agent.gateway.brokered import BrokeredLeases
from agent.gateway.core.placement import CarbonPreference, ReceivedOffer, rank_offers
from agent.gateway.deal import Deal
from agent.gateway.naming import Meant, Naming
from agent.gateway.neighbours import Neighbours
from agent.limits import GIVE_BACK_S, MAX_BROKERED, MAX_DONORS_ASKED, WIDEN_S
from agent.local.views import AcceptedView, GrantedView, NoteView, PlaceView, WaitingView
from agent.resolve import parse_ref
from agent.state import SiteStore
from federation.errors import FederationError
from federation.policy.policy import PER_MILLE
from pyrdma.errors import Error


class OwnSite(Donor, Protocol):
    """This site as a donor for its own nodes."""

    def lends(self, lease_id: str, node: str) -> bool:
        """Say whether a node of this site holds a lease here, or held one of the last that ended."""


class SiteBroker:
    """What gets leases for the nodes of this site.

    Args:
        own: this site as a donor.
        neighbours: the other sites.
        naming: what names mean.
        books: where leases of other sites stand; those of this site stand in the donor's own.
        boot_id: names the present boot.
        clock: the clock of leases, in s.
        sign: returns a request as this site signs it.
    """

    def __init__(
        self,
        own: OwnSite,
        neighbours: Neighbours,
        naming: Naming,
        books: SiteStore,
        *,
        boot_id: str,
        clock: Callable[[], float],
        sign: Callable[[OfferRequest], OfferRequest],
        carbon: Callable[[], CarbonPreference] = CarbonPreference,
    ) -> None:
        self._own = own
        self._neighbours = neighbours
        self._naming = naming
        self._clock = clock
        self._sign = sign
        self._carbon = carbon
        self._brokered = BrokeredLeases(own.site, books, boot_id, clock)
        self._giving_back: set[asyncio.Task[None]] = set()

    async def restore(self) -> None:
        """Know again the leases that were brokered before this agent started."""
        await self._brokered.restore()

    async def close(self) -> None:
        """Give nothing back any more: what is still held ends by itself."""
        for task in self._giving_back:
            task.cancel()
        await asyncio.gather(*self._giving_back, return_exceptions=True)
        await self._brokered.close()

    async def borrow(self, wish: Wish, borrower: str, emit: Emit) -> GrantedView:
        """Get a lease for a node of this site and wait until it answers; being cancelled calls it off.

        Raises:
            Error, FederationError: the name means nothing, or nobody grants a lease.
        """
        await self._brokered.strike_overdue()
        ref = parse_ref(wish.model)
        meant = await self._naming.resolve(ref)
        if meant.note:
            emit(NoteView(meant.note))
        request = self._sign(
            OfferRequest(
                request_id=secrets.token_hex(8),
                model=ref.name,
                image_id=meant.image_id,
                total_bytes=meant.total_bytes,
                devices=1,
                node=wish.node,
                borrower_node=borrower,
                account=wish.account or f"/{self._own.site}",
                purpose=wish.purpose,
                instant=wish.instant,
                duration_s=wish.duration_s,
            )
        )

        def waits(site: str, place: PlaceView) -> None:
            emit(WaitingView(site, place))

        async with Asking(request, waits, self._beside, _release) as asking:
            known: set[str] = set()
            while True:
                further = [one for one in self._donors(wish) if one.site not in known]
                for donor in further[:MAX_DONORS_ASKED]:
                    known.add(donor.site)
                    asking.ask(donor)
                offers = await asking.offers(WIDEN_S)
                while offers:
                    granted = await self._take_best(asking, offers, meant, emit)
                    if granted is not None:
                        return granted
                    offers = await asking.offers(WIDEN_S)
                if asking.hopeful:
                    for donor in asking.passed:
                        asking.ask(donor)
                elif len(further) <= MAX_DONORS_ASKED:
                    break
        said = " ".join(f"{site}: {reason}" for site, reason in asking.reasons.items())
        raise RefusedError(
            f"nobody grants a lease for {ref}. {said or 'No site answers that has a device.'}",
            fix="see who has devices with: pyrdma-agent nodes; or try again later",
        )

    async def renew(self, lease_id: str, borrower: str) -> float:
        """Renew a lease; return the seconds that it lives from the moment of asking."""
        donor = self._donor_of(lease_id, borrower)
        sent_at_s = self._clock()
        try:
            ttl_s = await donor.renew(lease_id)
        except UnknownLeaseError as error:
            await self._brokered.strike(lease_id, error.message)
            raise
        self._brokered.renewed(lease_id, sent_at_s, ttl_s)
        return ttl_s

    async def release(self, lease_id: str, reason: str, borrower: str) -> str:
        """End a lease; return why it ended."""
        donor = self._donor_of(lease_id, borrower)
        try:
            reason = await donor.release(lease_id, reason)
        finally:
            await self._brokered.strike(lease_id, reason)
        return reason

    async def attend(self, lease_id: str, borrower: str, heed: Heed = unheeded) -> str:
        """Wait until a lease ends; return why. ``heed`` hears notices meanwhile."""
        donor = self._donor_of(lease_id, borrower)
        try:
            reason = await donor.attend(lease_id, heed)
        except UnknownLeaseError:
            await self._brokered.strike(lease_id, "its donor no longer knows it")
            raise
        await self._brokered.strike(lease_id, reason)
        return reason

    async def connect(self, lease_id: str, borrower: str) -> Pipe:
        """Open a connection to a lease's runner."""
        return await self._donor_of(lease_id, borrower).connect(lease_id)

    async def end_all_of(self, borrower: str, reason: str) -> None:
        """Give back what a node has from other sites; each is told beside the others, and not waited for."""
        for lease_id in self._brokered.of(borrower):
            with contextlib.suppress(Error, FederationError):  # its donor has left the consortium
                self._give_back(self._donor_of(lease_id, borrower), lease_id, reason)
            await self._brokered.strike(lease_id, reason)

    # --- whom to ask, whom to take ------------------------------------------------------------------------

    def _donors(self, wish: Wish) -> list[Donor]:
        # A node that is named without a site is one of this site's.
        if wish.site == self._own.site or (wish.node and not wish.site):
            return [self._own]
        if wish.site:
            if self._brokered.full:
                raise BusyError(
                    f"this site borrows {MAX_BROKERED} leases of others already.", fix="stop one first"
                )
            return [self._neighbours.get(wish.site).peer]
        ready = () if self._brokered.full else self._neighbours.ready()
        idle = [
            (one, one.summary.devices - one.summary.leased)
            for one in ready
            if one.summary is not None and one.summary.devices > 0
        ]
        idle.sort(key=lambda pair: (-pair[1], pair[0].document.site))
        return [self._own, *(one.peer for one, _ in idle)]

    async def _take_best(
        self, asking: Asking, offers: list[tuple[Donor, LeaseOffer]], meant: Meant, emit: Emit
    ) -> GrantedView | None:
        """Commit the best offer; return nothing when its donor fails, and have the others go on."""
        received = [
            _received(donor.site, offer, meant, self._neighbours.said(donor.site)) for donor, offer in offers
        ]
        best = rank_offers(received, self._own.site, self._carbon())[0]
        donor = next(one for one, _ in offers if one.site == best.site)
        sent_at_s, entered = self._clock(), list[str]()
        given_up: list[asyncio.Task[None]] = []
        others = [one for one in asking.donors if one.site != best.site]

        def give_others_up() -> None:
            if not given_up:
                reason = "another offer was taken"
                given_up.extend(asking.give_up(one.site, reason) for one in others)

        async def accept(accepted: AcceptedView) -> None:
            if donor is not self._own:
                self._brokered.enter(accepted, asking.request, sent_at_s)
                entered.append(accepted.lease_id)
                await self._brokered.write(accepted.lease_id)
            give_others_up()

        try:
            granted = await Deal(donor, asking.request, accept, emit).take(best.offer_id)
        except BaseException as error:
            for lease_id in entered:
                asking.taken(best.site)  # what is given back is the lease
                self._give_back(donor, lease_id, "it did not start")
                await self._brokered.strike(lease_id, "it did not start")
            if not isinstance(error, Error | FederationError):
                raise
            asking.fail(best.site, error.message)
            if asking.hopeful or len(offers) > 1:
                emit(NoteView(f"{best.site} failed after its offer: {error.message}"))
            # It had accepted, so the others' places and offers are gone: they are asked again.
            await asyncio.gather(*given_up)
            for one in others if given_up else ():
                asking.ask(one)
            return None
        asking.taken(best.site)
        return granted

    def _give_back(self, donor: Donor, lease_or_offer_id: str, reason: str) -> asyncio.Task[None]:
        return self._beside(_release(donor, lease_or_offer_id, reason))

    def _beside(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._giving_back.add(task)
        task.add_done_callback(self._giving_back.discard)
        return task

    def _donor_of(self, lease_id: str, borrower: str) -> Donor:
        if self._own.lends(lease_id, borrower):
            return self._own
        return self._neighbours.get(self._brokered.donor_of(lease_id, borrower)).peer


async def _release(donor: Donor, lease_or_offer_id: str, reason: str) -> None:
    with contextlib.suppress(Error, FederationError, TimeoutError):  # it ends by itself soon
        async with asyncio.timeout(GIVE_BACK_S):
            await donor.release(lease_or_offer_id, reason)


def _received(site: str, offer: LeaseOffer, meant: Meant, said: SiteSummary | None) -> ReceivedOffer:
    left = None if said is None else said.egress_left_permille
    return ReceivedOffer(
        site,
        offer.offer_id,
        offer.node,
        offer.warm,
        bytes_to_move=0 if offer.warm else meant.total_bytes,
        bytes_per_s=0.0 if said is None else said.image_bytes_per_s,
        starts_in_s=offer.starts_in_s,
        egress_left_permille=PER_MILLE if left is None else left,
        waiting=0 if said is None else said.waiting,
    )
