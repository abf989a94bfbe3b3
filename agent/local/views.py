"""What the local API shows: frozen values without protobuf, the same for daemon, client, CLI and TUI.

Image ids are 64 hexadecimal digits here, times are Unix times of the node, ``None`` means "not yet", "none".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class SourceView:
    """One source of a transfer."""

    name: str
    lane: str
    bytes: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class ProgressView:
    """How far a transfer is."""

    done_bytes: int
    total_bytes: int
    lane: str
    sources: tuple[SourceView, ...] = ()


@dataclass(frozen=True, slots=True)
class PhaseView:
    """One timed part of a start."""

    name: str
    seconds: float


AHEAD_PHASES: Final = ("import", "warm")
"""Phases of a spare runner that were over before there was a lease: no part of a start's seconds."""


@dataclass(frozen=True, slots=True)
class NoteView:
    """A sentence that the caller should see while the call goes on."""

    text: str


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One lane worker of the weight cache."""

    lane: str
    pid: int


@dataclass(frozen=True, slots=True)
class CacheView:
    """The weight cache; sizes are 0 while it is not up."""

    up: bool
    pid: int | None
    budget_bytes: int
    used_bytes: int
    faulted_bytes: int
    restarts: int
    last_fault: str
    workers: tuple[WorkerView, ...]


@dataclass(frozen=True, slots=True)
class SparesView:
    """The warm spare runners."""

    wanted: int
    ready: int
    pids: tuple[int, ...]
    last_fault: str


@dataclass(frozen=True, slots=True)
class PeerView:
    """One static peer, as it answered a moment ago."""

    address: str
    name: str
    reachable: bool
    fault: str


@dataclass(frozen=True, slots=True)
class StatusView:
    """One node at a glance."""

    name: str
    version: str
    uptime_s: float
    pid: int
    cache: CacheView
    spares: SparesView
    peers: tuple[PeerView, ...]
    leases: int
    state_fault: str
    donates: bool = True
    policy: PolicyView | None = None


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model that this node can start without asking anyone."""

    name: str
    image_id: str
    total_bytes: int
    folder: str
    published_at: float | None
    pieces: int
    verified_pieces: int
    attached: int
    origin: str


@dataclass(frozen=True, slots=True)
class LeaseView:
    """One lease, running or ended.

    ``donor`` is the ``SITE/NODE`` where it runs, ``borrower`` the one that uses it; empty: this node.
    ``account`` is charged; ``who`` is the user of this node (``uid:NUMBER``, ``token:NAME``) whose it is.
    """

    id: str
    model: str
    image_id: str
    state: str
    created_at: float
    ended_at: float | None
    reason: str
    port: int | None
    pid: int | None
    donor: str = ""
    borrower: str = ""
    account: str = ""
    who: str = ""


@dataclass(frozen=True, slots=True)
class TransferView:
    """One publication or pull since the agent started."""

    id: str
    model: str
    image_id: str
    kind: str
    state: str
    progress: ProgressView
    started_at: float
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class PublishedView:
    """The outcome of a publication."""

    name: str
    image_id: str
    total_bytes: int
    pieces: int
    tensors: int
    skipped: tuple[str, ...]
    replaced: str | None
    seconds: float
    licence: str = ""


@dataclass(frozen=True, slots=True)
class StartView:
    """One start, measured on its node from the committed lease on."""

    lane: str
    bytes: int
    pull_s: float
    verify_s: float
    ready_s: float
    verified: bool
    phases: tuple[PhaseView, ...]
    sources: tuple[SourceView, ...]


@dataclass(frozen=True, slots=True)
class ReasonView:
    """Why a request waits: a stable word, a sentence, and what would change it."""

    code: str
    sentence: str
    change: str = ""


@dataclass(frozen=True, slots=True)
class PlaceView:
    """A request's place in a donor's queue, from 1 of ``waiting``; ``eta_s``: 50th and 90th percentile."""

    position: int
    waiting: int
    reasons: tuple[ReasonView, ...]
    eta_s: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class WaitingView:
    """A request waits at a donor; the newest word of each donor counts."""

    site: str
    place: PlaceView


@dataclass(frozen=True, slots=True)
class AcceptedView:
    """A lease that its donor has committed; nothing of it has started yet."""

    lease_id: str
    ttl_s: float
    site: str
    node: str


