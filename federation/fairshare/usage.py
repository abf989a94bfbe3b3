"""Use by account and epoch, decayed to one moment and added up the tree of accounts.

Rules: a value never changes; adding returns a new one that shares what is the same. Whatever the order and
the batches in which use is added, the value is the same (I1). Nothing is lost or made when use is spread
over epochs (I13). A negative addition takes back what was added before. A use that lies ahead counts as
new.

Two kinds of sums: *decayed* ones, in units of 2^-40 msgs, which order accounts; and those *in all*, in msgs,
by which classes end. Both are by node: a path has what is below it too, its seat (``/a/b/``) only its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from federation.fairshare.accounts import is_within, nodes_of
from federation.fairshare.decay import EPOCH_S, DecayTable
from federation.ledger.receipt import Receipt
from federation.limits import MAX_SPREAD_EPOCHS

Delta = tuple[str, int, int]
"""Account, epoch, msgs."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What accounts used, and when.

    Args:
        buckets: by account, then by epoch, msgs; neither empty accounts nor zeros stand in it.
        ever: by account, msgs in all, also what the window has left behind.
    """

    buckets: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    ever: Mapping[str, int] = field(default_factory=dict)

    def add(self, account: str, epoch: int, msgs: int) -> Usage:
        """Return the use with so much more in one epoch of one account."""
        return self.add_all(((account, epoch, msgs),))

    def add_all(self, deltas: Iterable[Delta]) -> Usage:
        """Return the use with all of this added; each account touched is copied once."""
        buckets = dict(self.buckets)
        ever = dict(self.ever)
        fresh: dict[str, dict[int, int]] = {}
        for account, epoch, msgs in deltas:
            of = fresh.get(account)
            if of is None:
                of = fresh[account] = dict(buckets.get(account, {}))
            of[epoch] = of.get(epoch, 0) + msgs
            ever[account] = ever.get(account, 0) + msgs
        for account, of in fresh.items():
            left = {epoch: msgs for epoch, msgs in of.items() if msgs} if 0 in of.values() else of
            if left:
                buckets[account] = left
            else:
                buckets.pop(account, None)
            if not ever[account]:
                del ever[account]
        return Usage(buckets, ever)

    def total(self, account: str, epoch: int, table: DecayTable) -> int:
        """Return an account's decayed use, with what is below it, as it counts in an epoch."""
        return sum(
            _decayed(of, epoch, table) for path, of in self.buckets.items() if is_within(path, account)
        )

    def totals(self, epoch: int, table: DecayTable) -> dict[str, int]:
        """Return the decayed use of every node, as it counts in an epoch."""
        return by_node({account: _decayed(of, epoch, table) for account, of in self.buckets.items()})

    def ever_by_node(self) -> dict[str, int]:
        """Return the use in all of every node, msgs."""
        return by_node(self.ever)

    def since(self, epoch: int) -> Usage:
        """Return what was used in the epoch and later."""
        deltas = (
            (account, at, msgs)
            for account, of in self.buckets.items()
            for at, msgs in of.items()
            if at >= epoch
        )
        return Usage().add_all(deltas)

    def within(self, epoch: int, table: DecayTable) -> Usage:
        """Return the use without the buckets that no longer count in an epoch; what is in all stays."""
        oldest = epoch - len(table.weights) + 1
        kept = {
            account: of if min(of, default=oldest) >= oldest else _since(of, oldest)
            for account, of in self.buckets.items()
        }
        return Usage({account: of for account, of in kept.items() if of}, self.ever)


def _since(of: Mapping[int, int], oldest: int) -> dict[int, int]:
    return {at: msgs for at, msgs in of.items() if at >= oldest}


def by_node(by_account: Mapping[str, int]) -> dict[str, int]:
    """Return sums by node from sums by account."""
    sums: dict[str, int] = {}
    for account, amount in by_account.items():
        for node in nodes_of(account):
            sums[node] = sums.get(node, 0) + amount
    return sums


def spread(from_s: int, to_s: int, msgs: int) -> tuple[tuple[int, int], ...]:
    """Return an amount spread evenly over the epochs of a span: (epoch, msgs), whose sum is the amount.

    Each epoch has the difference of two rounded-down cumulative sums, so that nothing is lost. Of a span of
    more than ``MAX_SPREAD_EPOCHS`` the oldest part lies in one epoch.
    """
    if to_s <= from_s:
        return ((to_s // EPOCH_S, msgs),)
    parts = []
    span, before, at = to_s - from_s, 0, from_s
    oldest = (to_s - 1) // EPOCH_S - MAX_SPREAD_EPOCHS + 1
    while at < to_s:
        epoch = max(oldest, at // EPOCH_S)
        at = min(to_s, (epoch + 1) * EPOCH_S)
        upto = msgs * (at - from_s) // span
        parts.append((epoch, upto - before))
        before = upto
    return tuple(parts)


def receipt_deltas(previous: Receipt | None, receipt: Receipt) -> tuple[Delta, ...]:
    """Return what a receipt adds to the one before it of the same lease.

    Receipts of one donor form a chain, so that whoever knows one knows those before it: the sum of all is the
    same everywhere. A charge that falls, as by a refund, is taken back over the whole time of the lease.
    """
    before = None if previous is None else (previous.to_s, previous.charge_msgs)
    return charge_deltas(receipt.account, receipt.from_s, receipt.to_s, receipt.charge_msgs, before)


def charge_deltas(
    account: str, from_s: int, to_s: int, charge_msgs: int, before: tuple[int, int] | None
) -> tuple[Delta, ...]:
    """Return what a lease's charge adds to the one before it.

    Args:
        account: who is charged.
        from_s: Unix time of the lease's begin.
        to_s: Unix time up to which it is charged.
        charge_msgs: in all.
        before: up to when it was charged before, and what in all; ``None``: it was not.
    """
    since_s, before_msgs = (from_s, 0) if before is None else before
    change = charge_msgs - before_msgs
    parts = spread(from_s if change < 0 else since_s, to_s, change)
    return tuple([(account, epoch, msgs) for epoch, msgs in parts])


def _decayed(of: Mapping[int, int], epoch: int, table: DecayTable) -> int:
    weights, count = table.weights, len(table.weights)
    if of and epoch - count < min(of) and max(of) <= epoch:
        return sum([msgs * weights[epoch - at] for at, msgs in of.items()])  # nearly always, and fast
    total = 0
    for at, msgs in of.items():
        age = epoch - at
        if age < count:
            total += msgs * weights[age if age > 0 else 0]
    return total
