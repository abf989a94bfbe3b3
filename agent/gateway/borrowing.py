"""When a borrower renews a lease, and when it must stop believing in it. Pure: the time is an argument.

Rules:

- a lease's time is counted from before its commit or renewal was sent, on the borrower's own clock: it never
  believes longer in a lease than the donor does, however long the answer took;
- it is renewed each fifth of its time; a renewal that failed is repeated soon, then less often, but always
  more often than each fifth;
- an answer that comes after a later one shortens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.errors import PeerNodeError
from agent.limits import MAX_LEASE_TTL_S, MIN_LEASE_TTL_S, RENEW_AGAIN_S, RENEWALS_PER_TTL

_MAX_DOUBLINGS = 16  # far past the longest pause; a power without a bound grows for ever


@dataclass(frozen=True, slots=True)
class Borrowed:
    """A lease as its borrower counts it.

    Args:
        lease_id: the donor's id of it.
        donor_site: who granted it.
        sent_at_s: when the commit or the last renewal that was answered was about to be sent.
        ttl_s: for how long the donor then promised it.
        failures: renewals that failed since then.
        failed_at_s: when the last of them failed.

    Raises:
        PeerNodeError: no donor that means it promises such a time.
    """

    lease_id: str
    donor_site: str
    sent_at_s: float
    ttl_s: float
    failures: int = 0
    failed_at_s: float = 0.0

    def __post_init__(self) -> None:
        if not MIN_LEASE_TTL_S <= self.ttl_s <= MAX_LEASE_TTL_S:
            raise PeerNodeError(
                f"{self.donor_site} promises a lease for {self.ttl_s:g} s, which is not between "
                f"{MIN_LEASE_TTL_S:g} and {MAX_LEASE_TTL_S:g} s.",
                fix=f"tell the operator of {self.donor_site}; run the model elsewhere meanwhile",
            )

    @property
    def deadline_s(self) -> float:
        """When the lease is over unless it is renewed."""
        return self.sent_at_s + self.ttl_s


@dataclass(frozen=True, slots=True)
class Renew:
    """Ask the donor for more time now."""


@dataclass(frozen=True, slots=True)
class Wait:
    """There is nothing to do before ``until_s``."""

    until_s: float


@dataclass(frozen=True, slots=True)
class Expired:
    """The lease is over: use it no more, whatever its donor may still do."""


Action = Renew | Wait | Expired


def next_action(lease: Borrowed, now_s: float) -> Action:
    """Return what to do about a lease now, while no renewal of it is under way."""
    if now_s >= lease.deadline_s:
        return Expired()
    due_s = _next_renewal_s(lease)
    return Renew() if now_s >= due_s else Wait(min(due_s, lease.deadline_s))


def renewed(lease: Borrowed, sent_at_s: float, ttl_s: float) -> Borrowed:
    """Return the lease after its donor has answered the renewal that was sent at ``sent_at_s``.

    Raises:
        PeerNodeError: no donor that means it promises such a time.
    """
    fresh = replace(lease, sent_at_s=sent_at_s, ttl_s=ttl_s, failures=0, failed_at_s=0.0)
    return lease if fresh.sent_at_s < lease.sent_at_s else fresh


def renewal_failed(lease: Borrowed, now_s: float) -> Borrowed:
    """Return the lease after a renewal without an answer, or with an error that may pass."""
    return replace(lease, failures=lease.failures + 1, failed_at_s=now_s)


def _next_renewal_s(lease: Borrowed) -> float:
    usual_s = lease.ttl_s / RENEWALS_PER_TTL
    if lease.failures == 0:
        return lease.sent_at_s + usual_s
    pause_s = RENEW_AGAIN_S * 2.0 ** min(lease.failures - 1, _MAX_DOUBLINGS)
    return lease.failed_at_s + min(pause_s, usual_s / 2)
