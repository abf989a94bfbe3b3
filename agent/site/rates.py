"""How often somebody may call: token buckets, one for each caller and one for all, in bounded memory. Pure.

A caller that has been quiet long enough for its bucket to be full again is forgotten, as it would be new;
when too many are not, the one that called least lately is, and the bucket of all still holds.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """So many at once, and so many a second after that."""

    burst: int
    per_s: float


class Rates:
    """Counts calls.

    Args:
        each: for one caller.
        all_: for all together.
        callers: how many callers are counted at once.
    """

    def __init__(self, each: Rate, all_: Rate, *, callers: int) -> None:
        self._each = each
        self._all = all_
        self._callers = callers
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._left_all = (float(all_.burst), 0.0)

    def allow(self, caller: str, now_s: float) -> bool:
        """Say whether the caller may call now, and count the call if so; what is refused costs nothing."""
        left = _refilled(self._left.get(caller), self._each, now_s)
        left_all = _refilled(self._left_all, self._all, now_s)
        if left < 1.0 or left_all < 1.0:
            return False
        self._left_all = (left_all - 1.0, now_s)
        self._left[caller] = (left - 1.0, now_s)
        self._left.move_to_end(caller)
        oldest, state = next(iter(self._left.items()))
        if len(self._left) > self._callers or _refilled(state, self._each, now_s) >= self._each.burst:
            del self._left[oldest]
        return True


def counted_address(address: str) -> str:
    """Return what an IP address is counted as: an IPv6 one by its /64, of which a stranger has many."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return address


def _refilled(state: tuple[float, float] | None, rate: Rate, now_s: float) -> float:
    if state is None:
        return float(rate.burst)
    left, at_s = state
    return min(float(rate.burst), left + max(0.0, now_s - at_s) * rate.per_s)
