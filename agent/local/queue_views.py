"""What the local API shows of a site's queue, and what the site publishes of it: frozen values.

Times are seconds, shares per mille. ``None`` in place of a figure: there is none, or too few stand behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.local.views import PlaceView


@dataclass(frozen=True, slots=True)
class WaitingRequestView:
    """One request that waits; ``borrower`` is ``SITE/NODE``."""

    request_id: str
    borrower: str
    account: str
    purpose: str
    model: str
    devices: int
    instant: bool
    waited_s: float
    place: PlaceView


@dataclass(frozen=True, slots=True)
class DeviceCountView:
    """Devices of one class: donated now, of these used by guests, and those that their owner uses."""

    device_class: str
    lent: int
    used: int
    owned: int


@dataclass(frozen=True, slots=True)
class WaitCellView:
    """How long requests of a group waited that were granted in the last week."""

    group: str
    device_class: str
    requests: int | None
    p50_s: float | None
    p90_s: float | None


@dataclass(frozen=True, slots=True)
class ReclaimsView:
    """How fast devices went back to their owners in the last week."""

    reclaims: int
    p50_s: float | None
    longest_s: float | None


@dataclass(frozen=True, slots=True)
class ShareView:
    """What an institution is due of the federation, and what it got of all decayed use."""

    institution: str
    due_permille: int
    delivered_permille: int


@dataclass(frozen=True, slots=True)
class TermsView:
    """On which terms the site lends."""

    grace_s: float
    instant_grace_s: float
    min_runtime_s: float
    max_duration_s: float
    to: tuple[str, ...]
    hours: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueueView:
    """A site's queue.

    ``consortium`` is that of the policy in force; empty: there is none, and whoever asks first goes first.
    ``stale``: the books are so old that the split of the last fresh ones rules.
    """

    site: str
    consortium: str
    policy_version: int
    policy_digest: str
    books_age_s: float | None
    stale: bool
    requests: tuple[WaitingRequestView, ...]
    devices: tuple[DeviceCountView, ...]
    waits: tuple[WaitCellView, ...]
    reserved_waits: tuple[WaitCellView, ...]
    reclaims: ReclaimsView
    shares: tuple[ShareView, ...]
    terms: TermsView
