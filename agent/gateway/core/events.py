"""What happens to a donor's book, and what the book wants done about it.

Every event carries ``now_s`` of the one monotonic clock of the gateway's machine, and the nonce of every id
that is made from it: the book throws no dice. ``borrower_site`` is who makes the call, by its certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent.gateway.core.book import Lease, Offer
from agent.gateway.core.fleet import NodeReport
from agent.gateway.core.request import LeaseRequest, Place, Refused
from federation.fairshare.reasons import Reason
from federation.fairshare.standing import Standing
from federation.policy.policy import Policy

# --- events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OfferAsked:
    """A borrower wants devices, or asks again for its place; ``offer_id`` is fresh, for an offer if any."""

    request: LeaseRequest
    offer_id: str
    now_s: float


@dataclass(frozen=True, slots=True)
class OfferCommitted:
    """A borrower takes an offer. The lease's id is made from the request's and the offer's."""

    offer_id: str
    borrower_site: str
    now_s: float


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A borrower waits no more: its place, or an offer that it has not committed, is given up."""

    request_id: str
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
    """A lease's runner is gone, by itself or because it was told to; ``for_owner``: by its devices' owner."""

    lease_id: str
    reason: str
    now_s: float
    for_owner: bool = False


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
class PolicyChanged:
    """Another policy is in force, with the donor's overlay in it; ``None``: first come, first served."""

    policy: Policy | None
    now_s: float


@dataclass(frozen=True, slots=True)
class StandingChanged:
    """What the ledger says has changed, or another epoch has begun."""

    standing: Standing
    now_s: float


@dataclass(frozen=True, slots=True)
class Receipted:
    """A receipt is written that charges so much in all for a lease: the books know it by now."""

    lease_id: str
    charge_msgs: int
    now_s: float


@dataclass(frozen=True, slots=True)
class ClockRead:
    """What time it is for people: Unix time, and how far this site's time is ahead of UTC."""

    unix_s: int
    utc_offset_s: int
    now_s: float


@dataclass(frozen=True, slots=True)
class EgressCounted:
    """The site has sent so many bytes to others today, by its own time; the count begins anew later."""

    used_bytes: int
    renews_in_s: float
    now_s: float


@dataclass(frozen=True, slots=True)
class Restored:
    """The first event after a start: the leases that had not ended, with their times on this clock.

    One that cannot go on has the ``reason``, and ends.
    """

    leases: tuple[Lease, ...]
    now_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""

    now_s: float


Event = (
    OfferAsked
    | OfferCommitted
    | Withdrawn
    | Started
    | StartFailed
    | Renewed
    | Released
    | RunnerEnded
    | NodeHeard
    | Reclaimed
    | PolicyChanged
    | StandingChanged
    | Receipted
    | ClockRead
    | EgressCounted
    | Restored
    | Tick
)

# --- effects ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offered:
    """Tell the borrower of this offer: in answer to the event, or because its turn has come in the queue."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class Queued:
    """Answer the borrower with its place in the queue."""

    place: Place


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
class Notice:
    """Tell the borrower, and the lease's node, that the lease will end at ``deadline_s``; its time runs.

    Renewals go on to be granted until then. At the deadline, if it has not ended by itself, ``Stop`` follows.
    """

    lease: Lease
    deadline_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Reprieve:
    """Tell the borrower, and the lease's node, that the last ``Notice`` counts no more: the lease goes on."""

    lease: Lease


DecisionKind = Literal["offer", "place", "refusal", "grant", "preemption", "reclaim", "end"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision, for those who look at the books later.

    Args:
        kind: what was decided.
        event: what it was decided on; ``agent.gateway.core.journal`` has its form as bytes.
        unix_s: when, for people.
        request_id, borrower_site, account: whom it is about.
        lease_id: the lease, or the offer, that it is about; empty: none.
        devices: which ones, by name.
        reasons: why, the deciding one first; for refusals that are no reason of the policy, ``code`` says it.
        code: a word for programs: an offer's ``offered``, a refusal's code.
        policy: digest of the policy in force; empty: there is none.
        ledger: digest of the ledger that was ranked by; empty: there is none.
    """

    kind: DecisionKind
    event: Event
    unix_s: int
    request_id: str
    borrower_site: str
    account: str
    lease_id: str
    devices: tuple[str, ...]
    reasons: tuple[Reason, ...]
    code: str
    policy: str
    ledger: str


@dataclass(frozen=True, slots=True)
class Record:
    """Keep a decision for the books."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class Ended:
    """The lease is over: nobody is served under it, whoever waits for its end may be told."""

    lease: Lease
    reason: str


Effect = Offered | Queued | Refuse | Granted | Save | Start | Stop | Notice | Reprieve | Record | Ended
