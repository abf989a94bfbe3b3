"""A consortium's policy as the values that decisions read; ``federation.policy.file`` has its YAML form.

Rules: integers all through, since agents must agree bit for bit: shares are weights, ratios are per mille,
times are whole seconds, charges are milli standard-GPU-seconds. A value here is valid: whoever makes one has
checked it. ``Where`` points into the file that it was read from, so that a decision can name its line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

PER_MILLE: Final = 1000
ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a policy file: its name for people, line and column from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class AccountRule:
    """One node of the account tree.

    Args:
        path: ``/institution``, ``/institution/group`` or ``/institution/group/project``.
        weight: its share among its siblings, at least 1.
        classes: classes that somebody attests it to be in; those of its parents count for it as well.
        sites: the sites whose requests may name it; children inherit. By default the institution's own; an
            institution without a site is *sponsored* by the sites that stand here.
        attested_by: by class, who attests it.
        open: whether accounts below it that the file does not name exist, with weight 1.
        where: its place in the file.
    """

    path: str
    weight: int
    classes: tuple[str, ...]
    sites: tuple[str, ...]
    attested_by: Mapping[str, str]
    open: bool
    where: Where | None = None


@dataclass(frozen=True, slots=True)
class ClassRule:
    """A class of accounts with a reserve.

    Args:
        name: such as ``student``, ``newcomer``, ``under-resourced``.
        reserve_permille: of each donor's devices; idle reserve is lent to instant leases only. 0: no reserve.
        attesters: who may say that an account is in the class: names of sites, or ``consortium``.
        until_msgs: an account leaves the class when it has used this much in all; ``None``: never by use.
        until_s: the class ends for everybody then (Unix time); ``None``: never by date.
    """

    name: str
    reserve_permille: int
    attesters: tuple[str, ...]
    until_msgs: int | None = None
    until_s: int | None = None
    where: Where | None = None


@dataclass(frozen=True, slots=True)
class PurposeRule:
    """A purpose that a lease may have.

    Args:
        factor_permille: multiplies the charge; 500 to 2000.
        claimants: account paths that may claim it for themselves and whatever is below; ``*``: anyone.
    """

    name: str
    factor_permille: int
    claimants: tuple[str, ...]
    where: Where | None = None


@dataclass(frozen=True, slots=True)
class Decay:
    """How use is forgotten: half after ``half_life_s``, all after ``window_half_lives`` of these."""

    half_life_s: int = 7 * 86400
    window_half_lives: int = 10


@dataclass(frozen=True, slots=True)
class Caps:
    """Bounds on what one account may hold, and on how long anyone is kept waiting.

    Args:
        over_share_permille: an account holds at most this times its share of the federation's donated devices
            while another would fit.
        wide_hold_s: devices idle so long in all while their node is kept for a wide head of the line.
        max_wait_s: after it a request goes first in its account, whose factor is doubled per further one.
        max_age_factor: the most that aging multiplies by; a power of two.
        preempt_every_s: a lease is preempted for another guest at most once in this time; 0: never.
        max_devices: devices of one lease.
        max_requests: requests that one account may have in one donor's queue.
        reserved_wait_s: the promise to classes with a reserve: a request within it waits at most this long.
        reserve_from: a donor with fewer donated devices reserves nothing: its devices would not go round.
    """

    over_share_permille: int = 2000
    wide_hold_s: int = 3600
    max_wait_s: int = 4 * 3600
    max_age_factor: int = 16
    preempt_every_s: int = 3600
    max_devices: int = 8
    max_requests: int = 100
    reserved_wait_s: int = 30
    reserve_from: int = 1


@dataclass(frozen=True, slots=True)
class Lend:
    """On which terms a donor lends. A donor's overlay makes it stricter.

    Args:
        grace_s: between notice and kill of an inference lease when the owner needs the device.
        batch_grace_s: the same for batch leases, which come later; every lease of today is one of inference.
        instant_grace_s: the same for instant leases, which idle reserve is lent to.
        min_runtime_s: what a guest may count on from other guests; the owner is not bound by it.
        max_duration_s: of one lease, renewals and all.
        to: account paths that it lends to; ``*``: anyone.
        headroom_devices: donated devices that are kept free.
        hours: spans such as ``mon-fri 20:00-06:00`` or ``08:00-12:00``, in the site's time; empty: always.
    """

    grace_s: int = 10
    batch_grace_s: int = 120
    instant_grace_s: int = 5
    min_runtime_s: int = 900
    max_duration_s: int = 7 * 86400
    to: tuple[str, ...] = (ANY,)
    headroom_devices: int = 0
    hours: tuple[str, ...] = ()
    where: Where | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A typed match: every field that is not empty must hold. There is no expression language.

    ``accounts`` are paths that match what is below them too; ``models`` are ``SITE/NAME``, or ``SITE/*``;
    sizes are of the image in memory.
    """

    accounts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    device_classes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    publishers: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    hours: tuple[str, ...] = ()
    larger_than_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class DenyRule:
    """What matches is refused, by id."""

    id: str
    match: Match
    reason: str
    where: Where | None = None


