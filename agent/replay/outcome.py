"""What happened in a replay: each guest job, each stay on a donor's devices, each wait of an owner's job.

These are filled while a replay runs and read when it is over. What is still open at the end of the span is
cut there: a job that has not started has waited at least until then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.replay.world import DonorSpec


@dataclass(slots=True)
class GuestJob:
    """One job that asked the federation.

    Args:
        account: who is charged.
        institution: the first name of the account.
        site: who asked.
        account_class: as the trace says; empty: none.
        submit_s: when it was asked for.
        devices: how many.
        wanted_s: how long it is to run, without its starts.
        started_s: when it served first; ``None``: it never did.
        ended_s: when it was done.
        saved_s: work that is kept.
        saved_s: what is done for good.
        refused: by code why nobody lends; empty: somebody did, or it waits.
        given_up_s: when its borrower waited no more; ``None``: it never gave it up.
        stays: how many leases it had.
    """

    account: str
    institution: str
    site: str
    account_class: str
    submit_s: float
    devices: int
    wanted_s: float
    started_s: float | None = None
    ended_s: float | None = None
    saved_s: float = 0.0
    refused: str = ""
    given_up_s: float | None = None
    stays: int = 0


@dataclass(frozen=True, slots=True)
class Stay:
    """One lease, from grant to end; device-seconds are seconds times ``devices``.

    Args:
        account: who is charged.
        borrower: its institution.
        donor: whose devices.
        devices: how many.
        granted_s, ended_s: from when to when its devices were not free.
        useful_s: work that was kept.
        lost_s: work that was not, since the lease ended before it was saved.
        evicted: the donor ended it.
    """

    account: str
    borrower: str
    donor: str
    devices: int
    granted_s: float
    ended_s: float
    useful_s: float
    lost_s: float
    evicted: bool

    @property
    def held_s(self) -> float:
        """How long its devices were not free."""
        return self.ended_s - self.granted_s

    @property
    def starting_s(self) -> float:
        """What of that was neither kept nor lost work: starting, and being handed back."""
        return max(0.0, self.held_s - self.useful_s - self.lost_s)


@dataclass(slots=True)
class OwnJobs:
    """The owner's side of one site.

    Args:
        waits_s: of its own jobs that have started, in order of submission.
        alone_s: what the same jobs would have waited without guests.
        reclaims_s: how long each taking back of devices from guests took.
        busy_s: device-seconds of its own jobs within the span.
        too_wide: its own jobs that need more devices than it has.
    """

    waits_s: list[float] = field(default_factory=list)
    alone_s: list[float] = field(default_factory=list)
    reclaims_s: list[float] = field(default_factory=list)
    busy_s: float = 0.0
    too_wide: int = 0


@dataclass(slots=True)
class Outcome:
    """All that a replay leaves behind.

    Args:
        span_s: how long it lasted.
        donors: who lent.
        own: by site.
        guests: in order of submission.
        stays: in order of their ends.
        steps: events that the decision core was given.
        preempted: leases that were ended for another guest.
    """

    span_s: float
    donors: tuple[DonorSpec, ...]
    own: dict[str, OwnJobs] = field(default_factory=dict)
    guests: list[GuestJob] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    steps: int = 0
    preempted: int = 0
