"""How long a request waits: the line played on, with leases as long as those before them.

Rules: the same state gives the same estimate; the work is bounded, whatever the length of the line. Each of
``REPLAYS`` plays gives every lease a length among those of the last leases here, longer than it has run
already; requests take devices in the line's order as these come free. What half, and nine of ten, of the
plays say is the estimate. Of a long line the first part is played, and the rest counted by its pace.

Not here: those who come later and go first, owners who take devices back, requests that fit on some devices
only. It is an estimate, and says so by its range.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Final, NamedTuple
from zlib import crc32

from agent.gateway.core.book import Lease, LeaseState, Stopping
from agent.gateway.core.change import Change
from agent.gateway.core.queue import Wish
from agent.gateway.core.supply import Supply
from agent.limits import KILL_SLACK_S
from federation.fairshare.line import Waiting

REPLAYS: Final = 11
PLAYED: Final = 48
"""Requests of the line that are played one by one."""
MIN_DURATIONS: Final = 5
"""With fewer leases to judge by nothing is said."""
_ODD: Final = 0x9E3779B1
_WORD: Final = 0xFFFFFFFF
"""A multiplication by an odd word mixes a name with the number of a play (Knuth, 6.4)."""


def eta_of(change: Change, supply: Supply, waiting: Waiting[Wish], ahead: int) -> tuple[float, float] | None:
    """Return how long a request waits from now, in half and in nine of ten plays; ``None``: unknown."""
    lengths = sorted(change.durations)
    devices = sum(len(one.lent) for one in supply.shelves_for(waiting.wish.request))
    if len(lengths) < MIN_DURATIONS or not devices:
        return None
    before = [one.devices for one in islice(change.queue.walk(supply.deficits), min(ahead, PLAYED))]
    scale = max(1.0, ahead / PLAYED) if ahead > PLAYED else 1.0
    free = sum(len(one.free) for one in supply.shelves.values())
    rests = [*_rests(change, lengths)]
    wants = [*before, waiting.devices]
    plays = sorted(_play(free, rests, lengths, wants, seed) * scale for seed in range(REPLAYS))
    return plays[REPLAYS // 2], plays[REPLAYS * 9 // 10]


class _Rest(NamedTuple):
    """Devices that come free together: after a length from ``first`` on, and in ``ends_s`` at the latest."""

    devices: int
    first: int
    ran_s: float
    ends_s: float
    draw: int


def _rests(change: Change, lengths: Sequence[float]) -> Iterator[_Rest]:
    """Yield what is in use, each device once."""
    for lease in change.leases.values():
        waits = lease.state is LeaseState.WAITING
        ran_s = 0.0 if waits else change.now_s - lease.granted_at_s
        ends_s = lease.terms.max_duration_s - ran_s
        if lease.notice_deadline_s is not None:
            ends_s = min(ends_s, lease.notice_deadline_s - change.now_s)
        count = len(lease.devices) if waits else _left_by(change, lease)
        if count:
            yield _Rest(count, bisect_right(lengths, ran_s), ran_s, ends_s, crc32(lease.id.encode()))
    for offer in change.offers.values():
        first, draw = bisect_right(lengths, 0.0), crc32(offer.id.encode())
        yield _Rest(len(offer.devices), first, 0.0, offer.terms.max_duration_s, draw)
    for left in change.stopping.values():
        yield _Rest(_left_by(change, left), len(lengths), 0.0, KILL_SLACK_S, 0)


def _play(
    free: int, rests: Sequence[_Rest], lengths: Sequence[float], wants: Sequence[int], seed: int
) -> float:
    """Return when the last of some requests has its devices, in one play."""
    free_at = [0.0] * free
    for rest in rests:
        left_s = _length(lengths, rest.first, rest.ran_s, rest.draw, seed) - rest.ran_s
        free_at += [max(0.0, min(left_s, rest.ends_s))] * rest.devices
    heapify(free_at)
    at_s = 0.0
    for number, count in enumerate(wants):
        taken = [heappop(free_at) for _ in range(min(count, len(free_at)))]
        at_s = max(at_s, *taken) if taken else at_s
        length = _length(lengths, 0, 0.0, number, seed)
        for _ in taken:
            heappush(free_at, at_s + length)
    return at_s


def _left_by(change: Change, held: Lease | Stopping) -> int:
    """Return how many devices are nobody's after it: none that an offer, or a lease, is to have next."""
    return sum(one not in change.awaited for one in held.devices)


def _length(lengths: Sequence[float], first: int, ran_s: float, draw: int, seed: int) -> float:
    """Return how long a lease is in a play: as long as one before it that was longer than it has run."""
    if first == len(lengths):
        return ran_s + lengths[len(lengths) // 2]  # longer than all before it: as long again as most
    mixed = (draw ^ seed * _ODD) * _ODD & _WORD
    return lengths[first + (mixed >> 16) % (len(lengths) - first)]
