"""All that a donor decides from, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.gateway.core.book import Book
from agent.gateway.core.fleet import Fleet
from agent.gateway.core.law import Law
from agent.gateway.core.queue import Queue
from agent.gateway.core.request import RequestKey
from federation.fairshare.charging import Charges
from federation.fairshare.hold import Hold


@dataclass(frozen=True, slots=True)
class NodeHold:
    """Freed devices of a node are kept for the head of the line, which wants several."""

    hold: Hold
    node: str


@dataclass(frozen=True, slots=True)
class Debt:
    """What an offer, then its lease, is charged at its admission; what of that receipts speak of; msgs."""

    account: str
    expected_msgs: int
    receipted_msgs: int = 0

    @property
    def open_msgs(self) -> int:
        """What no receipt speaks of yet."""
        return max(0, self.expected_msgs - self.receipted_msgs)


@dataclass(frozen=True, slots=True)
class State:
    """All of it.

    Args:
        book: what was promised.
        fleet: what there is.
        queue: who waits.
        law: by what is decided.
        debts: charges at admission, by offer or lease.
        hold: what is kept for the head of the line, or was.
        durations: how long the last leases took, oldest first, s.
        due_s: but for offers nothing ends, and nothing has to be looked at, by time alone before this.
        compare_s: guests are not compared with each other before this.
    """

    book: Book = field(default_factory=Book)
    fleet: Fleet = field(default_factory=Fleet)
    queue: Queue = field(default_factory=Queue)
    law: Law = field(default_factory=Law)
    debts: Mapping[str, Debt] = field(default_factory=dict)
    hold: NodeHold | None = None
    durations: tuple[float, ...] = ()
    due_s: float = 0.0
    compare_s: float = 0.0

    def waits(self, key: RequestKey) -> bool:
        """Whether a request has a place, or an offer that it has not committed."""
        return key in self.queue.line or self.book.index.requests.get(key) in self.book.offers

    @property
    def charges(self) -> Charges:
        """What no receipt speaks of yet."""
        return charges_of(self.debts)


def charges_of(debts: Mapping[str, Debt]) -> Charges:
    """Return what is charged and no receipt speaks of yet, by account."""
    by_account: dict[str, int] = {}
    for debt in debts.values():
        by_account[debt.account] = by_account.get(debt.account, 0) + debt.open_msgs
    return Charges.of(by_account)
