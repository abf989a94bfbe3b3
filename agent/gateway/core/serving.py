"""Who of those that wait is offered what: the line is walked when devices come free, or the rules change.

Rules:

1. The first in the order that can be served has an offer; then the order is looked at anew, since an offer is
   charged at once. At most ``MAX_LINE_LOOKS`` requests are tried after one event.
2. Whoever would be over its cap is passed over while somebody else fits; if nobody does, it is served. So is
   whoever keeps an older, wider request of its account over its cap, once that one has waited long.
3. What is reserved for a class and idle goes to instant leases only, until one of the class asks.
4. If the first wants more devices than a node has free, that which has enough soonest is kept for it; until
   then its devices go only to leases that end before, and none idles for long.
5. Nothing is taken from anybody for an offer: one that needs others' devices names its victims, and these
   hear of it when it is committed (``agent.gateway.core.preempting``).
6. A request that has just come, or is asked for again, is tried on what is free now: whoever is before it
   could not use that.
"""

from __future__ import annotations

from itertools import islice

from agent.gateway.core.admission import denied, paused
from agent.gateway.core.book import Offer
from agent.gateway.core.change import Change
from agent.gateway.core.fleet import Candidate
from agent.gateway.core.preempting import Room, compared, may_preempt_now, room_for
from agent.gateway.core.queue import Wish
from agent.gateway.core.request import RequestKey
from agent.gateway.core.state import NodeHold
from agent.gateway.core.supply import Supply
from agent.limits import (
    KILL_SLACK_S,
    MAX_LINE_LOOKS,
    MAX_OFFERS,
    MAX_SITE_LEASES,
    MAX_VICTIM_LOOKS,
    OFFER_TTL_S,
)
from federation.fairshare.caps import OverCap
from federation.fairshare.hold import Hold, may_hold
from federation.fairshare.line import Waiting


def serve(change: Change) -> None:
    """Offer what can be offered to those in line, in their order."""
    change.look = False
    if not len(change.queue):
        change.hold = None
        return
    if _closed(change):
        return
    supply = Supply(change)
    if supply.free <= 0 and not may_preempt_now(change, supply):
        return
    tried: set[RequestKey] = set()
    while (chosen := _next(change, supply, tried)) is not None:
        _offer(change, supply, *chosen, change.queue.offer_id(chosen[0].key))
        if chosen[2] is not None:
            supply = Supply(change)
    compared(change)


def serve_at_once(change: Change, waiting: Waiting[Wish], supply: Supply, offer_id: str) -> bool:
    """Offer what is free to a request that has just come, without a place in line; whether it is offered."""
    if change.look or waiting.devices > 1 or change.hold is not None or _closed(change):
        return False
    devices = _placed(change, supply, waiting)
    if devices:
        _offer(change, supply, waiting, devices, None, offer_id)
    return bool(devices)


def serve_one(change: Change, waiting: Waiting[Wish], supply: Supply) -> None:
    """Offer what is free to one request, if it may have it."""
    if waiting.devices > 1 or change.hold is not None:
        serve(change)  # it may be the head of the line, for which devices are kept
        return
    if _closed(change):
        return
    devices = _placed(change, supply, waiting)
    room = None
    if not devices and change.queue.ahead(waiting, supply.deficits) < MAX_VICTIM_LOOKS:
        room = room_for(change, supply, waiting)
        compared(change)
    if devices or room is not None:
        offer_id = change.queue.offer_id(waiting.key)
        _offer(change, supply, waiting, room.devices if room is not None else devices, room, offer_id)


