"""Large collections that never change: a change returns another one and copies little.

A donor's queue has up to 10,000 requests, and the state before an event must stay what it was. ``Shards`` is
a map in 256 parts, of which a change copies one; ``Fifo`` is a line of which only the ends matter. Both are
the same on every machine whatever their history: nothing here depends on Python's hashes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

V = TypeVar("V")
_PARTS: Final = 256


@dataclass(frozen=True, slots=True)
class Shards(Generic[V]):
    """A map of many values by two words."""

    parts: tuple[dict[tuple[str, str], V] | None, ...] = (None,) * _PARTS
    count: int = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for part in self.parts:
            if part:
                yield from part

    def get(self, key: tuple[str, str]) -> V | None:
        """Return a value."""
        part = self.parts[_part_of(key)]
        return None if part is None else part.get(key)

    def put(self, key: tuple[str, str], value: V) -> Shards[V]:
        """Return the map with a value."""
        at = _part_of(key)
        part = self.parts[at] or {}
        more = key not in part
        return self._with(at, {**part, key: value}, self.count + more)

    def drop(self, key: tuple[str, str]) -> Shards[V]:
        """Return the map without a value; one that is not there is no error."""
        at = _part_of(key)
        part = self.parts[at]
        if part is None or key not in part:
            return self
        left = dict(part)
        del left[key]
        return self._with(at, left or None, self.count - 1)

    def _with(self, at: int, part: dict[tuple[str, str], V] | None, count: int) -> Shards[V]:
        parts = list(self.parts)
        parts[at] = part
        return Shards(tuple(parts), count)


def _part_of(key: tuple[str, str]) -> int:
    return zlib.crc32(f"{key[0]}\n{key[1]}".encode()) % _PARTS


@dataclass(frozen=True, slots=True, eq=False)  # a comparison would recurse once a value
class Link(Generic[V]):
    """One value of a chain, and the rest of it."""

    value: V
    rest: Link[V] | None


@dataclass(frozen=True, slots=True, eq=False)
class Fifo(Generic[V]):
    """First in, first out. ``front`` is in order, ``back`` the other way round."""

    front: Link[V] | None = None
    back: Link[V] | None = None

    @property
    def first(self) -> V | None:
        """The value that came first; there is always one in front if there is any."""
        return None if self.front is None else self.front.value

    def push(self, value: V) -> Fifo[V]:
        """Return the line with a value at its end."""
        if self.front is None:
            return Fifo(Link(value, None), None)
        return Fifo(self.front, Link(value, self.back))

    def pop(self) -> Fifo[V]:
        """Return the line without its first value."""
        rest = None if self.front is None else self.front.rest
        if rest is not None:
            return Fifo(rest, self.back)
        back, front = self.back, None
        while back is not None:
            front = Link(back.value, front)
            back = back.rest
        return Fifo(front, None)
