"""How old the books are: the age of the oldest head among the donors that are active. Pure.

A donor's head is as new as the last receipt in it, or as the moment at which its own gateway said that there
is nothing after it and we had it all. Active is every member with a chain here that was new within a
half-life: whoever has been silent for longer does not make everybody else's books old for ever; by then the
frozen split has faded into the policy's weights anyway. A chain that its donor contradicted counts no more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol


class DonorLine(Protocol):
    """What is known of one donor's chain (``agent.state.ledger_rows.DonorRow``)."""

    @property
    def donor(self) -> str:
        """Its name."""
        ...

    @property
    def to_s(self) -> int:
        """When its last receipt ends."""
        ...

    @property
    def forked_at(self) -> int | None:
        """From where it counts for nothing."""
        ...

    @property
    def heard_at(self) -> float:
        """When its own gateway was last heard to its end; 0: never."""
        ...


def oldest_head_age_s(
    donors: Iterable[DonorLine], members: Collection[str], own: str, *, now_s: float, active_s: float
) -> int:
    """Return the age of the books.

    Args:
        donors: all that are known.
        members: the sites of the consortium; others lend nothing any more.
        own: this site, whose own chain is always new.
        now_s: Unix time.
        active_s: how long a silent donor counts as active; one half-life of the policy.
    """
    ages = [
        max(0.0, now_s - max(float(one.to_s), one.heard_at))
        for one in donors
        if one.donor != own and one.donor in members and one.forked_at is None
    ]
    return int(max((age for age in ages if age <= active_s), default=0.0))
