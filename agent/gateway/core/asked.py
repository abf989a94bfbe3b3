"""A borrower asks for devices, asks again for its place, or gives it up.

Rules: the same request has one offer, one place or one lease; what would never be served is refused for good;
everything else waits. A request is known by its borrower's site and that site's id of it; if it comes again
with other contents, it is another one, and goes to the end of the line.
"""

from __future__ import annotations

from dataclasses import replace

from agent.gateway.core.admission import No, classed, refuses
from agent.gateway.core.change import Change
from agent.gateway.core.events import OfferAsked, Offered, Queued, Refuse, Withdrawn
from agent.gateway.core.law import Law
from agent.gateway.core.places import place_of
from agent.gateway.core.queue import Queue, waiting_of
from agent.gateway.core.request import LeaseRequest, Refused, account_of
from agent.gateway.core.serving import serve, serve_at_once, serve_one
from agent.gateway.core.supply import Supply
from agent.limits import MAX_QUEUE, MAX_QUEUE_OF_INSTITUTION, MAX_SITE_LEASES
from federation.fairshare.accounts import ancestors
from federation.fairshare.reasons import ExceedsLimit


def ask(change: Change, event: OfferAsked) -> None:
    """Answer a request with an offer, a place or a refusal."""
    request = classed(event.request, change.law)
    held = change.requests.get(request.key)
    if held is not None and held in change.offers:
        offer = change.offers[held]
        if _same(offer.request, request):
            change.effects.append(Offered(offer))
            return
        change.drop(offer)
    waiting = change.queue.get(request.key)
    if waiting is not None and not _same(waiting.wish.request, request):
        change.queue = change.queue.left(request.key)
        waiting = None
    no = _held(change, request) or refuses(request, change.law, change.fleet, change.now_s)
    if no is None and waiting is None:
        no = _no_room(change, request)
    if no is not None:
        change.queue = change.queue.left(request.key)
        change.effects.append(Refuse(no.refused))
        reasons = () if no.reason is None else (no.reason,)
        change.record("refusal", request, reasons=reasons, code=no.refused.code)
        return
    _wait(change, event, request)


def _wait(change: Change, event: OfferAsked, request: LeaseRequest) -> None:
    """Have a request in line, and answer with what it gets."""
    waiting = change.queue.get(request.key)
    known = waiting is not None
    supply, before = Supply(change), len(change.effects)
    if waiting is None:
        waiting = waiting_of(
            request,
            since_s=change.now_s,
            since_unix_s=change.law.unix(change.now_s),
            claims=change.queue.ranked is not None,
        )
        if serve_at_once(change, waiting, supply, event.offer_id):
            return
        change.queue = change.queue.entered(waiting, event.offer_id, change.now_s)
    else:
        change.queue = change.queue.asked(request.key, event.offer_id, change.now_s)
    if change.look:
        serve(change)
    else:
        serve_one(change, waiting, supply)
    if change.requests.get(request.key) in change.offers:
        return
    if request.key not in change.queue.line:
        ask(change, event)  # it turned out to be refused
        return
    if len(change.effects) > before:
        supply = Supply(change)
    place = place_of(change, waiting, supply)
    change.effects.append(Queued(place))
    if not known:
        change.record("place", request, reasons=place.reasons, code="queued")


def withdraw_request(change: Change, event: Withdrawn) -> None:
    """Forget a request that waits, or has an offer that was not committed."""
    key = (event.borrower_site, event.request_id)
    change.queue = change.queue.left(key)
    offer = change.offers.get(change.requests.get(key, ""))
    if offer is not None:
        change.drop(offer)
    if offer is not None or (change.hold is not None and change.hold.hold.key == key):
        change.look = True  # whoever only waited kept nothing from the others


def has_place(queue: Queue, law: Law, account: str) -> bool:
    """Whether an account has fewer requests in the queue than it may have."""
    return len(queue.line.of_account(account)) < law.caps.max_requests


def _same(one: LeaseRequest, other: LeaseRequest) -> bool:
    return one == other or replace(one, classes=other.classes) == other


def _held(change: Change, request: LeaseRequest) -> No | None:
    lease_id = change.requests.get(request.key)
    if lease_id is None or lease_id not in change.leases:
        return None
    return No(
        Refused(
            "granted-already",
            f"this request has the lease {lease_id} here.",
            "use that lease, or ask under a new id",
            terminal=True,
        )
    )


def _no_room(change: Change, request: LeaseRequest) -> No | None:
    """Return why the queue takes no further request, or none of this account."""
    account = account_of(request)
    if not has_place(change.queue, change.law, account):
        most = change.law.caps.max_requests
        waiting = len(change.queue.line.of_account(account))
        reason = ExceedsLimit("requests of one account in the queue", waiting + 1, most)
        return No(Refused(reason.code, reason.sentence(), reason.change, terminal=False), reason)
    all_of_it = sum(change.queue.line.count(one) for one in ancestors(account)[:1])
    if all_of_it >= MAX_QUEUE_OF_INSTITUTION:
        reason = ExceedsLimit(
            "requests of one institution in the queue", all_of_it + 1, MAX_QUEUE_OF_INSTITUTION
        )
        return No(Refused(reason.code, reason.sentence(), reason.change, terminal=False), reason)
    promised = len(change.leases) + len(change.offers)
    if len(change.queue) >= MAX_QUEUE or promised >= MAX_SITE_LEASES + MAX_QUEUE:
        return No(
            Refused(
                "full",
                f"{len(change.queue)} requests wait at this site already, and it takes no more.",
                "ask again later, or ask another site",
                terminal=False,
            )
        )
    return None
