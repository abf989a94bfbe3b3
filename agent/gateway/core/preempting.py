"""Whose devices another guest may be promised: nothing happens to anybody before that offer is committed.

Rules:

1. A request within its class's reserve may have the devices of instant leases that draw on no reserve, at
   any time: on these terms idle reserve was lent. Offers to such requests are taken back for it at once.
2. Any other request may have a lease's devices only past its minimum time, and only if its account is
   strictly below the lease's after the move (``federation.fairshare.preemption``), and the books are fresh.
3. Of the leases that may have to go, as few as will do, those that lose least; with what is free there.
4. A lease that has notice, or whose devices somebody else is to have next, is nobody's victim any more.
5. If who was to have its devices gives up before that, its notice is withdrawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.gateway.core.admission import denied, fits
from agent.gateway.core.book import Lease, Offer
from agent.gateway.core.change import Change, expected_of
from agent.gateway.core.fleet import Candidate
from agent.gateway.core.past import past_of
from agent.gateway.core.queue import Wish
from agent.gateway.core.request import account_of
from agent.gateway.core.supply import Shelf, Supply, lets_go
from agent.limits import COMPARE_GUESTS_S
from federation.fairshare.line import Waiting
from federation.fairshare.preemption import Running, may_preempt
from federation.fairshare.rank import Ranks
from federation.fairshare.victims import Candidate as Victim
from federation.fairshare.victims import victims_for


@dataclass(frozen=True, slots=True)
class Room:
    """Devices of one node that a request may have.

    Args:
        devices: these.
        victims: leases that have to go for it once it is committed.
        voided: offers to instant requests that are taken back for it: nobody has committed these.
    """

    devices: tuple[Candidate, ...]
    victims: tuple[str, ...]
    voided: tuple[str, ...] = ()


def may_preempt_now(change: Change, supply: Supply) -> bool:
    """Whether it makes sense to look for victims: not without a policy, and for want of a lease to take."""
    policy = change.law.policy
    if policy is None or not (change.leases or change.offers):
        return False
    return bool(supply.deficits) or _looks_at_guests(change)


def room_for(change: Change, supply: Supply, waiting: Waiting[Wish]) -> Room | None:
    """Return what other guests would have to leave for a request, where that costs least."""
    request = waiting.wish.request
    if change.law.policy is None or request.instant:
        return None
    reserved = _within_reserve(supply, waiting)
    if not reserved and not _looks_at_guests(change):
        return None
    may_go: dict[str, Lease | Offer] = (
        {**_instant(change, supply)} if reserved else {**_going(change, supply, waiting)}
    )
    if not may_go:
        return None
    rooms = []
    for shelf in supply.shelves_for(request):
        room = _room_of(change, waiting, shelf, may_go)
        if room is not None and (reserved or _covered(supply, waiting, room, may_go)):
            gone = (*room.victims, *room.voided)
            lost = sum(_lost(change, may_go[one]) for one in gone)
            rooms.append((lost, len(gone), shelf.node, room))
    return min(rooms, key=lambda one: one[:3])[3] if rooms else None


def _room_of(
    change: Change, waiting: Waiting[Wish], shelf: Shelf, may_go: dict[str, Lease | Offer]
) -> Room | None:
    request = waiting.wish.request
    free_refs = {one.ref for one in shelf.free}
    by_class: dict[str, list[Candidate]] = {}
    for one in shelf.lent:
        if fits(request, one.device):
            by_class.setdefault(one.device.device_class, []).append(one)
    for device_class, of in sorted(by_class.items()):
        if denied(request, change.law, change.now_s, device_class) is not None:
            continue
        free = [one for one in of if one.ref in free_refs][: request.devices]
        useful = {str(one.ref): one for one in of if one.ref not in free_refs}
        candidates = _victims(change, may_go.values(), frozenset(useful))
        victims = victims_for(candidates, count=request.devices - len(free))
        if victims is None or not victims.ended:
            continue
        taken = [useful[one] for one in sorted(victims.freed)]
        return Room(
            (*free, *taken)[: request.devices],
            tuple(one for one in victims.ended if one in change.leases),
            tuple(one for one in victims.ended if one in change.offers),
        )
    return None


def _victims(change: Change, held: Iterable[Lease | Offer], useful: frozenset[str]) -> list[Victim]:
    found = []
    for one in held:
        devices = frozenset(str(device) for device in one.devices) & useful
        if devices:
            found.append(Victim(one.id, devices, _lost(change, one)))
    return found


def _covered(supply: Supply, waiting: Waiting[Wish], room: Room, may_go: dict[str, Lease | Offer]) -> bool:
    """Whether what is reserved stays covered when instant leases make room for what is not."""
    lacking = supply.deficits
    if not lacking:
        return True
    going = [may_go[one] for one in room.victims]
    lent = sum(
        len(one.devices) for one in going if one.terms.instant and supply.drawing_on(one.request) is None
    )
    own = min(waiting.devices, lacking.get(supply.drawing_on(waiting.wish.request) or "", 0))
    free_used = len(room.devices) - sum(len(one.devices) for one in going)
    left = supply.reserve.free - max(0, free_used) + supply.reserve.instant - lent
    return left >= sum(lacking.values()) - own


def _instant(change: Change, supply: Supply) -> dict[str, Lease | Offer]:
    """Return what idle reserve is lent to."""
    held: tuple[Lease | Offer, ...] = (*change.leases.values(), *change.offers.values())
    return {one.id: one for one in held if supply.is_lent(one)}


def _going(change: Change, supply: Supply, waiting: Waiting[Wish]) -> dict[str, Lease]:
    """Return the leases that may have to go for a request, by the comparison of guests."""
    standing, policy, ranked = change.law.standing, change.law.policy, change.queue.ranked
    assert standing is not None, "without books guests are not compared"
    assert policy is not None
    assert ranked is not None
    past = past_of(change.ended)
    ranks = Ranks(standing, ranked.own)
    costs: dict[str, int] = {}
    found = {}
    for lease in change.leases.values():
        ran_s = change.now_s - lease.granted_at_s
        account = account_of(lease.request)
        # What is known at once first: all of it must hold, in whatever order it is asked.
        if ran_s < lease.terms.min_runtime_s or account == waiting.account or not lets_go(change, lease.id):
            continue
        if supply.drawing_on(lease.request) is not None and _leaves_short(supply, lease):
            continue
        device_class = _class_of(change, lease)
        if device_class not in costs:
            costs[device_class] = expected_of(policy, waiting.wish.request, device_class)
        debt = change.debts.get(lease.id)
        running = Running(
            account=account,
            charge_msgs=0 if debt is None else debt.open_msgs,
            ran_s=int(ran_s),
            min_runtime_s=int(lease.terms.min_runtime_s),
        )
        cost = costs[device_class]
        if not may_preempt(standing, ranked.own, waiting.account, cost, running, ranks=ranks):
            continue
        lost_s = past.lost_at_s(lease.request.key)
        if lost_s is None or change.now_s - lost_s >= standing.policy.caps.preempt_every_s:
            found[lease.id] = lease
    return found


def compared(change: Change) -> None:
    """Note that guests were compared, if they were."""
    if _looks_at_guests(change):
        change.compare_s = change.now_s + COMPARE_GUESTS_S
        change.due(change.compare_s)


def _looks_at_guests(change: Change) -> bool:
    """Whether it is time to compare guests: seldom, since nothing of that is urgent."""
    standing = change.law.standing
    return (
        standing is not None
        and not standing.stale
        and standing.policy.caps.preempt_every_s > 0
        and change.now_s >= change.compare_s
    )


def _within_reserve(supply: Supply, waiting: Waiting[Wish]) -> bool:
    name = supply.drawing_on(waiting.wish.request)
    return name is not None and supply.deficits.get(name, 0) >= waiting.devices


def _leaves_short(supply: Supply, lease: Lease) -> bool:
    """Whether a class would have less than its reserve without a lease."""
    name = supply.drawing_on(lease.request)
    assert name is not None
    floor = supply.reserve.floors.get(name, 0)
    return supply.reserve.held.get(name, 0) - len(lease.devices) < floor


def _lost(change: Change, held: Lease | Offer) -> int:
    """Return what an end would waste: the device-milliseconds that a lease ran; nothing of an offer."""
    if isinstance(held, Offer):
        return 0
    return int((change.now_s - held.granted_at_s) * 1000) * len(held.devices)


def _class_of(change: Change, lease: Lease) -> str:
    heard = change.fleet.nodes.get(lease.device.node)
    devices = () if heard is None else heard.report.devices
    return next((one.device_class for one in devices if one.id == lease.device.device), "")
