"""What a donor has promised: its open offers, its leases, and devices that are not free yet. Values only.

A device is *taken* from the moment it is offered until its node has said that nothing of the lease is left
there. It is *awaited* by at most one offer, or lease, that has other guests make room. Times are of one
monotonic clock of the gateway's machine. ``agent.gateway.core.leases`` has the rules.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from agent.gateway.core.fleet import DeviceRef
from agent.gateway.core.request import LeaseRequest, RequestKey, account_of
from agent.limits import (
    KILL_SLACK_S,
    LEASE_ID_CHARS,
    LEASE_TTL_S,
    MAX_LEASE_DURATION_S,
    NODE_LOST_LEASE_S,
    NODE_SILENCE_S,
)
from federation.fairshare.standing import holdings_of


@dataclass(frozen=True, slots=True)
class Terms:
    """What a borrower may count on under a lease, and what not; offered, and accepted by the commit.

    Args:
        grace_s: between notice and end when the owner, or a guest that goes first, needs the device.
        min_runtime_s: no other guest takes the device before; the owner is not bound by it, but a lease that
            its donor ends before then is not charged.
        max_duration_s: the lease ends then, renewed or not.
        instant: it stands on what is reserved for others.
    """

    grace_s: float = 0.0
    min_runtime_s: float = 0.0
    max_duration_s: float = MAX_LEASE_DURATION_S
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """Devices of one node held for a borrower until ``expires_at_s``.

    Args:
        id: ours, made of a nonce.
        request: what was asked for.
        devices: what is offered, by name.
        warm: whether the image is whole in that node's memory.
        expires_at_s: when it is void.
        terms: what a commit accepts.
        victims: leases that have to make room if it is committed; nothing happens to them before.
        since_s: when the request came into the queue; it keeps its place if the owner voids the offer.
        starts_in_s: how long the victims may take to be gone.
    """

    id: str
    request: LeaseRequest
    devices: tuple[DeviceRef, ...]
    warm: bool
    expires_at_s: float
    terms: Terms = field(default_factory=Terms)
    victims: tuple[str, ...] = ()
    since_s: float = 0.0
    starts_in_s: float = 0.0

    @property
    def device(self) -> DeviceRef:
        """The first of its devices, which names the node."""
        return self.devices[0]


class LeaseState(StrEnum):
    """Where a lease stands."""

    WAITING = "waiting"
    """Granted; the guests that have its devices are leaving."""
    COMMITTED = "committed"
    """Its node has been told to start it."""
    ACTIVE = "active"
    """Its runner answers."""
    RESTORED = "restored"
    """Read from disk after the gateway started again; its node has not spoken of it yet."""
    ENDED = "ended"


class Cause(StrEnum):
    """Who or what ended a lease; its ``reason`` says it to people."""

    RELEASED = "released"
    """Its borrower gave it back."""
    EXPIRED = "expired"
    """Its borrower did not renew it in time."""
    DURATION = "duration"
    """It has lasted as long as its terms allow."""
    FAILED = "failed"
    """It did not start."""
    GONE = "gone"
    """Its runner is gone, by itself or with its node's agent."""
    LOST = "lost"
    """Its node fell silent."""
    RECLAIMED = "reclaimed"
    """The owner took the device back."""
    PREEMPTED = "preempted"
    """A guest that goes first has the device."""
    CONFLICT = "conflict"
    """Another lease has its device."""
    RESTARTED = "restarted"
    """Its donor's gateway started again and could not go on with it."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use devices until ``deadline_s``.

    Args:
        id: ours, made of the request's id and the offer's.
        offer_id: the offer that was committed.
        request: what was asked for.
        devices: what was given, all of one node.
        state: where it stands.
        deadline_s: when it ends unless it is renewed.
        terms: what its borrower accepted.
        granted_at_s: when it was given its devices, from which its times count; while it waits for them, when
            it was committed.
        started_at_s: when its runner answered; ``None`` before.
        watched_from_s: reports made after this name it as long as it runs; ``None`` before it has started.
        notice_deadline_s: when it must be over, once its borrower has been told so.
        notice_reason: why.
        notice_cause: who or what will have ended it then.
        charge_msgs: what its account was charged at its admission; ``None``: there was no policy.
        cause: what ended it; ``None`` before.
        reason: why it ended; empty before.
        refunded: its donor ended it before its minimum time, so that nothing is charged.
    """

    id: str
    offer_id: str
    request: LeaseRequest
    devices: tuple[DeviceRef, ...]
    state: LeaseState
    deadline_s: float
    terms: Terms = field(default_factory=Terms)
    granted_at_s: float = 0.0
    started_at_s: float | None = None
    watched_from_s: float | None = None
    notice_deadline_s: float | None = None
    notice_reason: str = ""
    notice_cause: Cause | None = None
    charge_msgs: int | None = None
    cause: Cause | None = None
    reason: str = ""
    refunded: bool = False

    @property
    def device(self) -> DeviceRef:
        """The first of its devices, which names the node."""
        return self.devices[0]


