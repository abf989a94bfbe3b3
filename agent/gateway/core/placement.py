"""Which device of a donor, and which donor of a borrower. Pure, and the same on every machine.

Both rankings end with names, so that equal input gives an equal answer whatever its order. Figures that other
sites name only order the list; one that is no number counts as the worst, it does not stop the ranking.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from agent.gateway.core.fleet import Candidate, DeviceRef, NodeReport
from agent.gateway.core.request import LeaseRequest
from federation.policy.policy import PER_MILLE


def choose(request: LeaseRequest, free: Sequence[Candidate]) -> Candidate | None:
    """Return the device to give: image there, then a spare runner ready, then most memory, then by name.

    "There" means whole in the memory of the device's node. A device is lent whole, so all memory of a free
    one is free.
    """
    best: Candidate | None = None
    least: tuple[bool, bool, int, DeviceRef] | None = None
    report: NodeReport | None = None
    cold = busy = False
    for one in free:
        if one.report is not report:
            report = one.report
            cold, busy = not report.holds(request.image_id), report.spares_ready <= 0
        mine = (cold, busy, -one.device.memory_bytes, one.ref)
        if least is None or mine < least:
            best, least = one, mine
    return best


@dataclass(frozen=True, slots=True)
class ReceivedOffer:
    """A donor's offer as the borrower has it.

    Args:
        site: the donor.
        offer_id: the donor's id of it.
        node: where the lease would run.
        warm: whether the image is whole in that node's memory.
        bytes_to_move: what that node lacks of the image.
        bytes_per_s: the pace at which it is expected to come there, measured; 0 when nobody knows.
        starts_in_s: when other guests will have left the devices.
        egress_left_permille: how much that site may still send today of what it may in a day.
        waiting: requests in that site's queue.
    """

    site: str
    offer_id: str
    node: str
    warm: bool
    bytes_to_move: int
    bytes_per_s: float
    starts_in_s: float = 0.0
    egress_left_permille: int = PER_MILLE
    waiting: int = 0

    @property
    def seconds_to_move(self) -> float:
        """How long the image takes to come; endless when nobody knows its pace."""
        if self.warm or self.bytes_to_move <= 0:
            return 0.0
        pace = self.bytes_per_s
        return self.bytes_to_move / pace if math.isfinite(pace) and pace > 0 else math.inf

    @property
    def ready_in_s(self) -> float:
        """When the model could begin to start there; endless when nobody knows."""
        starts_in_s = self.starts_in_s
        if not math.isfinite(starts_in_s):
            return math.inf
        return self.seconds_to_move + max(0.0, starts_in_s)


@dataclass(frozen=True, slots=True)
class CarbonPreference:
    """How much carbon counts among offers.

    Args:
        weight_permille: of the policy; at 1000 a gram per kWh counts like a millisecond of waiting.
        grams: per kWh at present, by site; a site without a figure counts like the mean of the others.
    """

    weight_permille: int = 0
    grams: Mapping[str, int] = field(default_factory=dict)

    def waiting_s(self, sites: Collection[str]) -> dict[str, float]:
        """Return what each site's carbon counts, in seconds of waiting."""
        known = [self.grams[site] for site in sites if site in self.grams]
        mean = sum(known) / len(known) if known else 0.0
        return {site: self.weight_permille * self.grams.get(site, mean) / 1_000_000 for site in sites}


def rank_offers(
    offers: Sequence[ReceivedOffer], own_site: str, carbon: CarbonPreference | None = None
) -> tuple[ReceivedOffer, ...]:
    """Return offers, best first, by the weights that are published in docs/operator.md.

    Warm; of the own site; whole seconds until the model could begin to start, with what carbon counts; tenths
    of its day's egress that the site has left; carbon; requests waiting there; names. Carbon is a preference:
    it counts as some seconds of waiting, and decides where nobody knows the pace.
    """
    costs_s = (carbon or CarbonPreference()).waiting_s({one.site for one in offers})
    return tuple(
        sorted(
            offers,
            key=lambda one: (
                not one.warm,
                one.site != own_site,
                _whole(one.ready_in_s + costs_s[one.site]),
                -(max(0, min(PER_MILLE, one.egress_left_permille)) * 10 // PER_MILLE),
                costs_s[one.site],
                one.waiting,
                one.site,
                one.node,
                one.offer_id,
            ),
        )
    )


def _whole(seconds: float) -> float:
    """Less than a second is no difference: what comes after it decides."""
    return float(math.floor(seconds)) if math.isfinite(seconds) else math.inf
