"""What a donor has to give at one moment: its free devices, and what of them is kept for whom."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from agent.gateway.core.admission import denied, fits
from agent.gateway.core.book import Lease, LeaseState, Offer
from agent.gateway.core.change import Change
from agent.gateway.core.fleet import Candidate, DeviceRef, Fleet
from agent.gateway.core.placement import choose
from agent.gateway.core.queue import Wish
from agent.gateway.core.request import LeaseRequest, account_of
from agent.gateway.core.state import NodeHold
from agent.limits import NODE_SILENCE_S, OFFER_TTL_S
from federation.fairshare.caps import UNHEARD_S, OverCap, over_cap
from federation.fairshare.hold import may_backfill
from federation.fairshare.line import Waiting
from federation.fairshare.reserve import Reserve, floors_of, reserve_class
from federation.fairshare.standing import Standing, holdings_of


@dataclass(frozen=True, slots=True)
class Shelf:
    """The lent devices of a node that is there, and those of them that nobody has or is to have next."""

    node: str
    lent: tuple[Candidate, ...]
    free: list[Candidate]


@dataclass(frozen=True, slots=True)
class _Shelved:
    """The shelves of a book by a fleet, from a moment on until a node of them falls silent.

    ``heard_at_s`` is when the node that was silent for the longest time was heard.
    """

    fleet: Fleet
    from_s: float
    heard_at_s: float
    shelves: dict[str, Shelf]
    donated: int
    free: int


class Supply:
    """The devices that leases may have, as a step has left them so far.

    Args:
        change: the step.
    """

    def __init__(self, change: Change) -> None:
        self._change = change
        shelved = _shelves(change)
        self.shelves = shelved.shelves
        donated, free = shelved.donated, shelved.free
        held_for = change.hold
        self.kept = held_for if held_for is not None and held_for.hold.key in change.queue.line else None
        headroom = change.law.lend.headroom_devices
        self.free = max(0, free - headroom)
        self.reserve = self._reserve(max(0, donated - headroom))
        self.deficits = self.reserve.deficits
        """Devices that classes lack of their reserves."""
        self._here = donated
        self._widest: int | None = None
        self._lately: Mapping[str, int] | None = None
        self._caps: dict[tuple[str, int], OverCap | None] = {}

    def keep(self, hold: NodeHold | None) -> None:
        """Note that a node is kept for a request, or none."""
        self.kept, self._widest = hold, None

    def give(self, request: LeaseRequest, devices: tuple[DeviceRef, ...]) -> None:
        """Note that free devices were offered."""
        self.free -= len(devices)
        self.reserve = self.reserve.after(self.drawing_on(request), len(devices), instant=request.instant)
        self.deficits = self.reserve.deficits
        self._caps.clear()
        self._widest = self._lately = None
        shelf = self.shelves[devices[0].node]
        left = [one for one in shelf.free if one.ref not in devices]
        self.shelves = {**self.shelves, shelf.node: Shelf(shelf.node, shelf.lent, left)}

    def over_cap(self, waiting: Waiting[Wish]) -> OverCap | None:
        """Return which share cap a request would exceed, or makes an older one of its account exceed.

        Without the latter, an account's narrow requests would keep it from ever being served a wide one. All
        of one account and width exceed the same.
        """
        standing = self._change.law.standing
        if standing is None:
            return None
        alike = (waiting.account, waiting.devices)
        try:
            return self._caps[alike]
        except KeyError:
            over = self._over(standing, *alike)
            self._caps[alike] = over = over if over is not None else self._older_over(standing, waiting)
            return over

    def _over(self, standing: Standing, account: str, devices: int) -> OverCap | None:
        held = self._change.held
        # As if all was given lately, which is the most: whoever is below its cap then is so anyway.
        if over_cap(standing, account, devices, held, held, self._here) is None:
            return None
        return over_cap(standing, account, devices, held, self._given_lately(), self._here)

    def _older_over(self, standing: Standing, waiting: Waiting[Wish]) -> OverCap | None:
        """Return the cap that the account's oldest request exceeds, if that is wider and has aged."""
        oldest = next(iter(self._change.queue.line.accounts.get(waiting.account, ())), None)
        if oldest is None or oldest.devices <= waiting.devices:
            return None
        if self._change.now_s - oldest.wish.since_s < standing.policy.caps.max_wait_s:
            return None
        over = self._over(standing, oldest.account, oldest.devices)
        return None if over is None else replace(over, older=oldest.devices)

    def _given_lately(self) -> Mapping[str, int]:
        """Return by account, and path above it, the devices of which other donors may not know yet."""
        if self._lately is None:
            change = self._change
            since_s = change.now_s - UNHEARD_S
            fresh = [one for one in change.leases.values() if one.granted_at_s > since_s]
            if len(fresh) == len(change.leases):
                self._lately = change.held
            else:
                both: Iterable[Lease | Offer] = chain(fresh, change.offers.values())
                self._lately = holdings_of([(account_of(one.request), len(one.devices)) for one in both])
        return self._lately

    def drawing_on(self, request: LeaseRequest) -> str | None:
        """Return the class on whose reserve a request draws."""
        policy = self._change.law.policy
        return None if policy is None or not request.classes else reserve_class(policy, request.classes)

    def privilege(self, request: LeaseRequest) -> int:
        """Return what of the kept devices a request may have: 2 its reserve, 1 idle reserve, 0 none."""
        return 2 if self.drawing_on(request) in self.deficits else int(request.instant)

    def admits(self, request: LeaseRequest) -> bool:
        """Whether what is reserved for others leaves enough."""
        if not self.deficits:
            return request.devices <= self.free
        return self.reserve.admits(self.drawing_on(request), request.devices, instant=request.instant)

    def shelves_for(self, request: LeaseRequest) -> Iterator[Shelf]:
        """Yield the nodes that a request may go to."""
        if request.node is None:
            yield from self.shelves.values()
        elif request.node in self.shelves:
            yield self.shelves[request.node]

    def has_free(self, request: LeaseRequest) -> bool:
        """Whether enough devices that would do are free, whoever they are kept for."""
        return request.devices <= self.free and any(
            _count(request, shelf.free) >= request.devices for shelf in self.shelves_for(request)
        )

    def may_fit(self, waiting: Waiting[Wish]) -> bool:
        """Whether a node may have enough free devices that are kept for nobody else, at little cost."""
        devices = waiting.devices
        if devices > self.free:
            return False
        kept = self.kept
        if self._widest is None:
            node = kept.node if kept is not None and kept.hold.in_force(self._change.now_s) else None
            self._widest = max(
                (len(one.free) for one in self.shelves.values() if one.node != node), default=0
            )
        if devices <= self._widest:
            return True
        shelf = None if kept is None else self.shelves.get(kept.node)
        return shelf is not None and devices <= len(shelf.free) and not self._is_kept(waiting, shelf.node)

    def choose(self, waiting: Waiting[Wish]) -> tuple[Candidate, ...]:
        """Return the free devices to give, all of one node; nothing: there are not enough."""
        request = waiting.wish.request
        if request.devices > self.free:
            return ()
        usable: list[Candidate] = []
        for shelf in self.shelves_for(request):
            if len(shelf.free) >= request.devices and not self._is_kept(waiting, shelf.node):
                found = [one for one in shelf.free if fits(request, one.device)]
                usable += found if len(found) >= request.devices else ()
        while usable:
            best = choose(request, usable)
            assert best is not None
            group = [one for one in usable if _together(one, best)]
            if len(group) >= request.devices and self._allowed(request, best):
                rest = sorted((one for one in group if one is not best), key=lambda one: one.ref)
                return (best, *rest[: request.devices - 1])
            usable = [one for one in usable if not _together(one, best)]
        return ()

    def soonest(self, request: LeaseRequest) -> tuple[float, str] | None:
        """Return when a node has enough devices that would do, and which node; ``None``: none ever has."""
        found = []
        for shelf in self.shelves_for(request):
            free_s = sorted(self._free_s(one.ref) for one in shelf.lent if fits(request, one.device))
            if len(free_s) >= request.devices:
                found.append((free_s[request.devices - 1], shelf.node))
        return min(found, default=None)

    def _free_s(self, device: DeviceRef) -> float:
        """Return when a device is free at the latest, as far as is known."""
        change = self._change
        holder = change.awaited.get(device) or change.taken.get(device)
        if holder is None or holder in change.stopping:
            return change.now_s
        lease = change.leases.get(holder)
        if lease is not None and lease.state is not LeaseState.WAITING:
            return lease.granted_at_s + lease.terms.max_duration_s
        held = lease or change.offers[holder]
        return change.now_s + OFFER_TTL_S + held.terms.max_duration_s

    def _allowed(self, request: LeaseRequest, one: Candidate) -> bool:
        law = self._change.law
        if law.policy is None or not law.policy.deny:
            return True
        return denied(request, law, self._change.now_s, one.device.device_class) is None

    def keeps_for(self, waiting: Waiting[Wish]) -> bool:
        """Whether devices that come free are kept for a request."""
        kept = self.kept
        return kept is not None and kept.hold.key == waiting.key and kept.hold.in_force(self._change.now_s)

    def _is_kept(self, waiting: Waiting[Wish], node: str) -> bool:
        """Whether a node's free devices are kept for somebody else than a request."""
        kept = self.kept
        if kept is None or kept.node != node:
            return False
        duration_s = waiting.wish.request.duration_s
        return not may_backfill(kept.hold, waiting.key, duration_s, self._change.now_s)

    def _reserve(self, donated: int) -> Reserve:
        change = self._change
        policy = change.law.policy
        floors = {} if policy is None else floors_of(policy, donated)
        if not floors:
            return Reserve(free=self.free)
        held: dict[str, int] = {}
        instant = 0
        names: dict[tuple[str, ...], str | None] = {}
        everything: Iterable[Lease | Offer] = chain(change.leases.values(), change.offers.values())
        for one in everything:
            classes = one.request.classes
            if classes and classes not in names:
                names[classes] = self.drawing_on(one.request)
            name = names[classes] if classes else None
            if name is not None:
                held[name] = held.get(name, 0) + len(one.devices)
            elif one.terms.instant and self.is_lent(one):
                instant += len(one.devices)
        return Reserve(floors, held, self.free, instant)

    def is_lent(self, one: Lease | Offer) -> bool:
        """Whether an instant lease, or its offer, gives its devices up as soon as a class needs them."""
        if not one.terms.instant or self.drawing_on(one.request) is not None:
            return False
        return isinstance(one, Offer) or lets_go(self._change, one.id)


