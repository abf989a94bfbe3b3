"""Which leases give way when devices are needed: as few as will do, those that lose least.

Rules: elastic leases shrink before any lease ends; then whoever has lost least by it ends first. Afterwards
each is put back that is not needed, the dearest first, so that without any one of those left the need would
not be met (I7). Who may be a victim is the caller's: the owner may take back any device, a guest only what
``federation.fairshare.preemption`` lets it, the reserve only instant leases.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A lease that may give way.

    Args:
        id: the lease's.
        devices: the devices that it has, by name, of those that would be of use.
        lost_msgs: work that would be lost: what it used since its last checkpoint, or since its start.
        spare: those of its devices that it can give up and go on.
    """

    id: str
    devices: frozenset[str]
    lost_msgs: int
    spare: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Victims:
    """Who gives way.

    Args:
        ended: leases that end, in the order in which they were chosen.
        shrunk: leases that go on with less, and the devices that they give up.
        freed: the devices that are free then, of those that would be of use.
    """

    ended: tuple[str, ...] = ()
    shrunk: tuple[tuple[str, frozenset[str]], ...] = ()
    freed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Step:
    lease: str
    devices: frozenset[str]
    ends: bool


def victims_for(
    candidates: Iterable[Candidate], *, these: frozenset[str] = frozenset(), count: int = 0
) -> Victims | None:
    """Return who gives way so that these devices are free, and so many in all; ``None``: it cannot be done.

    Args:
        candidates: leases that may; of two that lose the same, the first by id gives way.
        these: devices that must be among the freed ones.
        count: how many must be freed.
    """
    chosen: list[_Step] = []
    for step in _steps(candidates):
        if _enough(chosen, these, count):
            break
        if step.devices - _freed(chosen):
            chosen.append(step)
    if not _enough(chosen, these, count):
        return None
    for step in reversed(chosen.copy()):
        rest = [one for one in chosen if one is not step]
        if _enough(rest, these, count):
            chosen = rest
    ended = tuple(one.lease for one in chosen if one.ends)
    shrunk: dict[str, frozenset[str]] = {}
    for one in chosen:
        if not one.ends:  # nobody both shrinks and ends: that shrinking would not be needed
            shrunk[one.lease] = shrunk.get(one.lease, frozenset()) | one.devices
    return Victims(ended, tuple(shrunk.items()), _freed(chosen))


def _steps(candidates: Iterable[Candidate]) -> list[_Step]:
    """Return what may be done, the mildest first."""
    ordered = sorted(candidates, key=lambda one: (one.lost_msgs, one.id))
    shrinking = [
        _Step(one.id, frozenset((device,)), ends=False)
        for one in ordered
        for device in sorted(one.spare & one.devices)
    ]
    return shrinking + [_Step(one.id, one.devices, ends=True) for one in ordered]


def _freed(steps: list[_Step]) -> frozenset[str]:
    return frozenset[str]().union(*(step.devices for step in steps))


def _enough(steps: list[_Step], these: frozenset[str], count: int) -> bool:
    freed = _freed(steps)
    return these <= freed and len(freed) >= count