def _next(
    change: Change, supply: Supply, tried: set[RequestKey]
) -> tuple[Waiting[Wish], tuple[Candidate, ...], Room | None] | None:
    """Return the first of the line that can be served, and with what."""
    if _closed(change):
        return None
    over: list[tuple[Waiting[Wish], OverCap]] = []
    head: Waiting[Wish] | None = None
    rooms = MAX_VICTIM_LOOKS if may_preempt_now(change, supply) else 0
    looks = MAX_LINE_LOOKS if supply.free > 0 else rooms
    if not looks:
        return None  # before anything is sorted: more may change until somebody looks
    for waiting in islice(change.queue.walk(supply.deficits), looks):
        capped = supply.over_cap(waiting)
        if capped is not None:
            over.append((waiting, capped))
            continue
        if head is None:
            head = waiting
            _keep(change, supply, waiting)
        if waiting.key in tried:
            continue
        devices = _placed(change, supply, waiting)
        if devices:
            return waiting, devices, None
        if rooms > 0:
            rooms -= 1
            room = room_for(change, supply, waiting)
            if room is not None:
                return waiting, room.devices, room
        tried.add(waiting.key)
    for waiting, capped in over:
        if capped.older and head is not None:
            continue  # its account would never come down to where its older request fits
        devices = _placed(change, supply, waiting)
        if devices:
            return waiting, devices, None
    return None


def _placed(change: Change, supply: Supply, waiting: Waiting[Wish]) -> tuple[Candidate, ...]:
    """Return the free devices that a request may have now."""
    request = waiting.wish.request
    if not supply.may_fit(waiting) or not supply.admits(request):
        return ()
    chosen = supply.choose(waiting)
    if not chosen:
        return ()
    answer = denied(request, change.law, change.now_s)
    if answer is not None and answer.lasting:
        change.queue = change.queue.left(waiting.key)  # it hears why when it asks again
    return chosen if answer is None else ()


def _keep(change: Change, supply: Supply, head: Waiting[Wish]) -> None:
    """Keep a node's free devices for a head of the line that wants several and cannot have them now."""
    before = change.hold
    supply.keep(before if before is not None and before.hold.key == head.key else None)
    if head.devices == 1 or _placed(change, supply, head):
        return
    limit_s = change.law.caps.wide_hold_s
    if may_hold(None if before is None else before.hold, head.key, change.now_s, limit_s):
        found = supply.soonest(head.wish.request)
        if found is None:
            return
        before = NodeHold(Hold(head.key, found[0], limit_s), found[1])
    assert before is not None, "nothing would be in the way of another hold"
    shelf = supply.shelves.get(before.node)
    hold = before.hold.seen(change.now_s, idle=shelf is not None and bool(shelf.free))
    change.hold = NodeHold(hold, before.node)
    supply.keep(change.hold)
    if hold.in_force(change.now_s):
        change.due(hold.over_s)


def _offer(
    change: Change,
    supply: Supply,
    waiting: Waiting[Wish],
    chosen: tuple[Candidate, ...],
    room: Room | None,
    offer_id: str,
) -> None:
    request = waiting.wish.request
    for held in () if room is None else room.voided:
        change.void(change.offers[held])
    best = chosen[0]
    devices = tuple(one.ref for one in chosen)
    victims = () if room is None else room.victims
    grace_s = max((change.leases[one].terms.grace_s for one in victims), default=0.0)
    offer = Offer(
        id=offer_id,
        request=request,
        devices=devices,
        warm=best.report.holds(request.image_id),
        expires_at_s=change.now_s + OFFER_TTL_S,
        terms=change.law.terms(request),
        victims=victims,
        since_s=waiting.wish.since_s,
        starts_in_s=grace_s + KILL_SLACK_S if victims else 0.0,
    )
    change.offer(offer, best.device.device_class)
    change.record("offer", request, lease_id=offer.id, devices=devices, code="offered")
    if room is None:
        supply.give(request, devices)


def _closed(change: Change) -> bool:
    """Whether nobody can be offered anything now, whoever it is."""
    return (
        len(change.offers) >= MAX_OFFERS
        or len(change.offers) + len(change.leases) >= MAX_SITE_LEASES
        or paused(change.law, change.now_s) is not None
    )
