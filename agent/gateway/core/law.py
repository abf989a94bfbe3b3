"""What a donor decides by besides its own book: the policy, where accounts stand, the time, what is paused.

A law is a value; the shell brings its parts as events. Without a policy there are no accounts, caps or
reserves, and the terms of leases are those that a policy has by default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from agent.gateway.core.book import Terms
from agent.gateway.core.request import LeaseRequest
from federation.fairshare.standing import Standing
from federation.policy.hours import DAY_MINUTES, WEEK_MINUTES, in_hours, minutes_until
from federation.policy.permit import Denied
from federation.policy.policy import Caps, Lend, Policy

_EPOCH_WEEK_MINUTE: Final = 3 * DAY_MINUTES  # 1 January 1970 was a Thursday
_NO_CAPS: Final = Caps()
_NO_LEND: Final = Lend()


@dataclass(frozen=True, slots=True)
class Egress:
    """What the site has sent to others today, and when its day is over on the clock of events."""

    used_bytes: int
    renews_at_s: float


@dataclass(frozen=True, slots=True)
class Law:
    """All of it.

    Args:
        site: the donor's name.
        region: where it is.
        policy: in force, the donor's overlay in it.
        standing: what accounts have used, and what the federation has; ``None``: nobody has used anything.
        unix_s, read_at_s: Unix time as it was at a moment of the clock of events.
        utc_offset_s: how far the site's time is ahead of UTC.
        egress: what the site has sent; ``None``: nobody counts.
    """

    site: str = ""
    region: str = ""
    policy: Policy | None = None
    standing: Standing | None = None
    unix_s: int = 0
    read_at_s: float = 0.0
    utc_offset_s: int = 0
    egress: Egress | None = None
    known_answers: dict[object, Denied | None] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    """What the policy says to requests as far as anyone asked: it follows from the rest."""

    @property
    def lend(self) -> Lend:
        """On which terms the donor lends."""
        return _NO_LEND if self.policy is None else self.policy.lend

    @property
    def caps(self) -> Caps:
        """The policy's bounds."""
        return _NO_CAPS if self.policy is None else self.policy.caps

    def unix(self, now_s: float) -> int:
        """Return the Unix time of a moment."""
        return self.unix_s + int(now_s - self.read_at_s)

    def week_minute(self, now_s: float) -> int:
        """Return the minute of the week at the site, from Monday 00:00."""
        return ((self.unix(now_s) + self.utc_offset_s) // 60 + _EPOCH_WEEK_MINUTE) % WEEK_MINUTES

    def lends_now(self, now_s: float) -> bool:
        """Whether it is an hour at which the donor lends."""
        return not self.lend.hours or in_hours(self.lend.hours, self.week_minute(now_s))

    def lends_in_s(self, now_s: float) -> int | None:
        """Return how long it takes until the donor lends; ``None``: it never does."""
        minutes = minutes_until(self.lend.hours, self.week_minute(now_s))
        return None if minutes is None else minutes * 60

    def terms(self, request: LeaseRequest) -> Terms:
        """Return the terms on which a request is served."""
        lend = self.lend
        wanted_s = request.duration_s or lend.max_duration_s
        if request.instant:
            min_runtime_s = 0
        elif request.min_runtime_s is None:
            min_runtime_s = lend.min_runtime_s
        else:
            min_runtime_s = min(request.min_runtime_s, lend.min_runtime_s)
        return Terms(
            grace_s=lend.instant_grace_s if request.instant else lend.grace_s,
            min_runtime_s=min_runtime_s,
            max_duration_s=min(wanted_s, lend.max_duration_s),
            instant=request.instant,
        )