@dataclass(frozen=True, slots=True)
class ModelRule:
    """Which models may run. Empty fields allow all; ``only_at`` and ``only_for`` bind what ``match`` names.

    Args:
        match: which models this speaks of; only its model fields are used.
        only_at: donors at which they may run; empty: anywhere.
        only_for: accounts that may run them; empty: anyone.
    """

    id: str
    match: Match
    only_at: tuple[str, ...] = ()
    only_for: tuple[str, ...] = ()
    where: Where | None = None


@dataclass(frozen=True, slots=True)
class Models:
    """What may run at all, and what only for some."""

    publishers: tuple[str, ...] = (ANY,)
    licences: tuple[str, ...] = (ANY,)
    max_bytes: int | None = None
    rules: tuple[ModelRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Data:
    """Bounds on bytes that leave a site.

    Args:
        egress_bytes_per_day: of one site as a source, to other sites; ``None``: no bound.
        source_bytes_per_s: the pace of one site as a source, all transfers together; ``None``: no bound.
        regions: images stay in sites of these regions; empty: anywhere.
    """

    egress_bytes_per_day: int | None = None
    source_bytes_per_s: int | None = None
    regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Carbon:
    """How much the carbon intensity of a donor's power counts when offers are ranked; never a gate.

    ``weight_permille`` 0: not at all; 1000: a gram per kWh counts like a millisecond of waiting.
    """

    weight_permille: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """One version of a consortium's policy, checked.

    Args:
        name: the consortium's.
        version: rises with each change.
        effective_at_s: every agent goes over to it at this Unix time, a multiple of the epoch.
        digest: SHA-256 of the file's bytes, hex; each decision records it.
        accounts: by path.
        device_classes: rho of each class of devices, per mille of the standard GPU.
        idle_discount_permille: what use is charged while the federation had idle devices of the class.
        notice_s: a later version is published at least this long before it counts.
        overlay_digest: SHA-256 of the donor's overlay that restricts it; empty: none does.
        places: where a part of the file stands, by its dotted name, such as ``models.publishers``.
    """

    name: str
    version: int
    effective_at_s: int
    digest: str
    accounts: Mapping[str, AccountRule]
    classes: Mapping[str, ClassRule]
    purposes: Mapping[str, PurposeRule]
    device_classes: Mapping[str, int]
    idle_discount_permille: int = 500
    decay: Decay = field(default_factory=Decay)
    caps: Caps = field(default_factory=Caps)
    lend: Lend = field(default_factory=Lend)
    models: Models = field(default_factory=Models)
    data: Data = field(default_factory=Data)
    carbon: Carbon = field(default_factory=Carbon)
    deny: tuple[DenyRule, ...] = ()
    notice_s: int = 86400
    overlay_digest: str = ""
    places: Mapping[str, Where] = field(default_factory=dict)