def _shelves(change: Change) -> _Shelved:
    """Return the shelves by node; as long as the step has left the book alone, those of the book before it.

    They follow from the fleet, who has which device, and which nodes are silent.
    """
    known = change.shelved
    if known is not None:
        for one in known:
            if (
                isinstance(one, _Shelved)
                and one.fleet is change.fleet
                and one.from_s <= change.now_s
                and change.now_s - one.heard_at_s <= NODE_SILENCE_S
            ):
                return one
    found = _looked_through(change)
    if known is not None:
        known[:] = [found]
    return found


def _looked_through(change: Change) -> _Shelved:
    taken, awaited = change.taken, change.awaited
    shelves = {}
    heard_at_s = math.inf
    for node, heard in change.fleet.nodes.items():
        if not heard.lent or heard.silent(change.now_s):
            continue
        heard_at_s = min(heard_at_s, heard.heard_at_s)
        found: list[Candidate] = []
        if all(one in change.stopping for one in heard.strays):  # else nobody knows on which it runs
            if awaited:
                found = [one for one in heard.lent if one.ref not in taken and one.ref not in awaited]
            else:
                found = [one for one in heard.lent if one.ref not in taken]
        shelves[node] = Shelf(node, heard.lent, found)
    # What was silent stays so until it is heard, which makes another fleet.
    donated = sum(len(one.lent) for one in shelves.values())
    free = sum(len(one.free) for one in shelves.values())
    return _Shelved(change.fleet, change.now_s, heard_at_s, shelves, donated, free)


def lets_go(change: Change, lease_id: str) -> bool:
    """Whether a lease may still be told to make room: it runs, and nobody is to have its devices next."""
    lease = change.leases.get(lease_id)
    return (
        lease is not None
        and lease.state is not LeaseState.WAITING
        and lease.notice_deadline_s is None
        and not any(device in change.awaited for device in lease.devices)
    )


def _count(request: LeaseRequest, candidates: Iterable[Candidate]) -> int:
    return sum(fits(request, one.device) for one in candidates)


def _together(one: Candidate, other: Candidate) -> bool:
    """Whether one lease may have both: they are of one node and one class."""
    return one.report is other.report and one.device.device_class == other.device.device_class
