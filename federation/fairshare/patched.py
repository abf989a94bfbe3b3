"""Large collections that never change: a change returns another one and touches little of the memory.

``Patched`` is a map of two parts: one that many versions share, and a small one of what has changed since;
now and then both become one. ``Siblings`` are sorted places in blocks, of which a change copies one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar, overload

V = TypeVar("V")
D = TypeVar("D")
Place = tuple[int, int, bytes, str, int]
"""A node among its siblings: rank, age and lot of its next request, its name, how many requests it has."""
Block = tuple[int, tuple[Place, ...]]
"""How many requests its places have, and these."""
Siblings = tuple[Block, ...]
_PATCH: Final = 48
"""Changes that a map keeps apart: so many are copied with each further one."""
_BLOCK: Final = 48
"""Places in a block when it is made; with twice as many it is split."""


@dataclass(frozen=True, slots=True, eq=False)
class Patched(Mapping[str, V], Generic[V]):
    """A map by text.

    Args:
        base: most of it; shared, and changed by nobody.
        patch: what differs; ``None``: it is not there.
        count: how many entries there are.
    """

    base: Mapping[str, V] = field(default_factory=dict)
    patch: Mapping[str, V | None] = field(default_factory=dict)
    count: int = 0

    def __getitem__(self, key: str) -> V:
        value = self.patch[key] if key in self.patch else self.base[key]
        if value is None:
            raise KeyError(key)
        return value

    @overload
    def get(self, key: str, /) -> V | None: ...

    @overload
    def get(self, key: str, default: V, /) -> V: ...

    @overload
    def get(self, key: str, default: D, /) -> V | D: ...

    def get(self, key: str, default: object = None, /) -> object:
        """Return a value, or the default."""
        patch = self.patch
        if key in patch:
            value = patch[key]
            return default if value is None else value
        return self.base.get(key, default)

    def __contains__(self, key: object) -> bool:
        return self.patch[key] is not None if key in self.patch else key in self.base  # type: ignore[index]

    def __iter__(self) -> Iterator[str]:
        yield from (key for key in self.base if key not in self.patch)
        yield from (key for key, value in self.patch.items() if value is not None)

    def __len__(self) -> int:
        return self.count

    def __hash__(self) -> int:
        raise TypeError("a map is not hashed")

    @property
    def plain(self) -> Mapping[str, V]:
        """The same entries, to be read fastest."""
        return self if self.patch else self.base

    def with_changes(self, changes: Mapping[str, V | None]) -> Patched[V]:
        """Return the map with other values; ``None``: without."""
        count = self.count
        base, before = self.base, self.patch
        for key, value in changes.items():
            was = before[key] is not None if key in before else key in base
            count += (value is not None) - was
        patch = {**before, **changes}
        if len(patch) <= _PATCH:
            return Patched(self.base, patch, count)
        whole = dict(self.base)
        for key, value in patch.items():
            if value is None:
                whole.pop(key, None)
            else:
                whole[key] = value
        return Patched(whole, {}, count)


def patched(base: Mapping[str, V]) -> Patched[V]:
    """Return a map of these entries, which nobody changes any more."""
    return Patched(base, {}, len(base))


def siblings_of(places: list[Place]) -> Siblings:
    """Return sorted places in blocks."""
    if len(places) == 1:
        return ((places[0][4], (places[0],)),)
    if len(places) <= _BLOCK:
        return (_block(tuple(places)),)
    return tuple(_block(tuple(places[at : at + _BLOCK])) for at in range(0, len(places), _BLOCK))


def replaced(siblings: Siblings, before: Place | None, after: Place | None) -> Siblings:
    """Return siblings with another place for one of them; ``None``: it is not among them."""
    blocks = list(siblings)
    if before is not None:
        at = _found(blocks, before)
        count, places = blocks[at]
        inside = bisect_left(places, before)
        left = places[:inside] + places[inside + 1 :]
        if left:
            blocks[at] = (count - before[4], left)
        else:
            del blocks[at]
    if after is not None:
        if not blocks:
            return ((after[4], (after,)),)
        at = _found(blocks, after)
        count, places = blocks[at]
        inside = bisect_left(places, after)
        more = (*places[:inside], after, *places[inside:])
        if len(more) <= 2 * _BLOCK:
            blocks[at] = (count + after[4], more)
        else:
            blocks[at : at + 1] = [_block(more[:_BLOCK]), _block(more[_BLOCK:])]
    return tuple(blocks)


def ahead_of(siblings: Siblings, place: Place) -> int:
    """Return how many requests the places before one of them have."""
    count = 0
    for requests, places in siblings:
        if places[-1] >= place:
            return count + sum(one[4] for one in places[: bisect_left(places, place)])
        count += requests
    return count


def _found(blocks: list[Block], place: Place) -> int:
    """Return the number of the block in which a place is, or into which it goes."""
    last = len(blocks) - 1
    return bisect_left(blocks, place, hi=last, key=_last_of) if last else 0


def _last_of(block: Block) -> Place:
    return block[1][-1]


def _block(places: tuple[Place, ...]) -> Block:
    return sum(one[4] for one in places), places
