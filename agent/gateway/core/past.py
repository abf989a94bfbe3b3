"""The last leases that ended, oldest first: a map that never changes, of which an end copies little.

Rules: a lease is in it once, and the oldest goes first. Most of it is one dictionary that many versions
share; what came and went since is kept apart, and now and then both become one. Which request lost a lease to
another guest is looked up, not searched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from agent.gateway.core.book import Cause, Lease
from agent.gateway.core.request import RequestKey

_APART: Final = 32
"""Leases that are kept apart: so many are copied with each further one."""


@dataclass(frozen=True, slots=True, eq=False)
class Past(Mapping[str, Lease]):
    """Leases by their ids, in the order in which they ended; ``past_of`` makes one.

    Args:
        whole: most of them; shared, and changed by nobody.
        lost: of these, by request, the last one that another guest's took the devices of, and by when.
        fresh: those that ended since.
        gone: of the whole, the first ones: they were dropped since.
    """

    whole: Mapping[str, Lease] = field(default_factory=dict)
    lost: Mapping[RequestKey, tuple[str, float]] = field(default_factory=dict)
    fresh: dict[str, Lease] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()

    def __getitem__(self, key: str) -> Lease:
        found = self.fresh.get(key)
        if found is None:
            found = self.whole[key]
            if key in self.gone:
                raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        return key in self.fresh or (key in self.whole and key not in self.gone)

    def __iter__(self) -> Iterator[str]:
        yield from islice(self.whole, len(self.gone), None)
        yield from self.fresh

    def __len__(self) -> int:
        return len(self.whole) - len(self.gone) + len(self.fresh)

    def __hash__(self) -> int:
        raise TypeError("a map is not hashed")

    def with_ended(self, lease: Lease, most: int) -> tuple[Past, tuple[str, ...]]:
        """Return the leases with one that has just ended, and the ids of those that went for it."""
        more = len(self) + 1 - most
        first = next(iter(self), None)
        if (
            lease.id in self
            or len(self.fresh) >= _APART
            or more > 1
            or (more == 1 and first not in self.whole)
        ):
            everything = dict(islice(self.whole.items(), len(self.gone), None))
            everything.update(self.fresh)
            everything[lease.id] = lease
            dropped = tuple(islice(everything, max(0, len(everything) - most)))
            return past_of(dict(islice(everything.items(), len(dropped), None))), dropped
        fresh = {**self.fresh, lease.id: lease}
        if more < 1 or first is None:
            return Past(self.whole, self.lost, fresh, self.gone), ()
        return Past(self.whole, self.lost, fresh, self.gone | {first}), (first,)

    def lost_at_s(self, request: RequestKey) -> float | None:
        """Return by when a request had to give a lease up to another guest, the last time that it had to."""
        for lease in reversed(self.fresh.values()):
            if lease.cause is Cause.PREEMPTED and lease.request.key == request:
                moment_s = _lost_s(lease)
                if moment_s is not None:
                    return moment_s
        known = self.lost.get(request)
        return None if known is None or known[0] in self.gone else known[1]


def past_of(ended: Mapping[str, Lease]) -> Past:
    """Return ended leases, oldest first, as such a map, whatever they were given as."""
    if isinstance(ended, Past):
        return ended
    lost = {}
    for lease in ended.values():
        moment_s = _lost_s(lease) if lease.cause is Cause.PREEMPTED else None
        if moment_s is not None:
            lost[lease.request.key] = (lease.id, moment_s)
    return Past(ended, lost)


def _lost_s(lease: Lease) -> float | None:
    return lease.notice_deadline_s if lease.cause is Cause.PREEMPTED else None
