"""Why a request waits, and where: the reasons that hold, in FAIRNESS' order, the deciding one first."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from agent.gateway.core.admission import fits, pauses
from agent.gateway.core.change import Change
from agent.gateway.core.eta import eta_of
from agent.gateway.core.events import Tick
from agent.gateway.core.queue import Wish
from agent.gateway.core.request import LeaseRequest, Place, RequestKey
from agent.gateway.core.state import State
from agent.gateway.core.supply import Supply
from agent.limits import MAX_PLACE_LOOKS
from federation.fairshare.caps import OverCap
from federation.fairshare.line import Waiting
from federation.fairshare.reasons import (
    LedgerStale,
    LowerThan,
    OverShareCap,
    Reason,
    Reserved,
    WaitingForCapacity,
    WaitingForReclaim,
    in_order,
)


def place_now(state: State, key: RequestKey, now_s: float) -> Place | None:
    """Return a waiting request's place with its reasons and an estimate; ``None``: it does not wait."""
    waiting = state.queue.get(key)
    if waiting is None:
        return None
    change = Change(state, Tick(now_s))
    supply = Supply(change)
    place = place_of(change, waiting, supply)
    return replace(place, eta_s=eta_of(change, supply, waiting, place.ahead))


def place_of(change: Change, waiting: Waiting[Wish], supply: Supply) -> Place:
    """Return a waiting request's place, without an estimate of how long it takes."""
    ahead = change.queue.ahead(waiting, supply.deficits)
    reasons = reasons_for(change, supply, waiting, ahead)
    return Place(waiting.id, ahead + 1, len(change.queue), reasons)


def reasons_for(change: Change, supply: Supply, waiting: Waiting[Wish], ahead: int) -> tuple[Reason, ...]:
    """Return why a request waits."""
    request = waiting.wish.request
    found: list[Reason] = []
    pause = pauses(request, change.law, change.now_s)
    if pause is not None:
        found.append(pause)
    over = supply.over_cap(waiting)
    rival = None
    if over is not None and _is_passed_over(change, supply, waiting, over):
        # It is passed over, whoever is first.
        found.append(OverShareCap(over.account, over.held, over.cap, over.unheard, over.older))
    else:
        rival = _rival(change, supply, waiting, ahead)
    free = supply.has_free(request)
    deficits = supply.deficits
    if free and deficits and not supply.admits(request):
        found.append(Reserved(", ".join(sorted(deficits)), sum(deficits.values())))
    ranked = change.queue.ranked
    if rival is not None and ranked is not None:
        account, theirs, mine = ranked.compared(waiting.account, rival.account)
        found.append(LowerThan(account, theirs, mine, ahead))
    left_s = _freed_in_s(change, request)
    if left_s is not None:
        found.append(WaitingForReclaim(left_s))
    elif not free or not found:
        found.append(WaitingForCapacity(ahead + 1))
    standing = change.law.standing
    if standing is not None and standing.stale:
        found.append(LedgerStale(standing.oldest_head_age_s))
    return in_order(found)


def _rival(change: Change, supply: Supply, waiting: Waiting[Wish], ahead: int) -> Waiting[Wish] | None:
    """Return the first of another account that goes first, and could use what this request waits for."""
    for one in islice(change.queue.walk(supply.deficits), min(ahead, MAX_PLACE_LOOKS)):
        if one.account != waiting.account and supply.over_cap(one) is None and _compete(supply, one, waiting):
            return one
    return None


def _is_passed_over(change: Change, supply: Supply, waiting: Waiting[Wish], over: OverCap) -> bool:
    if not over.older:
        return _another_fits(change, supply, waiting)
    line = islice(change.queue.walk(supply.deficits), MAX_PLACE_LOOKS)
    return any(supply.over_cap(one) is None for one in line)


def _another_fits(change: Change, supply: Supply, waiting: Waiting[Wish]) -> bool:
    """Whether somebody waits who is not over the cap and could use what this request waits for."""
    return any(
        one.key != waiting.key and supply.over_cap(one) is None and _compete(supply, one, waiting)
        for one in islice(change.queue.walk(supply.deficits), MAX_PLACE_LOOKS)
    )


def _compete(supply: Supply, one: Waiting[Wish], other: Waiting[Wish]) -> bool:
    """Whether one request would take whatever devices the other could use next.

    One that wants more of them does if these are free, and kept for it.
    """
    first, second = one.wish.request, other.wish.request
    if one.devices > other.devices:
        return supply.keeps_for(one) and supply.has_free(second)
    if first.node not in (None, second.node):
        return False
    if supply.deficits and supply.privilege(first) < supply.privilege(second):
        return False
    if first.total_bytes * second.devices <= second.total_bytes * first.devices:
        return True  # no device would do for the other that would not do for it
    return all(
        fits(first, candidate.device)
        for shelf in supply.shelves_for(second)
        for candidate in shelf.lent
        if fits(second, candidate.device)
    )


def _freed_in_s(change: Change, request: LeaseRequest) -> int | None:
    """Return when the first device that would do is free at the latest, if one is being freed."""
    soonest: float | None = None
    for lease in change.leases.values():
        deadline_s = lease.notice_deadline_s
        if deadline_s is None or any(device in change.awaited for device in lease.devices):
            continue
        if _may_have(change, request, lease.device.node, lease.device.device):
            soonest = deadline_s if soonest is None else min(soonest, deadline_s)
    return None if soonest is None else max(0, int(soonest - change.now_s) + 1)


def _may_have(change: Change, request: LeaseRequest, node: str, name: str) -> bool:
    heard = change.fleet.nodes.get(node)
    if heard is None or request.node not in (None, node):
        return False
    return heard.report.donating and any(
        one.id == name and one.state == "lent" and fits(request, one) for one in heard.report.devices
    )
