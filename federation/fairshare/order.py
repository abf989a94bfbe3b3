"""In which order the requests of a line are served at a donor: FAIRNESS' order, kept up to date by events.

1. Requests of accounts that draw on the reserve of a class which has fewer devices here than its reserve:
the class that lacks most
   first, then by the class's name; inside a class as in 2, among its accounts alone.
2. Fair Tree: siblings with an active request by ``LF = share / usage``, depth first.
3. Ties: the older request, then SHA-256 of the epoch and the request's name.
4. Aging: in an account the oldest goes first, and an account's LF is doubled for each ``max_wait_s`` after
the
   first that its oldest request waits, up to the policy's bound.

Rules: use counts what the standing says and what was admitted here and not yet receipted. With a frozen split
the standing's weights and use are those of the split; the rest is the same. An ``Order`` never changes: an
event returns another one that shares the rest, and is sorted once somebody looks. Which requests may be
served now (caps, holds, devices) is not asked here; whoever walks the order skips those that may not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from federation.fairshare.accounts import ancestors, nodes_of
from federation.fairshare.charging import Charges
from federation.fairshare.forest import Forest
from federation.fairshare.line import Line, Waiting
from federation.fairshare.rank import Ranks
from federation.fairshare.reserve import reserve_class
from federation.fairshare.standing import Standing

T = TypeVar("T")
NO_DEFICITS: Mapping[str, int] = {}
_MAX_UNSORTED: Final = 32
"""Accounts whose requests or charges changed since somebody last looked at the order."""


@dataclass(slots=True)
class _Trees(Generic[T]):
    """What an order has sorted; what is left of it is done when somebody looks.

    Args:
        forest: of all accounts.
        by_class: of those that draw on the reserve of each class.
        unsorted: accounts that changed and are not sorted in anew.
    """

    forest: Forest[T]
    by_class: Mapping[str, Forest[T]]
    unsorted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Order(Generic[T]):
    """A line under a standing and the charges of what was admitted here; ``Order.of`` makes one.

    Args:
        line: who waits.
        standing: how accounts stand.
        own: charges that no receipt speaks of yet.
    """

    line: Line[T]
    standing: Standing
    own: Charges
    _trees: _Trees[T] = field(repr=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Order):
            return NotImplemented
        mine, theirs = (self.line, self.standing, self.own), (other.line, other.standing, other.own)
        return mine == theirs and self._sorted() == other._sorted()

    def __hash__(self) -> int:
        raise TypeError("an order is not hashed")

    @classmethod
    def of(cls, line: Line[T], standing: Standing, own: Charges | None = None) -> Order[T]:
        """Return the order of a line, from nothing."""
        charges = own if own is not None else Charges()
        ranks = Ranks(standing, charges)
        forest = Forest.of(line, line.accounts, ranks)
        by_class = {
            name: Forest.of(line, of, ranks, within=forest)
            for name, of in _by_reserve(line.accounts, standing).items()
        }
        return cls(line, standing, charges, _Trees(forest, by_class))

    def under(self, standing: Standing) -> Order[T]:
        """Return the order under another standing, made anew."""
        return Order.of(self.line, standing, self.own)

    def added(self, waiting: Waiting[T]) -> Order[T]:
        """Return the order with a request; one of the same key is replaced."""
        before = self.line.get(waiting.site, waiting.id)
        if before is not None and before.account != waiting.account:
            return self.removed(waiting.site, waiting.id).added(waiting)
        return self._after(waiting.account, self.line.add(waiting), self.own)

    def removed(self, site: str, request_id: str) -> Order[T]:
        """Return the order without a request; the same if it was not there."""
        gone = self.line.get(site, request_id)
        if gone is None:
            return self
        return self._after(gone.account, self.line.remove(site, request_id), self.own)

    def served(self, site: str, request_id: str, msgs: int) -> Order[T]:
        """Return the order without a request for which its account is charged so much: both in one."""
        gone = self.line.get(site, request_id)
        if gone is None:
            return self
        own = self.own.add(gone.account, msgs) if msgs else self.own
        return self._after(gone.account, self.line.remove(site, request_id), own)

    def charged(self, account: str, msgs: int) -> Order[T]:
        """Return the order with so much more charged here and not yet receipted; negative takes it back."""
        return self._after(account, self.line, self.own.add(account, msgs))

    def walk(self, deficits: Mapping[str, int] = NO_DEFICITS) -> Iterator[Waiting[T]]:
        """Return the requests as they are served, one by one; the first ones cost little.

        Args:
            deficits: devices that classes lack here, as ``federation.fairshare.reserve`` says.
        """
        lacking = self._lacking(deficits)
        every = self._sorted().forest.walk(self.line, self.standing.epoch)
        return self._classes_first(lacking, every) if lacking else every

    def ahead(self, waiting: Waiting[T], deficits: Mapping[str, int] = NO_DEFICITS) -> int:
        """Return how many requests are served before one of the line."""
        if not self._lacking(deficits):
            return self._sorted().forest.ahead(waiting, self.line, self.standing.epoch)
        return next(at for at, one in enumerate(self.walk(deficits)) if one.key == waiting.key)

    def compared(self, mine: str, theirs: str) -> tuple[str, int, int]:
        """Return why another account goes first: its node beside ours, and how much of its due each has used.

        Both are per mille of what the two were due of what they used together, where their ways part.

        Returns:
            the other's node without a slash at its end, theirs, mine.
        """
        ours, others = parting(mine, theirs)
        ranks = Ranks(self.standing, self.own)
        both = (ours, others)
        return others.rstrip("/"), ranks.used_permille(others, both), ranks.used_permille(ours, both)

    def _classes_first(self, lacking: list[str], every: Iterator[Waiting[T]]) -> Iterator[Waiting[T]]:
        seen = set()
        for name in lacking:
            for one in self._sorted().by_class[name].walk(self.line, self.standing.epoch):
                seen.add(one.key)
                yield one
        for one in every:
            if one.key not in seen:
                yield one

    def _lacking(self, deficits: Mapping[str, int]) -> list[str]:
        found = [name for name, lacks in deficits.items() if lacks > 0 and name in self._trees.by_class]
        return sorted(found, key=lambda name: (-deficits[name], name))

    def _after(self, account: str, line: Line[T], own: Charges) -> Order[T]:
        trees = self._trees
        unsorted = trees.unsorted if account in trees.unsorted else (*trees.unsorted, account)
        if len(unsorted) > _MAX_UNSORTED:
            trees, unsorted = self._sorted(), (account,)
        return Order(line, self.standing, own, _Trees(trees.forest, trees.by_class, unsorted))

    def _sorted(self) -> _Trees[T]:
        """Return the trees as they are by now.

        It does not matter when an account is sorted in: below where the ways of two accounts part, neither
        ranks by the other's charges, and above it the last one ranks by both.
        """
        trees = self._trees
        if not trees.unsorted:
            return trees
        ranks = Ranks(self.standing, self.own)
        forest, by_class = trees.forest, trees.by_class
        for account in trees.unsorted:
            requests = self.line.of_account(account)
            forest = forest.after(account, requests, ranks)
            drawing_on = reserve_class(self.standing.policy, self.standing.classes(account))
            by_class = {
                name: one.after(account, requests if name == drawing_on else (), ranks)
                for name, one in by_class.items()
            }
        trees.forest, trees.by_class, trees.unsorted = forest, by_class, ()
        return trees


def _by_reserve(accounts: Iterable[str], standing: Standing) -> dict[str, list[str]]:
    """Return the accounts that draw on each class's reserve."""
    rules = standing.policy.accounts
    found: dict[str, list[str]] = {
        name: [] for name, rule in standing.policy.classes.items() if rule.reserve_permille
    }
    named = {path for path, rule in rules.items() if rule.classes}
    drawing_on: dict[str, str | None] = {}
    for account in accounts if found and named else ():
        for node in reversed(ancestors(account)):
            if node in named:  # whoever has no class of its own has those of its parent
                if node not in drawing_on:
                    drawing_on[node] = reserve_class(standing.policy, standing.classes(node))
                name = drawing_on[node]
                if name is not None:
                    found[name].append(account)
                break
    return found


def parting(first: str, second: str) -> tuple[str, str]:
    """Return the nodes of two accounts that are siblings: where the ways to them part."""
    for ours, others in zip(nodes_of(first), nodes_of(second), strict=False):
        if ours != others:
            return ours, others
    return nodes_of(first)[-1], nodes_of(second)[-1]
