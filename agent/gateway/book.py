"""What a donor has promised: its open offers, its leases, and devices that are not free yet. Values only.

A device is *taken* from the moment it is offered until its node has said that nothing of the lease is left
there. Times are of one monotonic clock of the gateway's machine. ``agent.gateway.leases`` has the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from agent.gateway.fleet import DeviceRef, NodeReport
from agent.gateway.request import LeaseRequest
from agent.limits import LEASE_TTL_S, NODE_LOST_LEASE_S, NODE_SILENCE_S


@dataclass(frozen=True, slots=True)
class Offer:
    """A device held for a borrower until ``expires_at_s``."""

    id: str
    request: LeaseRequest
    device: DeviceRef
    warm: bool
    expires_at_s: float


class LeaseState(StrEnum):
    """Where a lease stands."""

    COMMITTED = "committed"
    """Its node has been told to start it."""
    ACTIVE = "active"
    """Its runner answers."""
    RESTORED = "restored"
    """Read from disk after the gateway started again; its node has not spoken of it yet."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use a device until ``deadline_s``.

    Args:
        id: ours.
        offer_id: the offer that was committed.
        request: what was asked for.
        device: what was given.
        state: where it stands.
        deadline_s: when it ends unless it is renewed.
        watched_from_s: reports made after this name it as long as it runs; ``None`` before it has started.
        reason: why it ended; empty before.
    """

    id: str
    offer_id: str
    request: LeaseRequest
    device: DeviceRef
    state: LeaseState
    deadline_s: float
    watched_from_s: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Stopping:
    """A device whose lease ended at ``since_s``, and whose node has not said yet that the runner is gone."""

    device: DeviceRef
    since_s: float


@dataclass(frozen=True, slots=True)
class Book:
    """The donor's promises by their ids.

    Args:
        lease_ttl_s: how long a lease lives from its commit or last renewal.
        offers: open ones.
        leases: those that have not ended.
        stopping: devices of ended leases that are not free yet, by lease.
        ended: the last leases that ended, oldest first.
    """

    lease_ttl_s: float = LEASE_TTL_S
    offers: Mapping[str, Offer] = field(default_factory=dict)
    leases: Mapping[str, Lease] = field(default_factory=dict)
    stopping: Mapping[str, Stopping] = field(default_factory=dict)
    ended: Mapping[str, Lease] = field(default_factory=dict)

    @property
    def node_lost_s(self) -> float:
        """How long a node may be silent before its leases end."""
        return max(NODE_SILENCE_S, min(NODE_LOST_LEASE_S, self.lease_ttl_s))

    def taken(self) -> frozenset[DeviceRef]:
        """Return the devices that nobody else may have."""
        return frozenset(
            one.device for held in (self.offers, self.leases, self.stopping) for one in held.values()
        )

    def lease_of(self, offer_id: str) -> Lease | None:
        """Return what became of an offer that was committed."""
        known = (*self.leases.values(), *self.ended.values())
        return next((one for one in known if one.offer_id == offer_id), None)

    def strays(self, report: NodeReport) -> tuple[str, ...]:
        """Return the leases that a node has taken on and should not have: ended, unknown or elsewhere."""
        return tuple(
            one
            for one in report.leases
            if one not in self.leases or self.leases[one].device.node != report.node
        )

    def blocked(self, report: NodeReport) -> bool:
        """Whether something runs on a node of which the book does not know on which device."""
        return any(one not in self.stopping for one in self.strays(report))
