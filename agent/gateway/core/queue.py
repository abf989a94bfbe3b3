"""The requests that wait at a donor, in their order, and how long ago each was asked for.

Rules: a request is in the queue once; whoever does not ask again within ``PLACE_TTL_S`` has given its place
up; a change copies little, however long the queue is. Under a policy the order is Fair Tree's, which also
knows the charges of what was admitted here and not yet receipted; without one it is that of arrival.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import merge
from itertools import takewhile
from operator import attrgetter

from agent.gateway.core.persistent import Fifo, Shards
from agent.gateway.core.request import LeaseRequest, RequestKey, account_of
from agent.gateway.core.values import altered
from agent.limits import MAX_CLAIMED_WAIT_S, PLACE_TOUCH_S, PLACE_TTL_S
from federation.fairshare.charging import Charges
from federation.fairshare.line import Line, Waiting
from federation.fairshare.order import NO_DEFICITS, Order
from federation.fairshare.standing import Standing

_asked_at_s = attrgetter("asked_at_s")
_KEPT_S = PLACE_TTL_S + PLACE_TOUCH_S  # the last question may not have been counted


@dataclass(frozen=True, slots=True)
class Wish:
    """A request in the line, and when it came there by the clock of events."""

    request: LeaseRequest
    since_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """When a request was asked for last, and the nonce of its next offer."""

    asked_s: float
    offer_id: str


@dataclass(frozen=True, slots=True)
class Queue:
    """All that waits.

    Args:
        ranked: the line in Fair Tree's order; ``None``: there is no policy.
        arrived: the line without a policy; empty if there is one.
        seen: when each was asked for.
        due: when which may have to be struck off; a request that was asked for since stands there again.
    """

    ranked: Order[Wish] | None = None
    arrived: Line[Wish] = field(default_factory=Line)
    seen: Shards[Seen] = field(default_factory=Shards)
    due: Fifo[tuple[float, RequestKey]] = field(default_factory=Fifo)

    @property
    def line(self) -> Line[Wish]:
        """The requests by account."""
        return self.arrived if self.ranked is None else self.ranked.line

    def __len__(self) -> int:
        return self.line.total

    def get(self, key: RequestKey) -> Waiting[Wish] | None:
        """Return a request that waits."""
        return self.line.get(*key)

    def offer_id(self, key: RequestKey) -> str:
        """Return the nonce of a waiting request's next offer."""
        seen = self.seen.get(key)
        assert seen is not None, "whoever waits was seen"
        return seen.offer_id

    # --- order --------------------------------------------------------------------------------------------

    def walk(self, deficits: Mapping[str, int] = NO_DEFICITS) -> Iterator[Waiting[Wish]]:
        """Yield the requests as they are served; the first ones cost little.

        Args:
            deficits: devices that classes lack of their reserves.
        """
        if self.ranked is not None:
            return self.ranked.walk(deficits)
        return merge(*(_by_arrival(of) for of in self.arrived.accounts.values()), key=_arrival)

    def ahead(self, waiting: Waiting[Wish], deficits: Mapping[str, int] = NO_DEFICITS) -> int:
        """Return how many are served before one of them."""
        if self.ranked is not None:
            return self.ranked.ahead(waiting, deficits)
        mine = _arrival(waiting)
        return sum(_before(of, mine) for of in self.arrived.accounts.values())

    def ruled(self, standing: Standing | None, own: Charges) -> Queue:
        """Return the queue under another standing; ``None``: by arrival."""
        if standing is None:
            return altered(self, ranked=None, arrived=self.line)
        return altered(self, ranked=Order.of(self.line, standing, own), arrived=Line())

    def charged(self, account: str, msgs: int) -> Queue:
        """Return the queue with so much more charged to an account that no receipt speaks of."""
        if self.ranked is None:
            return self
        return Queue(self.ranked.charged(account, msgs), self.arrived, self.seen, self.due)

    # --- coming and going ---------------------------------------------------------------------------------

    def entered(self, waiting: Waiting[Wish], offer_id: str, now_s: float) -> Queue:
        """Return the queue with a request, asked for now."""
        key = waiting.key
        seen, due = self.seen.put(key, Seen(now_s, offer_id)), self.due.push((now_s + _KEPT_S, key))
        if self.ranked is not None:
            return Queue(self.ranked.added(waiting), self.arrived, seen, due)
        return Queue(None, self.arrived.add(waiting), seen, due)

    def asked(self, key: RequestKey, offer_id: str, now_s: float) -> Queue:
        """Return the queue after a waiting request was asked for again."""
        seen = self.seen.get(key)
        if seen is not None and now_s - seen.asked_s < PLACE_TOUCH_S:
            return self
        due = self.due.push((now_s + _KEPT_S, key))
        return Queue(self.ranked, self.arrived, self.seen.put(key, Seen(now_s, offer_id)), due)

    def left(self, key: RequestKey) -> Queue:
        """Return the queue without a request; the same one if it did not wait."""
        if key not in self.line:
            return self
        seen = self.seen.drop(key)
        if self.ranked is not None:
            return Queue(self.ranked.removed(*key), self.arrived, seen, self.due)
        return altered(self, arrived=self.arrived.remove(*key), seen=seen)

    def served(self, key: RequestKey, msgs: int) -> Queue:
        """Return the queue without a request for which its account is charged so much."""
        if self.ranked is None:
            return self.left(key)
        return Queue(self.ranked.served(*key, msgs), self.arrived, self.seen.drop(key), self.due)

    def overdue(self, now_s: float) -> tuple[Queue, tuple[Waiting[Wish], ...]]:
        """Return the queue without those that were not asked for in time, and these."""
        queue, gone = self, []
        while (first := queue.due.first) is not None and first[0] <= now_s:
            queue = altered(queue, due=queue.due.pop())
            seen, waiting = queue.seen.get(first[1]), queue.get(first[1])
            if seen is not None and waiting is not None and seen.asked_s + _KEPT_S <= now_s:
                queue = queue.left(first[1])
                gone.append(waiting)
        return queue, tuple(gone)


def waiting_of(request: LeaseRequest, *, since_s: float, since_unix_s: int, claims: bool) -> Waiting[Wish]:
    """Return a request as it stands in line.

    Args:
        request: with its classes.
        since_s: when it came, by the clock of events.
        since_unix_s: the same as Unix time.
        claims: whether its borrower's word counts on since when it waits, at other donors before.
    """
    asked_at_s = since_unix_s
    if claims and request.asked_at_s:
        asked_at_s = min(since_unix_s, max(request.asked_at_s, since_unix_s - MAX_CLAIMED_WAIT_S))
    return Waiting(
        id=request.id,
        account=account_of(request),
        site=request.borrower_site,
        asked_at_s=asked_at_s,
        devices=request.devices,
        wish=Wish(request, since_s),
    )


def _arrival(waiting: Waiting[Wish]) -> tuple[int, float, RequestKey]:
    return (waiting.asked_at_s, waiting.wish.since_s, waiting.key)


def _by_arrival(of: tuple[Waiting[Wish], ...]) -> tuple[Waiting[Wish], ...]:
    ages = {one.asked_at_s for one in of}
    return of if len(ages) == len(of) else tuple(sorted(of, key=_arrival))


def _before(of: tuple[Waiting[Wish], ...], mine: tuple[int, float, RequestKey]) -> int:
    older = bisect_left(of, mine[0], key=_asked_at_s)
    same = takewhile(lambda one: one.asked_at_s == mine[0], of[older:])
    return older + sum(_arrival(one) < mine for one in same)
