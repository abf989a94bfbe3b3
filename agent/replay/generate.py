"""Traces made by seed: institutions of different sizes, days and nights, short jobs and a few very long ones.

The same shape, seed and length give the same jobs: each institution and kind of job draws from a generator
of its own, so that adding an institution changes nothing of the others. Arrivals are a Poisson process whose
rate follows the hour of the institution's day and falls at weekends; durations are lognormal, cut at both
ends; widths are mostly one device. The numbers are not fitted to any data. They have the form that public
traces show: most jobs are short, most device time is in the few long ones.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from statistics import NormalDist
from typing import Final

from agent.replay.trace import Job

_HOUR_S: Final = 3600.0
_DAY_S: Final = 24 * _HOUR_S
_WEEK_DAYS: Final = 7
_WORK_DAYS: Final = 5
_BUSIEST_HOUR: Final = 15.0
_WEEKEND: Final = 0.4
_GROUPS: Final = 3
_NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True)
class Durations:
    """A lognormal distribution, cut at both ends."""

    median_s: float
    sigma: float
    least_s: float
    most_s: float

    def draw(self, chance: Random) -> float:
        """Return one duration, in whole milliseconds."""
        drawn = self.median_s * math.exp(self.sigma * chance.gauss(0.0, 1.0))
        return round(min(self.most_s, max(self.least_s, drawn)), 3)

    def mean_s(self) -> float:
        """Return the mean of what is drawn, by the middles of 2,000 equal parts of the distribution."""
        parts = 2000
        total = 0.0
        for at in range(parts):
            drawn = self.median_s * math.exp(self.sigma * _NORMAL.inv_cdf((at + 0.5) / parts))
            total += min(self.most_s, max(self.least_s, drawn))
        return total / parts


LOCAL: Final = Durations(median_s=1200.0, sigma=1.7, least_s=30.0, most_s=24 * _HOUR_S)
"""The owner's own jobs: training and batches, half of them under 20 minutes."""
GUEST: Final = Durations(median_s=480.0, sigma=1.3, least_s=20.0, most_s=8 * _HOUR_S)
"""Models served for somebody elsewhere: half of them under 8 minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Institution:
    """One institution of a made trace.

    Args:
        name: of the institution, its account and its site.
        devices: what it owns; 0: it owns none and only asks.
        local_load: the part of its devices that its own jobs keep busy, on average.
        guest_devices: the devices that its people ask of the federation, on average.
        account_class: such as ``student``; empty: none.
        zone_h: hours that its day is ahead of the trace's.
    """

    name: str
    devices: int
    local_load: float = 0.0
    guest_devices: float = 0.0
    account_class: str = ""
    zone_h: float = 0.0


DEFAULT: Final = (
    Institution(name="alder", devices=64, local_load=0.62, guest_devices=8.0),
    Institution(name="birch", devices=48, local_load=0.58, guest_devices=6.0, zone_h=-6.0),
    Institution(name="cedar", devices=16, local_load=0.60, guest_devices=6.0),
    Institution(name="elm", devices=16, local_load=0.55, guest_devices=6.0, zone_h=8.0),
    Institution(name="fir", devices=12, local_load=0.50, guest_devices=5.0, zone_h=-6.0),
    Institution(name="hazel", devices=4, local_load=0.50, guest_devices=4.0, account_class="student"),
    Institution(name="iris", devices=2, local_load=0.40, guest_devices=4.0, zone_h=8.0),
    Institution(name="juniper", devices=0, guest_devices=3.0, account_class="under-resourced"),
    Institution(name="kelp", devices=0, guest_devices=3.0, account_class="newcomer"),
)
"""A consortium with two large members, three in the middle, two small ones, and two that own nothing."""


def generate(seed: int, jobs: int, institutions: tuple[Institution, ...] = DEFAULT) -> Iterator[Job]:
    """Yield the first ``jobs`` jobs of a shape, in the order of their submission."""
    streams = [_stream(one, seed, local=local) for one in institutions for local in (True, False)]
    return islice(heapq.merge(*streams, key=lambda one: one.submit_s), jobs)


def _stream(one: Institution, seed: int, *, local: bool) -> Iterator[Job]:
    kind = "local" if local else "guest"
    chance = Random(f"{seed}/{one.name}/{kind}")  # noqa: S311 - a simulation's chance, to be repeated
    durations = LOCAL if local else GUEST
    widths = _local_widths(one.devices) if local else ((1, 0.9), (2, 0.1))
    load = one.local_load * one.devices if local else one.guest_devices
    if load <= 0.0:
        return
    mean_width = sum(width * part for width, part in widths)
    rate = load / (durations.mean_s() * mean_width)
    busiest = rate * _hourly(_BUSIEST_HOUR * _HOUR_S, 0.0)
    now_s = 0.0
    while True:
        now_s += chance.expovariate(busiest)
        if chance.random() * busiest > rate * _hourly(now_s, one.zone_h):
            continue
        group = 1 + min(_GROUPS - 1, int(chance.expovariate(1.0)))
        yield Job(
            submit_s=round(now_s, 3),
            account=f"/{one.name}/group-{group}",
            devices=_pick(chance, widths),
            duration_s=durations.draw(chance),
            purpose="research",
            local=local,
            site=one.name,
            user=f"u{1 + int(chance.paretovariate(1.2))}",
            account_class=one.account_class,
        )


def _local_widths(devices: int) -> tuple[tuple[int, float], ...]:
    every = ((1, 0.7), (2, 0.15), (4, 0.1), (8, 0.05))
    fitting = [one for one in every if one[0] <= max(1, devices // 2)]
    whole = sum(part for _, part in fitting)
    return tuple((width, part / whole) for width, part in fitting)


def _pick(chance: Random, widths: tuple[tuple[int, float], ...]) -> int:
    drawn = chance.random()
    for width, part in widths:
        drawn -= part
        if drawn < 0.0:
            return width
    return widths[-1][0]


def _hourly(now_s: float, zone_h: float) -> float:
    """Return how busy the hour is beside the average one: 1.7 at 15 o'clock, 0.3 at 3, less at weekends."""
    local_s = now_s + zone_h * _HOUR_S
    hour = (local_s % _DAY_S) / _HOUR_S
    wave = 1.0 + 0.7 * math.cos((hour - _BUSIEST_HOUR) / 24.0 * math.tau)
    day = int(local_s // _DAY_S) % _WEEK_DAYS
    even = _WEEK_DAYS / (_WORK_DAYS + (_WEEK_DAYS - _WORK_DAYS) * _WEEKEND)
    return wave * even * (1.0 if day < _WORK_DAYS else _WEEKEND)
