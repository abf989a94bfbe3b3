"""Which device of a donor, and which donor of a borrower. Pure, and the same on every machine.

Both rankings end with names, so that equal input gives an equal answer whatever its order. Figures that other
sites name only order the list; one that is no number counts as the worst, it does not stop the ranking.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from agent.gateway.fleet import Candidate
from agent.gateway.request import LeaseRequest


def choose(request: LeaseRequest, free: Sequence[Candidate]) -> Candidate | None:
    """Return the device to give: image there, then a spare runner ready, then most memory, then by name.

    "There" means whole in the memory of the device's node. A device is lent whole, so all memory of a free
    one is free.
    """
    return min(
        free,
        key=lambda one: (
            not one.report.holds(request.image_id),
            one.report.spares_ready <= 0,
            -one.device.memory_bytes,
            one.ref,
        ),
        default=None,
    )


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
    """

    site: str
    offer_id: str
    node: str
    warm: bool
    bytes_to_move: int
    bytes_per_s: float

    @property
    def seconds_to_move(self) -> float:
        """How long the image takes to come; endless when nobody knows its pace."""
        if self.warm or self.bytes_to_move <= 0:
            return 0.0
        pace = self.bytes_per_s
        return self.bytes_to_move / pace if math.isfinite(pace) and pace > 0 else math.inf


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
    """Return offers, best first: warm, then of the own site, then soonest there, then by name.

    Carbon is a preference: it counts as some seconds of waiting, and decides where nobody knows the pace.
    """
    costs_s = (carbon or CarbonPreference()).waiting_s({one.site for one in offers})
    return tuple(
        sorted(
            offers,
            key=lambda one: (
                not one.warm,
                one.site != own_site,
                one.seconds_to_move + costs_s[one.site],
                costs_s[one.site],
                one.site,
                one.node,
                one.offer_id,
            ),
        )
    )
