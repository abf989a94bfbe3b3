"""Who waits at a donor: requests by account, each account's the oldest first. Values only.

Rules: a line never changes; adding and removing return a new one and copy little, whatever the length of the
line. A request is known by its borrower's site and that site's own id. The order among accounts is not here:
``federation.fairshare.order`` has it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar
from zlib import crc32

from federation.fairshare.accounts import ancestors
from federation.fairshare.patched import Patched, patched

T = TypeVar("T")
Key = tuple[str, str]
"""A borrower's site and its id of the request."""
_SHARDS: Final = 128
"""The ids are kept in so many parts, of which a change copies one."""


@dataclass(frozen=True, slots=True)
class Waiting(Generic[T]):
    """A request in the line.

    Args:
        id: the borrower's own.
        account: who is to be charged.
        site: the borrower.
        asked_at_s: Unix time since which it waits.
        devices: how many it wants.
        wish: what else its reader needs; the line does not look at it.
    """

    id: str
    account: str
    site: str
    asked_at_s: int
    devices: int
    wish: T

    @property
    def key(self) -> Key:
        """What it is known by."""
        return (self.site, self.id)


@dataclass(frozen=True, slots=True)
class Line(Generic[T]):
    """The requests of a donor's line.

    Args:
        accounts: by account, the oldest first.
        counts: requests by path, with what is below it; a path with none does not stand in it.
        total: how many there are.
        shards: the requests by their keys, in ``_SHARDS`` parts.
    """

    accounts: Patched[tuple[Waiting[T], ...]] = field(default_factory=Patched)
    counts: Patched[int] = field(default_factory=Patched)
    total: int = 0
    shards: tuple[Mapping[Key, Waiting[T]], ...] = field(default=({},) * _SHARDS, repr=False)

    @classmethod
    def of(cls, requests: Iterable[Waiting[T]]) -> Line[T]:
        """Return a line of these requests; of two with one key the first counts."""
        accounts: dict[str, list[Waiting[T]]] = {}
        counts: dict[str, int] = {}
        shards: list[dict[Key, Waiting[T]]] = [{} for _ in range(_SHARDS)]
        total = 0
        for one in requests:
            key = one.key
            shard = shards[_shard_of(key)]
            if key in shard:
                continue
            shard[key] = one
            accounts.setdefault(one.account, []).append(one)
            total += 1
        for account, of in accounts.items():
            of.sort(key=_by_age)
            for path in ancestors(account):
                counts[path] = counts.get(path, 0) + len(of)
        of_account = {account: tuple(of) for account, of in accounts.items()}
        return cls(patched(of_account), patched(counts), total, tuple(shards))

    def __iter__(self) -> Iterator[Waiting[T]]:
        """Yield all, in no order that means anything."""
        for of in self.accounts.values():
            yield from of

    def __len__(self) -> int:
        return self.total

    def __contains__(self, key: Key) -> bool:
        return key in self.shards[_shard_of(key)]

    def get(self, site: str, request_id: str) -> Waiting[T] | None:
        """Return a request, if it is in the line."""
        key = (site, request_id)
        return self.shards[_shard_of(key)].get(key)

    def of_account(self, account: str) -> tuple[Waiting[T], ...]:
        """Return the requests of an account itself, the oldest first."""
        return self.accounts.get(account, ())

    def count(self, path: str) -> int:
        """Return how many requests a path has, with what is below it."""
        return self.counts.get(path, 0)

    def add(self, waiting: Waiting[T]) -> Line[T]:
        """Return the line with a request; one of the same key is replaced, whatever its account."""
        line = self.remove(waiting.site, waiting.id)
        of = list(line.of_account(waiting.account))
        insort(of, waiting, key=_by_age)
        return _changed(line, waiting, tuple(of), 1)

    def remove(self, site: str, request_id: str) -> Line[T]:
        """Return the line without a request; the same line if it was not there."""
        gone = self.get(site, request_id)
        if gone is None:
            return self
        of = tuple([one for one in self.accounts[gone.account] if one is not gone])
        return _changed(self, gone, of, -1)


def _changed(line: Line[T], one: Waiting[T], of: tuple[Waiting[T], ...], more: int) -> Line[T]:
    """Return a line with other requests of an account: one more or one less."""
    accounts = line.accounts.with_changes({one.account: of or None})
    counts = line.counts.with_changes(
        {path: line.counts.get(path, 0) + more or None for path in ancestors(one.account)}
    )
    key = one.key
    at = _shard_of(key)
    shard = dict(line.shards[at])
    if more > 0:
        shard[key] = one
    else:
        del shard[key]
    shards = list(line.shards)
    shards[at] = shard
    return Line(accounts, counts, line.total + more, tuple(shards))


def _by_age(waiting: Waiting[T]) -> tuple[int, Key]:
    return (waiting.asked_at_s, waiting.key)


def _shard_of(key: Key) -> int:
    return crc32(key[1].encode("utf-8", "surrogatepass")) % _SHARDS
