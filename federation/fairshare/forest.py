"""A Fair Tree over the accounts of a line that is kept sorted: one event re-sorts one path of it.

Rules: siblings with an active request stand in the order of their ranks; equal ones in the order of the
requests that they would be served next: the older, then the lot. An account with requests of its own has a
*seat*, which stands among the accounts below it like one of them, with weight 1. Aging is the account's
alone: it works on the account's node, or on its seat where accounts below it wait too, and never on what is
above, so that an institution does not rise by what its own split does to one of its projects.

A forest never changes; what an event does not touch is shared by the forests before and after it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter
from typing import Generic, TypeVar

from federation.fairshare.accounts import MAX_DEPTH, nodes_of
from federation.fairshare.line import Line, Waiting
from federation.fairshare.patched import Patched, Place, Siblings, ahead_of, patched, replaced, siblings_of
from federation.fairshare.rank import Ranks, known_lot, lot

T = TypeVar("T")
_asked_at_s = attrgetter("asked_at_s")


@dataclass(frozen=True, slots=True)
class Forest(Generic[T]):
    """The accounts of a line in the order in which they are served.

    Args:
        places: the place of each active node.
        below: the places of active nodes by the node above them, sorted.
    """

    places: Patched[Place] = field(default_factory=Patched)
    below: Patched[Siblings] = field(default_factory=Patched, compare=False)

    @classmethod
    def of(
        cls,
        line: Line[T],
        accounts: Iterable[str],
        ranks: Ranks,
        *,
        within: Forest[T] | None = None,
    ) -> Forest[T]:
        """Return the forest of some accounts of a line; ``within``: that of all its accounts, made before."""
        waiting = line.accounts.plain
        known = within.places.plain if within is not None else {}
        inside: dict[str, list[Place]] = {}
        places: dict[str, Place] = {}
        by_depth: tuple[dict[str, str], ...] = tuple({} for _ in range(MAX_DEPTH))  # node: the one above it
        for account in accounts:
            nodes = nodes_of(account)
            seat = nodes[-1]
            places[seat] = place = known.get(seat) or _seat_place(seat, waiting[account], ranks)
            inside[account] = [place]
            depth = len(nodes) - 2
            while depth >= 0 and nodes[depth] not in by_depth[depth]:
                by_depth[depth][nodes[depth]] = nodes[depth - 1] if depth else ""
                depth -= 1
        below: dict[str, Siblings] = {}
        for level in reversed(by_depth):
            for node, above in level.items():
                of = inside[node]
                if len(of) > 1:
                    of.sort()
                    siblings = siblings_of(of)
                else:
                    siblings = ((of[0][4], (of[0],)),)
                below[node] = siblings
                places[node] = place = _place(node, siblings, ranks, known.get(node))
                if above in inside:
                    inside[above].append(place)
                else:
                    inside[above] = [place]
        if places:
            below[""] = siblings_of(sorted(inside[""]))
        return cls(patched(places), patched(below))

    def after(self, account: str, requests: tuple[Waiting[T], ...], ranks: Ranks) -> Forest[T]:
        """Return the forest after a change of an account's requests or charges, in time of its depth.

        Args:
            account: which one; without requests those above it may be here for others, and be charged too.
            requests: those that it has now.
            ranks: as they are now.
        """
        nodes = nodes_of(account)
        if not requests and not any(node in self.places for node in nodes):
            return self
        places: dict[str, Place | None] = {}
        below: dict[str, Siblings | None] = {}
        known, siblings = self.places.get, self.below.get
        place = _seat_place(nodes[-1], requests, ranks) if requests else None
        for at in range(len(nodes) - 1, -1, -1):
            node = nodes[at]
            if at < len(nodes) - 1:
                inside = below[node] if node in below else siblings(node)
                place = _place(node, inside, ranks) if inside else None
            before = known(node)
            if place != before:
                above = nodes[at - 1] if at else ""
                places[node] = place
                below[above] = replaced(siblings(above) or (), before, place) or None
        return Forest(self.places.with_changes(places), self.below.with_changes(below))

    def walk(self, line: Line[T], epoch: int) -> Iterator[Waiting[T]]:
        """Yield the requests, depth first."""
        accounts, below = line.accounts.plain, self.below.plain
        stack = [_each(below.get("", ()))]
        while stack:
            place = next(stack[-1], None)
            if place is None:
                stack.pop()
                continue
            node = place[3]
            if node[-1] == "/":
                yield from in_account(accounts[node[:-1]], epoch)
            else:
                stack.append(_each(below[node]))

    def ahead(self, waiting: Waiting[T], line: Line[T], epoch: int) -> int:
        """Return how many requests stand before one of the line."""
        count, above = 0, ""
        for node in nodes_of(waiting.account):
            count += ahead_of(self.below[above], self.places[node])
            above = node
        return count + _older(line.of_account(waiting.account), waiting, epoch)


def in_account(requests: tuple[Waiting[T], ...], epoch: int) -> tuple[Waiting[T], ...]:
    """Return an account's requests as they are served: the older first, equally old ones by lot."""
    ages = list(map(_asked_at_s, requests))
    if len(set(ages)) == len(ages):
        return requests
    found = list(requests)
    for age in {one for one, other in pairwise(ages) if one == other}:
        equal = slice(bisect_left(ages, age), bisect_right(ages, age))
        found[equal] = sorted(found[equal], key=lambda one: known_lot(one.key, epoch))
    return tuple(found)


def _older(requests: tuple[Waiting[T], ...], waiting: Waiting[T], epoch: int) -> int:
    """Return how many of an account's requests are served before one of them."""
    first = bisect_left(requests, waiting.asked_at_s, key=_asked_at_s)
    after = bisect_right(requests, waiting.asked_at_s, lo=first, key=_asked_at_s)
    if after - first < 2:
        return first
    mine = known_lot(waiting.key, epoch)
    return first + sum(known_lot(one.key, epoch) < mine for one in requests[first:after])


def _each(siblings: Siblings) -> Iterator[Place]:
    for _, places in siblings:
        yield from places


def _seat_place(seat: str, requests: tuple[Waiting[T], ...], ranks: Ranks) -> Place:
    head = requests[0]
    asked_at_s = head.asked_at_s
    drawn = lot(head.key, ranks.epoch)
    if len(requests) > 1 and requests[1].asked_at_s == asked_at_s:
        drawn = min(lot(one.key, ranks.epoch) for one in requests if one.asked_at_s == asked_at_s)
    return (ranks.rank_aged(seat, asked_at_s), asked_at_s, drawn, seat, len(requests))


def _place(node: str, inside: Siblings, ranks: Ranks, same: Place | None = None) -> Place:
    """Return the place of a node with accounts below it; ``same``: its place if all it has is in that one."""
    count = sum(requests for requests, _ in inside) if len(inside) > 1 else inside[0][0]
    places = inside[0][1]
    if same is not None and same[4] == count:
        return same
    _, asked_at_s, drawn, first, _ = places[0]
    alone = count == places[0][4] and first[-1] == "/"
    return (ranks.rank_aged(node, asked_at_s) if alone else ranks.rank(node), asked_at_s, drawn, node, count)
