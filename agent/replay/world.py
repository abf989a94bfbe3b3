"""What a trace is replayed on: donors and their devices, what a start costs, how late the books are.

Values only. Times are seconds of the trace; everything that the trace does not say stands here, with what it
is when nobody says otherwise, so that two replays differ in what was meant to differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.errors import RequestError
from agent.limits import MAX_DONORS_ASKED, MAX_REPLAY_DEVICES, WIDEN_S
from agent.replay.trace import Job
from agent.text import parse_duration, printable

DEVICE_CLASS: Final = "gpu"
NODE_DEVICES: Final = 8
OWN_LOAD: Final = 0.6
"""Where nobody says how many devices a site has: as many as its own jobs keep busy to this part."""

_DONOR: Final = re.compile(r"([a-z0-9][a-z0-9-]{0,62})=([1-9]\d{0,5})(?:x([1-9]\d{0,3}))?")
_START: Final = re.compile(r"([a-z][a-z0-9-]{0,30})=(\S+)")


@dataclass(frozen=True, slots=True)
class DonorSpec:
    """A site that lends what its own jobs leave idle.

    Args:
        site: its name.
        devices: how many it has.
        per_node: on each of its nodes, the last one apart; a lease's devices are of one node.
    """

    site: str
    devices: int
    per_node: int = NODE_DEVICES

    def nodes(self) -> tuple[int, ...]:
        """Return the devices of each node."""
        whole, rest = divmod(self.devices, self.per_node)
        return (self.per_node,) * whole + ((rest,) if rest else ())


@dataclass(frozen=True, slots=True)
class StartCost:
    """How long a guest's devices are held before it serves, each time that it starts."""

    name: str
    seconds: float


WARM: Final = StartCost("warm", 1.5)


@dataclass(frozen=True, slots=True)
class Partition:
    """Between these times books pass only inside each group of sites; requests and leases go on."""

    from_s: float
    to_s: float
    groups: tuple[frozenset[str], ...]

    def parts(self, one: str, other: str, now_s: float) -> bool:
        """Whether two sites do not hear of each other's books."""
        if not self.from_s <= now_s < self.to_s:
            return False
        return not any(one in group and other in group for group in self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that a replay needs besides the trace and the policy.

    Args:
        donors: who lends.
        start: what a guest's start costs.
        lag_s: how old another donor's books are when they arrive.
        lags: later lags, as (from when on, lag), in order.
        sync_s: how often a donor takes over what has arrived, and looks at its line anew.
        receipt_s: how often a donor writes receipts of open leases; one more comes at each end.
        partitions: when books do not pass.
        partition_asks: whether a partition keeps requests from passing as well.
        detect_s: from a local job's submission until its node has seen it.
        hand_over_s: from a guest's kill until its devices' memory is known to be free.
        checkpoint_s: how often a guest's work is kept; what came after the last time is lost with its lease.
        donors_asked: how many donors a request is asked of at once, and as many more each ``widen_s``.
        widen_s: how long a request waits until then.
        patience_s: how long a job is waited for until it serves first; then its borrower gives it up.
        reach: by site, the donors that it may ask; a site that is not named may ask all.
    """

    donors: tuple[DonorSpec, ...]
    start: StartCost = WARM
    lag_s: float = 60.0
    lags: tuple[tuple[float, float], ...] = ()
    sync_s: float = 600.0
    receipt_s: float = 600.0
    partitions: tuple[Partition, ...] = ()
    partition_asks: bool = False
    detect_s: float = 2.0
    hand_over_s: float = 5.0
    checkpoint_s: float = 600.0
    donors_asked: int = MAX_DONORS_ASKED
    widen_s: float = WIDEN_S
    patience_s: float = math.inf
    reach: Mapping[str, frozenset[str]] = field(default_factory=dict)
    devices: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "devices", sum(one.devices for one in self.donors))

    def lag_at(self, now_s: float) -> float:
        """Return how old another donor's books are when they arrive at a moment."""
        return next((lag_s for from_s, lag_s in reversed(self.lags) if from_s <= now_s), self.lag_s)


def parse_donors(text: str) -> tuple[DonorSpec, ...]:
    """Return the donors that ``north=16,south=64x4`` names: devices, and devices of one node.

    Raises:
        RequestError: the text says something else, or too much.
    """
    donors = []
    for part in text.split(","):
        found = _DONOR.fullmatch(part.strip())
        if found is None:
            raise RequestError(
                f"'{printable(part, 60)}' is no donor.",
                fix="write SITE=DEVICES, or SITE=DEVICESxDEVICES-OF-A-NODE, separated by commas",
            )
        per_node = int(found[3]) if found[3] else min(NODE_DEVICES, int(found[2]))
        donors.append(DonorSpec(found[1], int(found[2]), per_node))
    return _checked(donors)


def parse_start(text: str) -> StartCost:
    """Return the start cost that ``disk=600s`` names.

    Raises:
        RequestError: the text says something else.
    """
    found = _START.fullmatch(text)
    if found is None:
        raise RequestError(
            f"'{printable(text, 60)}' is no start cost.", fix="write NAME=TIME, as in disk=600s"
        )
    return StartCost(found[1], parse_duration(found[2]))


def donors_of(jobs: Sequence[Job]) -> tuple[DonorSpec, ...]:
    """Return donors for a trace that comes without any: each site that has jobs of its own.

    A site gets as many devices as its own jobs keep busy to ``OWN_LOAD``, and at least as many as the widest
    of them needs.

    Raises:
        RequestError: the trace has no local job, or would need too many devices.
    """
    work: dict[str, float] = {}
    widest: dict[str, int] = {}
    for job in jobs:
        if job.local:
            work[job.site] = work.get(job.site, 0.0) + job.devices * job.duration_s
            widest[job.site] = max(widest.get(job.site, 0), job.devices)
    if not work:
        raise RequestError(
            "the trace has no local job, from which the devices of its sites could be guessed.",
            fix="say who lends how many devices: --donors SITE=DEVICES,...",
        )
    span_s = max(1.0, max(job.submit_s for job in jobs) - jobs[0].submit_s)
    sizes = {site: max(widest[site], math.ceil(work[site] / span_s / OWN_LOAD)) for site in sorted(work)}
    return _checked([DonorSpec(site, size, min(NODE_DEVICES, size)) for site, size in sizes.items()])


def _checked(donors: Sequence[DonorSpec]) -> tuple[DonorSpec, ...]:
    if len({one.site for one in donors}) < len(donors):
        raise RequestError("a donor is named twice.", fix="name each site once")
    if sum(one.devices for one in donors) > MAX_REPLAY_DEVICES:
        raise RequestError(
            f"the donors have more than {MAX_REPLAY_DEVICES} devices.", fix="name fewer, or a shorter trace"
        )
    return tuple(donors)
