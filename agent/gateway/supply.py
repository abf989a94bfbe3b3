"""What a donor has to give at one moment: its free devices, and what of them is kept for whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent.gateway.admission import denied, fits
from agent.gateway.book import Lease, LeaseState, Offer
from agent.gateway.change import Change
from agent.gateway.fleet import DeviceRef, NodeReport
from agent.gateway.placement import Candidate, choose
from agent.gateway.queue import Wish
from agent.gateway.request import LeaseRequest
from federation.fairshare.caps import may_backfill
from federation.fairshare.line import Waiting
from federation.fairshare.reserve import Reserve, floors_of, reserve_class


@dataclass(frozen=True, slots=True)
class Spot:
    """A lent device of a node that is there, and whether anybody has it or is to have it next."""

    candidate: Candidate
    free: bool


class Supply:
    """The devices that leases may have, as a step has left them so far.

    Args:
        change: the step.
    """

    def __init__(self, change: Change) -> None:
        self._change = change
        self.spots: dict[str, list[Spot]] = {}
        donated = free = 0
        for report in change.fleet.present(change.now_s):
            if not report.donating or change.law.drained(report.node) is not None:
                continue
            strange = any(one not in change.stopping for one in _strays(change, report))
            spots = []
            for device in report.devices:
                if device.state == "lent":
                    candidate = Candidate(report, device)
                    ref = candidate.ref
                    spot = Spot(
                        candidate, not strange and ref not in change.taken and ref not in change.awaited
                    )
                    spots.append(spot)
                    free += spot.free
            donated += len(spots)
            self.spots[report.node] = spots
        held_for = change.hold
        self.kept = held_for if held_for is not None and held_for.hold.key in change.queue.line else None
        headroom = change.law.lend.headroom_devices
        self.free = max(0, free - headroom)
        self.reserve = self._reserve(max(0, donated - headroom))

    @property
    def deficits(self) -> dict[str, int]:
        """Devices that classes lack of their reserves."""
        return self.reserve.deficits

    def give(self, request: LeaseRequest, devices: tuple[DeviceRef, ...]) -> None:
        """Note that free devices were offered."""
        self.free -= len(devices)
        self.reserve = self.reserve.after(self.drawing_on(request), len(devices), instant=request.instant)
        node = devices[0].node
        self.spots[node] = [
            Spot(one.candidate, one.free and one.candidate.ref not in devices) for one in self.spots[node]
        ]

    def drawing_on(self, request: LeaseRequest) -> str | None:
        """Return the class on whose reserve a request draws."""
        policy = self._change.law.policy
        return None if policy is None or not request.classes else reserve_class(policy, request.classes)

    def admits(self, request: LeaseRequest) -> bool:
        """Whether what is reserved for others leaves enough."""
        return self.reserve.admits(self.drawing_on(request), request.devices, instant=request.instant)

    def matching(self, request: LeaseRequest) -> Iterator[tuple[NodeReport, list[Spot]]]:
        """Yield the nodes that may serve a request, with their devices that would do."""
        for node, spots in self.spots.items():
            if request.node in (None, node):
                found = [one for one in spots if fits(request, one.candidate.device)]
                if len(found) >= request.devices:
                    yield found[0].candidate.report, found

    def has_free(self, request: LeaseRequest) -> bool:
        """Whether enough devices that would do are free, whoever they are kept for."""
        return request.devices <= self.free and any(
            sum(one.free for one in spots) >= request.devices for _, spots in self.matching(request)
        )

    def choose(self, waiting: Waiting[Wish]) -> tuple[Candidate, ...]:
        """Return the free devices to give, all of one node; nothing: there are not enough."""
        request = waiting.wish.request
        if request.devices > self.free:
            return ()
        usable = []
        for report, spots in self.matching(request):
            free = [one.candidate for one in spots if one.free]
            if len(free) >= request.devices and not self._kept(waiting, report.node):
                usable += free
        while usable:
            best = choose(request, usable)
            assert best is not None
            if denied(request, self._change.law, self._change.now_s, best.device.device_class) is not None:
                usable = [one for one in usable if one.device.device_class != best.device.device_class]
                continue
            return self._beside(best, usable, request.devices)
        return ()

    def _beside(self, best: Candidate, usable: Iterable[Candidate], count: int) -> tuple[Candidate, ...]:
        others = [
            one
            for one in usable
            if one.report.node == best.report.node and one.device.device_class == best.device.device_class
        ]
        if len(others) < count:
            return ()
        rest = sorted((one for one in others if one is not best), key=lambda one: one.ref)
        return (best, *rest[: count - 1])

    def _kept(self, waiting: Waiting[Wish], node: str) -> bool:
        """Whether a node's free devices are kept for somebody else than a request."""
        kept = self.kept
        if kept is None or kept.node != node:
            return False
        return not may_backfill(kept.hold, waiting.key, waiting.wish.request.duration_s, self._change.now_s)

    def _reserve(self, donated: int) -> Reserve:
        change = self._change
        policy = change.law.policy
        if policy is None:
            return Reserve(free=self.free)
        floors = floors_of(policy, donated)
        held: dict[str, int] = {}
        instant = 0
        if floors:
            everything: tuple[Lease | Offer, ...] = (*change.leases.values(), *change.offers.values())
            for one in everything:
                name = self.drawing_on(one.request)
                if name is not None:
                    held[name] = held.get(name, 0) + len(one.devices)
                elif one.terms.instant and lets_go(change, one.id):
                    instant += len(one.devices)
        return Reserve(floors, held, self.free, instant)


def lets_go(change: Change, lease_id: str) -> bool:
    """Whether a lease may still be told to make room: it runs, and nobody is to have its devices next."""
    lease = change.leases.get(lease_id)
    return (
        lease is not None
        and lease.state is not LeaseState.WAITING
        and lease.notice_deadline_s is None
        and not any(device in change.awaited for device in lease.devices)
    )


def _strays(change: Change, report: NodeReport) -> Iterator[str]:
    for one in report.leases:
        lease = change.leases.get(one)
        if lease is None or lease.device.node != report.node:
            yield one
