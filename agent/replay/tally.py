"""Use by account and epoch that is added to in place: the sums of ``Usage`` without its copies.

A replay asks for the sums of weeks of use every ten minutes of them, and needs no use of before. The figures
are those of ``federation.fairshare.usage``, to the last unit.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import mul

from federation.fairshare.decay import DecayTable
from federation.fairshare.usage import Delta


class Tally:
    """What accounts used from an epoch on.

    Args:
        first: nothing lies before this epoch.
    """

    __slots__ = ("_first", "_msgs", "ever")

    def __init__(self, first: int) -> None:
        self._first = first
        self._msgs: dict[str, list[int]] = {}
        self.ever: dict[str, int] = {}
        """By account, msgs in all."""

    def add(self, deltas: Iterable[Delta]) -> None:
        """Add some use."""
        for account, epoch, msgs in deltas:
            of = self._msgs.setdefault(account, [])
            at = epoch - self._first
            if at >= len(of):
                of.extend([0] * (at + 1 - len(of)))
            of[at] += msgs
            self.ever[account] = self.ever.get(account, 0) + msgs

    def decayed(self, epoch: int, table: DecayTable, *, since: int = 0) -> dict[str, int]:
        """Return the decayed use by account as it counts in an epoch, 2^-40 msgs.

        Args:
            epoch: which one.
            table: the policy's decay.
            since: what lies before this epoch is left out. An account of which nothing is left stands not in
                it.
        """
        weights = table.weights
        oldest = max(since, epoch - len(weights) + 1) - self._first
        begin, now = max(0, oldest), epoch - self._first
        found = {}
        for account, of in self._msgs.items():
            past = of[begin : now + 1]
            ahead = of[max(begin, now + 1) :]
            if any(past) or any(ahead):
                ages = weights[now - begin :: -1] if now >= begin else ()
                found[account] = sum(map(mul, past, ages)) + sum(ahead) * weights[0]
        return found