def over_s(lease: Lease) -> float:
    """Return when a lease is over however often it is renewed."""
    return lease.granted_at_s + lease.terms.max_duration_s


def notice_over_s(lease: Lease) -> float:
    """Return when a lease that has notice is stopped; a node that does so for its owner has a while more."""
    assert lease.notice_deadline_s is not None
    return lease.notice_deadline_s + (KILL_SLACK_S if lease.notice_cause is Cause.RECLAIMED else 0.0)


def due_s(lease: Lease) -> float:
    """Return when a lease ends, or is given notice, by time alone."""
    if lease.notice_cause is not None:
        return min(lease.deadline_s, notice_over_s(lease))
    if lease.state is LeaseState.WAITING:
        return lease.deadline_s
    return min(lease.deadline_s, over_s(lease) - lease.terms.grace_s)


def offers_due_s(offers: Mapping[str, Offer]) -> float:
    """Return when the first of the open offers is void; they are as long, in the order of their age."""
    for offer in offers.values():
        return offer.expires_at_s
    return math.inf


def lease_id_of(offer: Offer) -> str:
    """Return the id of the lease that an offer becomes.

    Committing the offer again gives the same id, and who knows both halves can tell for which request of its
    borrower a lease was granted: two leases for one request are proof of a borrower that took two.
    """
    text = f"{offer.request.borrower_site}\n{offer.request.id}\n{offer.id}"
    return hashlib.sha256(text.encode()).hexdigest()[:LEASE_ID_CHARS]


def nonce_after(offer_id: str) -> str:
    """Return a nonce for the next offer to a request whose last one had to be taken back."""
    return hashlib.sha256(offer_id.encode()).hexdigest()[:LEASE_ID_CHARS]


@dataclass(frozen=True, slots=True)
class Stopping:
    """Devices whose lease ended at ``since_s``, and whose node has not said yet that the runner is gone."""

    devices: tuple[DeviceRef, ...]
    since_s: float

    @property
    def device(self) -> DeviceRef:
        """The first of them, which names the node."""
        return self.devices[0]


@dataclass(frozen=True, slots=True)
class Index:
    """Who has what, by device and by request; it follows from a book's parts.

    Args:
        taken: who has a device now: an offer, a lease, or what is left of one, by its id.
        awaited: who has it next, once the lease that has it is gone: an offer with victims, or its lease.
        requests: the offer or lease of a request.
        held: devices that offers and leases have, or will have, by account and every path above it.
        shelved: what ``agent.gateway.core.supply`` made of a book that this belongs to, for the next step.
    """

    taken: Mapping[DeviceRef, str] = field(default_factory=dict)
    awaited: Mapping[DeviceRef, str] = field(default_factory=dict)
    requests: Mapping[RequestKey, str] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    shelved: list[object] = field(default_factory=list, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Book:
    """The donor's promises by their ids.

    Args:
        lease_ttl_s: how long a lease lives from its commit or last renewal.
        offers: open ones.
        leases: those that have not ended.
        stopping: devices of ended leases that are not free yet, by lease.
        ended: the last leases that ended, oldest first.
        known_index: the index of these parts; made of them when it is not given.
    """

    lease_ttl_s: float = LEASE_TTL_S
    offers: Mapping[str, Offer] = field(default_factory=dict)
    leases: Mapping[str, Lease] = field(default_factory=dict)
    stopping: Mapping[str, Stopping] = field(default_factory=dict)
    ended: Mapping[str, Lease] = field(default_factory=dict)
    known_index: Index | None = field(default=None, compare=False, repr=False)

    @property
    def node_lost_s(self) -> float:
        """How long a node may be silent before its leases end."""
        return max(NODE_SILENCE_S, min(NODE_LOST_LEASE_S, self.lease_ttl_s))

    @property
    def index(self) -> Index:
        """Who has what."""
        return self.known_index if self.known_index is not None else _index_of(self)

    def taken(self) -> frozenset[DeviceRef]:
        """Return the devices that nobody else may have."""
        return frozenset(self.index.taken)

    def lease_of(self, offer_id: str) -> Lease | None:
        """Return what became of an offer that was committed."""
        known = (*self.leases.values(), *self.ended.values())
        return next((one for one in known if one.offer_id == offer_id), None)


def _index_of(book: Book) -> Index:
    taken: dict[DeviceRef, str] = {}
    awaited: dict[DeviceRef, str] = {}
    requests: dict[RequestKey, str] = {}
    for lease_id, left in book.stopping.items():
        taken.update(dict.fromkeys(left.devices, lease_id))
    running = [one for one in book.leases.values() if one.state is not LeaseState.WAITING]
    waiting = [one for one in book.leases.values() if one.state is LeaseState.WAITING]
    everything: tuple[Lease | Offer, ...] = (*running, *waiting, *book.offers.values())
    for held in everything:
        requests[held.request.key] = held.id
        for device in held.devices:
            (awaited if device in taken else taken)[device] = held.id
    counts = holdings_of((account_of(one.request), len(one.devices)) for one in everything)
    return Index(taken, awaited, requests, counts)
