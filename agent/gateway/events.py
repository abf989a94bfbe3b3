"""What happens to a donor's book, and what the book wants done about it.

Every event carries ``now_s`` of the one monotonic clock of the gateway's machine, and every id that it needs:
the book makes none. ``borrower_site`` is who makes the call, by its certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.gateway.book import Lease, Offer
from agent.gateway.fleet import NodeReport
from agent.gateway.request import LeaseRequest, Refused

# --- events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OfferAsked:
    """A borrower wants a device; ``offer_id`` is fresh."""

    request: LeaseRequest
    offer_id: str
    now_s: float


@dataclass(frozen=True, slots=True)
class OfferCommitted:
    """A borrower takes an offer; ``lease_id`` is fresh."""

    offer_id: str
    lease_id: str
    borrower_site: str
    now_s: float


@dataclass(frozen=True, slots=True)
class Started:
    """The runner of a lease answers."""

    lease_id: str
    now_s: float


@dataclass(frozen=True, slots=True)
class StartFailed:
    """A lease could not be started, and nothing of it is left on its node."""

    lease_id: str
    reason: str
    now_s: float


@dataclass(frozen=True, slots=True)
class Renewed:
    """A borrower wants to keep a lease."""

    lease_id: str
    borrower_site: str
    now_s: float


@dataclass(frozen=True, slots=True)
class Released:
    """A borrower gives a lease back."""

    lease_id: str
    borrower_site: str
    reason: str
    now_s: float


@dataclass(frozen=True, slots=True)
class RunnerEnded:
    """A lease's runner is gone, by itself or because it was told to."""

    lease_id: str
    reason: str
    now_s: float


@dataclass(frozen=True, slots=True)
class NodeHeard:
    """A node reports."""

    report: NodeReport
    now_s: float


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """The owner takes back a device, or with ``None`` all of a node; the grace is over or was none."""

    node: str
    device: str | None
    reason: str
    now_s: float


@dataclass(frozen=True, slots=True)
class Restored:
    """The first event after a start: the leases that had not ended, with their times on this clock."""

    leases: tuple[Lease, ...]
    now_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""

    now_s: float


Event = (
    OfferAsked
    | OfferCommitted
    | Started
    | StartFailed
    | Renewed
    | Released
    | RunnerEnded
    | NodeHeard
    | Reclaimed
    | Restored
    | Tick
)

# --- effects ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offered:
    """Answer the borrower with this offer."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer whoever caused the event with this refusal."""

    refused: Refused


@dataclass(frozen=True, slots=True)
class Granted:
    """Answer the borrower: it has this lease, until its deadline."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Save:
    """Write the lease to disk before any later effect of the same step is carried out."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Start:
    """Have the lease's node start it, then say ``Started`` or ``StartFailed``."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Stop:
    """Call off what this node starts or runs for the lease; being told so twice does no harm."""

    node: str
    lease_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The lease is over: nobody is served under it, whoever waits for its end may be told."""

    lease: Lease
    reason: str


Effect = Offered | Refuse | Granted | Save | Start | Stop | Ended
