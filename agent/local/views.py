"""What the local API shows of a node: frozen values without protobuf, the same for daemon, client, CLI, TUI.

Image ids are 64 hexadecimal digits here, times are Unix times of the node, ``None`` means "not yet", "none".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.local.federation_views import PolicyView


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


RunEvent = NoteView | ProgressView | PhaseView | WaitingView | AcceptedView | GrantedView
PublishEvent = NoteView | ProgressView | PublishedView
