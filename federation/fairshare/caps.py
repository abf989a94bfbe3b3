"""How much one account may hold of the federation, and how long devices wait for a wide request.

Rules: the cap is on the federation's donated devices, never on one donor's, and works for another: whoever
walks the order passes over a request beyond its cap while one that is not would fit, and comes back to it
when none does, so that no device idles for a cap. It holds at each level: an institution's accounts
together stay below the institution's. Whoever holds nothing may have one request's devices, however wide: a
small account would never start otherwise. Other donors' leases are known ``UNHEARD_S`` late at most. What an
account was given here since then is a sample of what others give it, in proportion to what they donate: where
that is more than was heard of, it counts. So donors that a newcomer asks all at once keep its cap together,
and whoever has its share already does not get one device too many from each.

A hold keeps freed devices for the head of the line that wants more than are free, for ``wide_hold_s`` at
most; meanwhile only leases that end within the hold get them. When it has run out, the devices go to
others, and the same request has its next hold after ``HOLD_PAUSES`` times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from federation.fairshare.accounts import ancestors
from federation.fairshare.line import Key
from federation.fairshare.standing import Standing
from federation.policy.policy import PER_MILLE

NOTHING: Final[Mapping[str, int]] = {}
UNHEARD_S: Final = 900
"""How long a lease may run before other donors count it: its first receipt goes out with the next exchange,
and ranks from the next epoch on."""
HOLD_PAUSES: Final = 3
"""A request's holds take a quarter of the time at most: the rest of it the devices work."""


@dataclass(frozen=True, slots=True)
class OverCap:
    """A request would take an account, or one above it, beyond its cap.

    Args:
        account: which one.
        held: devices that it holds in the federation, as far as is known.
        cap: what it may hold.
        unheard: what other donors may have given it meanwhile, by what it was given here.
    """

    account: str
    held: int
    cap: int
    unheard: int = 0


def cap_of(standing: Standing, account: str) -> int:
    """Return the devices that an account may hold while another would fit; at least one."""
    return _due_and_cap(standing, account)[1]


def _due_and_cap(standing: Standing, account: str) -> tuple[int, int]:
    """Return an account's share of all devices, rounded up, and its cap."""
    known = standing.known_caps.get(account)
    if known is None:
        part, whole = standing.share(account)
        all_parts = sum(standing.donated.values()) * part
        cap = all_parts * standing.policy.caps.over_share_permille // (whole * PER_MILLE)
        known = standing.known_caps[account] = (-(-all_parts // whole), max(1, cap))
    return known


def over_cap(
    standing: Standing,
    account: str,
    devices: int,
    held_here: Mapping[str, int],
    lately: Mapping[str, int] = NOTHING,
    here: int = 0,
) -> OverCap | None:
    """Return which cap a request would exceed, the highest in the tree first; ``None``: it exceeds none.

    Args:
        standing: how accounts stand; no cap is known while no devices are.
        account: who asks.
        devices: how many it wants.
        held_here: devices at this donor by account and every path above it, as ``holdings_of`` counts them.
        lately: of these, what was given in the last ``UNHEARD_S``.
        here: devices that this donor donates.
    """
    if not standing.donated:
        return None
    elsewhere = max(0, sum(standing.donated.values()) - here)
    for path in ancestors(account):
        held = standing.holdings.get(path, 0) + held_here.get(path, 0)
        if not held:
            break  # nor does anyone below it
        due, cap = _due_and_cap(standing, path)
        if held + devices > cap:
            return OverCap(path, held, cap)
        if here:
            sample = lately.get(path, 0) * elsewhere // here
            unheard = max(0, sample - standing.holdings.get(path, 0))
            if held >= due:
                unheard += devices * elsewhere // here  # the others may all serve it at this very moment
            if held + unheard + devices > cap:
                return OverCap(path, held, cap, unheard)
    return None


@dataclass(frozen=True, slots=True)
class Hold:
    """Devices are kept for a request.

    Args:
        key: which request.
        from_s, until_s: of the donor's monotonic clock.
    """

    key: Key
    from_s: float
    until_s: float

    def left_s(self, now_s: float) -> float:
        """Return how long it goes on; 0: it has run out, and nothing is kept."""
        return max(0.0, self.until_s - now_s)


def hold_for(hold: Hold | None, head: Key | None, now_s: float, wide_hold_s: int) -> Hold | None:
    """Return the hold from now on.

    Args:
        hold: the one before, also one that has run out.
        head: the first in the order that waits for more devices than are free; ``None``: there is none.
        now_s: of the donor's monotonic clock.
        wide_hold_s: the policy's.
    """
    if head is None:
        return None
    if hold is not None and hold.key == head and now_s < hold.until_s + HOLD_PAUSES * wide_hold_s:
        return hold
    return Hold(head, now_s, now_s + wide_hold_s)


def may_backfill(hold: Hold | None, key: Key, duration_s: int, now_s: float) -> bool:
    """Return whether a request may have devices that are kept: its own, or none beyond the hold's end.

    Args:
        hold: in force, or run out, or none.
        key: which request.
        duration_s: of its lease at most; 0: without end.
        now_s: of the donor's monotonic clock.
    """
    if hold is None or hold.key == key:
        return True
    left_s = hold.left_s(now_s)
    return left_s == 0.0 or 0 < duration_s <= left_s