@dataclass(frozen=True, slots=True)
class GrantedView:
    """A lease that answers, with the key that is shown only here."""

    lease: LeaseView
    endpoint: str
    api_key: str
    start: StartView


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device of a node as its gateway knows it.

    ``state`` is ``idle``, ``leased``, ``reclaiming`` or ``owned`` (by its owner), or ``off`` (not donated).
    """

    id: str
    kind: str
    memory_bytes: int
    state: str
    lease: str
    borrower: str


@dataclass(frozen=True, slots=True)
class GuestView:
    """A lease on a device of this node; ``held_s``: since it came, ``grace_s``: what it gets to end."""

    lease_id: str
    model: str
    borrower: str
    held_s: float
    grace_s: float


@dataclass(frozen=True, slots=True)
class OwnDeviceView:
    """A device of this node as its owner sees it.

    Args:
        memory_bytes: what is lent of its memory.
        state: ``lent``, ``reclaiming`` (its guests have notice), ``stopping``, ``verifying`` or ``owned``.
        wanted: why its owner has it, or takes it back.
        left_s: until its guests are killed, while it is reclaimed.
        donated: ``False``: its owner has withdrawn it.
        draining: leases on it go on, none starts.
        only_idle: it is lent only while no local process uses it.
        hours: it is lent in these spans only; none: always.
        headroom_bytes: of its memory, kept free of guests.
        doubt: why it is not lent again after a reclaim; empty: nothing.
        last_reclaim_s: how long the last reclaim took; ``None`` before the first.
    """

    id: str
    kind: str
    device_class: str
    memory_bytes: int
    state: str
    wanted: tuple[str, ...]
    left_s: float
    guests: tuple[GuestView, ...]
    donated: bool
    draining: bool
    only_idle: bool
    hours: tuple[str, ...]
    headroom_bytes: int
    doubt: str
    last_reclaim_s: float | None


@dataclass(frozen=True, slots=True)
class TakingView:
    """Devices that are being taken back for a command of their owner's, with the guests that have to go."""

    devices: tuple[OwnDeviceView, ...]


@dataclass(frozen=True, slots=True)
class HandedOverView:
    """Devices that are their owner's: ``gpus`` for CUDA; ``doubt``: what was not seen free, or nothing."""

    devices: tuple[str, ...]
    gpus: tuple[str, ...]
    seconds: float
    doubt: str


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node of this site: ``state`` is ``ready``, ``lost``, ``left`` or ``expected`` (not heard yet)."""

    name: str
    address: str
    role: str
    state: str
    age_s: float | None
    devices: tuple[DeviceView, ...]
    images: int
    transfer_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class SiteView:
    """One institution of the consortium, as its gateway said ``age_s`` ago; ``None`` when it never answered.

    ``state`` is ``ready``, ``lost`` or ``unknown`` (not asked yet); counts are of donated devices. What it
    may still send of images today is per mille of a day's, ``None`` without a bound; the carbon of its power
    is of this hour, as it signed it, ``None`` where it has not.
    """

    name: str
    trust_domain: str
    local: bool
    state: str
    fault: str
    age_s: float | None
    address: str
    devices: int
    leased: int
    idle: int
    nodes: int
    images: int
    transfer_bytes_per_s: float
    egress_left_permille: int | None = None
    carbon_g_per_kwh: int | None = None


@dataclass(frozen=True, slots=True)
class InviteView:
    """An invite, shown once; ``expires_at`` is a Unix time."""

    text: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class RegistryView:
    """The registry as last believed here: ``state`` is ``fresh``, ``stale``, ``local`` or ``none``."""

    consortium: str
    state: str
    detail: str
    sites: int
    refreshed_at: float | None
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class PolicyView:
    """The policy that the site goes by; ``version`` 0: none is in force.

    Args:
        overlay: the version of the site's own overlay in it; 0: none.
        why_not: why the site lends nothing under it; empty: it lends.
        upcoming: versions to come, each with its time (Unix time).
        faults: what is wrong with the policy's or the overlay's files.
    """

    version: int = 0
    digest: str = ""
    overlay: int = 0
    why_not: str = ""
    upcoming: tuple[tuple[int, int], ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FederationView:
    """This node's place in its site, and its site's in the consortium; ``site`` is empty outside any."""

    site: str
    trust_domain: str
    node: str
    role: str
    gateway: str
    certificate_expires_at: float | None
    registry: RegistryView
    sites: tuple[SiteView, ...]
    nodes: tuple[NodeView, ...]
    policy: PolicyView = PolicyView()


RunEvent = NoteView | ProgressView | PhaseView | WaitingView | AcceptedView | GrantedView
ClaimEvent = TakingView | HandedOverView
PublishEvent = NoteView | ProgressView | PublishedView
