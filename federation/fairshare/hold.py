"""A node kept for a wide request until enough of its devices are free.

Rules: from what its leases may last at most, it is known when enough devices of a node will be free. Until
then what comes free there goes to leases only that have ended by then: as long as such are waiting, keeping
costs nothing. Where none are, devices idle: for ``wide_hold_s`` in all, however often a short lease comes in
between. Then the hold is given up, and the same request has its next one after ``HOLD_PAUSES`` times as long.

Source: EASY backfilling (D. Lifka, The ANL/IBM SP Scheduling System, 1995); the bound on idling is our own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from federation.fairshare.line import Key

HOLD_PAUSES: Final = 3
"""So a device idles for it a quarter of the time at most."""
HOLD_SLACK_S: Final = 60.0
"""A hold outlives the last lease by so much: what ran there may take a while to stop."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Devices are kept for a request; times are of the donor's monotonic clock.

    Args:
        key: which request.
        until_s: enough devices are free by then.
        idle_left_s: for so long may devices idle for it yet, s.
        given_up_s: it is given up then, since a kept device idles; without one that does, never.
    """

    key: Key
    until_s: float
    idle_left_s: float
    given_up_s: float = math.inf

    @property
    def over_s(self) -> float:
        """When it is over."""
        return min(self.until_s + HOLD_SLACK_S, self.given_up_s)

    def in_force(self, now_s: float) -> bool:
        """Say whether anything is kept; a hold that is over is remembered for the pause after it."""
        return now_s < self.over_s

    def seen(self, now_s: float, *, idle: bool) -> Hold:
        """Return the hold after a look at it; ``idle``: nobody has anything on one of the devices."""
        if not self.in_force(now_s) or idle == (self.given_up_s < math.inf):
            return self
        if idle:
            return replace(self, given_up_s=now_s + self.idle_left_s)
        return replace(self, idle_left_s=self.given_up_s - now_s, given_up_s=math.inf)


def may_hold(before: Hold | None, head: Key, now_s: float, wide_hold_s: float) -> bool:
    """Return whether devices may be kept anew for the head of the line.

    Args:
        before: the last hold, in force or over.
        head: the first in the order that waits for more devices than are free.
        now_s: the moment.
        wide_hold_s: the policy's.
    """
    return before is None or before.key != head or now_s >= before.over_s + HOLD_PAUSES * wide_hold_s


def may_backfill(hold: Hold | None, key: Key, duration_s: int, now_s: float) -> bool:
    """Return whether a request may have devices that are kept: its own, or one that ends before.

    Args:
        hold: in force, or over, or none.
        key: which request.
        duration_s: of its lease at most; 0: without end.
        now_s: the moment.
    """
    if hold is None or hold.key == key or not hold.in_force(now_s):
        return True
    return 0 < duration_s <= hold.until_s - now_s
