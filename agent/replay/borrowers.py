"""Those who want devices in a replay: whom each guest job asks, which offer it takes, when it gives up.

A borrower takes the first offer, its own site's before others, and withdraws from all other donors in the
same moment. What a lease did not get done is asked for anew when it ends. Left out, since it decides nothing:
a borrower's asking again for a place that it has, or where its account still has as many as it may.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.errors import InternalError
from agent.gateway.core.book import Lease, Offer
from agent.gateway.core.events import Event, OfferAsked, OfferCommitted, Withdrawn
from agent.gateway.core.request import LeaseRequest, Refused
from agent.replay.agenda import Agenda
from agent.replay.books import WEEK_START_S
from agent.replay.donor import IMAGE_BYTES, DonorSite
from agent.replay.outcome import GuestJob
from agent.replay.trace import Job
from agent.replay.world import World

LEAST_S: Final = 1e-6
"""Work that is less than this is none."""
_IMAGE: Final = "0" * 64
_SLACK_S: Final = 60
"""What a borrower asks for past the work that it knows of."""


@dataclass(slots=True)
class _Asking:
    """A guest job that waits or runs, and the request that it has out.

    Args:
        job: from the trace.
        row: its row in the outcome.
        request: as it is asked now.
        number: of its requests so far.
        asked: the donors that it is out at.
        answers: by donor, why it will never serve it.
        again: a donor has no place for it at the moment.
        turned_away: the donors that had none before.
        taking: an offer is being committed.
        served: it has a lease by now.
    """

    job: Job
    row: GuestJob
    request: LeaseRequest
    number: int = 1
    asked: dict[str, DonorSite] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    again: bool = False
    turned_away: set[str] = field(default_factory=set)
    taking: bool = False
    served: bool = False


class Borrowers:
    """All guest jobs that are not done.

    Args:
        world: how donors are asked.
        donors: by name; filled by the time of the first job.
        agenda: virtual time.
        feed: gives a donor's core an event.
    """

    def __init__(
        self,
        world: World,
        donors: Mapping[str, DonorSite],
        agenda: Agenda,
        feed: Callable[[DonorSite, Event], None],
    ) -> None:
        self._world = world
        self._donors = donors
        self._agenda = agenda
        self._feed = feed
        self._askings: dict[str, _Asking] = {}
        self._jobs = 0

    def submit(self, job: Job, row: GuestJob) -> None:
        """Have a guest job asked for now."""
        self._jobs += 1
        asking = _Asking(job, row, self._request(job, f"{self._jobs:07}", job.duration_s))
        self._ask_anew(asking)
        if math.isfinite(self._world.patience_s):
            self._agenda.at(job.submit_s + self._world.patience_s, self._give_up, asking)

    def job_of(self, lease: Lease) -> Job:
        """Return the job that has a lease."""
        return self._askings[lease.request.id].job

    def offered(self, donor: DonorSite, offer: Offer) -> None:
        """Take an offer, if it is the first."""
        asking = self._askings.get(offer.request.id)
        now_s = self._agenda.now_s
        if asking is None or asking.taking or asking.served:
            self._feed(donor, Withdrawn(offer.request.id, offer.request.borrower_site, now_s))
            return
        asking.taking = True
        self._feed(donor, OfferCommitted(offer.id, offer.request.borrower_site, now_s))

    def granted(self, donor: DonorSite, lease: Lease) -> GuestJob | None:
        """Have a lease; return the row of its job, ``None`` if that needs none."""
        asking = self._askings.get(lease.request.id)
        if asking is None or asking.served:
            return None
        asking.served = True
        for site, other in asking.asked.items():
            if other is not donor and site not in asking.answers:
                now_s = self._agenda.now_s
                self._feed(other, Withdrawn(lease.request.id, lease.request.borrower_site, now_s))
        return asking.row

    def refused(self, donor: DonorSite, event: Event, refused: Refused) -> None:
        """Note a donor's refusal of what was asked.

        Raises:
            InternalError: it takes an offer back.
        """
        match event:
            case OfferAsked(request=request):
                asking = self._askings.get(request.id)
                if asking is not None and refused.terminal:
                    asking.answers[donor.site] = refused.code
                elif asking is not None:
                    del asking.asked[donor.site]  # it may serve later, and is asked again later
                    asking.turned_away.add(donor.site)
                    asking.again = True
            case OfferCommitted(offer_id=offer_id):
                raise InternalError(
                    f"{donor.site} takes back the offer {offer_id} before it is old: {refused.code}."
                )

    def ended(self, lease: Lease, left_s: float) -> None:
        """Ask anew for what a lease has not done, if anything is left."""
        asking = self._askings.pop(lease.request.id)
        if left_s > LEAST_S:
            asking.number += 1
            asking.request = self._request(asking.job, lease.request.id, left_s)
            self._ask_anew(asking)

    def _request(self, job: Job, name: str, left_s: float) -> LeaseRequest:
        return LeaseRequest(
            id=name,
            borrower_site=job.site,
            borrower_node=job.site,
            model="model",
            image_id=_IMAGE,
            total_bytes=IMAGE_BYTES,
            devices=job.devices,
            account=job.account,
            purpose=job.purpose,
            duration_s=math.ceil(left_s + self._world.start.seconds) + _SLACK_S,
            asked_at_s=WEEK_START_S + int(job.submit_s),
        )

    def _ask_anew(self, asking: _Asking) -> None:
        self._askings[asking.request.id] = asking
        asking.asked, asking.answers, asking.turned_away = {}, {}, set()
        asking.taking = asking.served = False
        self._agenda.at(self._agenda.now_s, self._ask_further, asking, asking.number)

    def _ask_further(self, asking: _Asking, number: int) -> None:
        """Ask as many more donors as a borrower asks at once; they answer in the same moment."""
        if asking.number != number or asking.served:
            return
        further = self._further(asking)
        for donor in further[: self._world.donors_asked]:
            if donor.site in asking.turned_away and not donor.has_place(asking.job.account):
                asking.again = True
                continue
            asking.asked[donor.site] = donor
            offer_id = f"{asking.request.id}-{asking.number}-{donor.site}"
            self._feed(donor, OfferAsked(asking.request, offer_id, self._agenda.now_s))
            if _is_served(asking):
                return
        if len(further) > self._world.donors_asked or asking.again or self._world.partitions:
            waits = asking.again or len(asking.answers) < len(asking.asked)
            asking.again = False
            later_s = self._world.widen_s if waits or not further else 0.0
            self._agenda.at(self._agenda.now_s + later_s, self._ask_further, asking, number)
        elif len(asking.answers) == len(asking.asked):
            asking.row.refused = next(iter(asking.answers.values()), "no-donor")
            del self._askings[asking.request.id]

    def _give_up(self, asking: _Asking) -> None:
        """Withdraw a job that has never served, and does not start now."""
        if asking.row.started_s is not None or asking.row.refused or asking.served:
            return
        asking.row.given_up_s = self._agenda.now_s
        asking.number += 1
        del self._askings[asking.request.id]
        for site, donor in asking.asked.items():
            if site not in asking.answers:
                name = asking.request.borrower_site
                self._feed(donor, Withdrawn(asking.request.id, name, self._agenda.now_s))

    def _further(self, asking: _Asking) -> list[DonorSite]:
        """Return the donors not asked yet: its own site, then those with most devices free, by name."""
        site, now_s = asking.job.site, self._agenda.now_s
        reach = self._world.reach.get(site)
        found = [
            donor
            for name, donor in self._donors.items()
            if name not in asking.asked and (reach is None or name in reach)
        ]
        if self._world.partition_asks:
            parted = self._world.partitions
            found = [one for one in found if not any(each.parts(site, one.site, now_s) for each in parted)]
        return sorted(found, key=lambda one: (one.site != site, -one.lent_free(), one.site))


def _is_served(asking: _Asking) -> bool:
    return asking.served  # asked anew after a call that may change it, which a type checker cannot know
