"""The figures of a replay: waits, shares and device-hours by institution, by class and by size.

A wait is the time from a job's submission until it first serves, its start included. A job that never did has
waited until it was given up, or until the span's end, so that no quantile is flattered by it. Quantiles are
nearest ranks. Bands of size go by the devices that an institution's site owns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from agent.replay.outcome import GuestJob, Outcome, Stay

_HOUR_S: Final = 3600.0
SIZES: Final = (("owns none", 0), ("1 to 8", 8), ("9 to 32", 32), ("33 and more", None))
"""Bands of size: what they are called, and the most devices in each."""


@dataclass(frozen=True, slots=True)
class Group:
    """The guests' side of some jobs; hours are device-hours within the span.

    Args:
        name: of the institution, class or band.
        jobs: that asked.
        refused: that nobody lends to.
        given_up: that were waited for in vain.
        never_started: that still wait at the end.
        wait_p50_s, wait_p90_s: how long they waited until they served; ``None``: there are none.
        useful_h: work that was kept.
        share: of all guests' useful hours; 0 when there are none.
        asked_h: what the jobs came to.
    """

    name: str
    jobs: int
    refused: int
    given_up: int
    never_started: int
    wait_p50_s: float | None
    wait_p90_s: float | None
    useful_h: float
    share: float
    asked_h: float


@dataclass(frozen=True, slots=True)
class OwnGroup:
    """The owner's side of one site; waits of its own jobs with guests, and on the cluster alone."""

    name: str
    devices: int
    jobs: int
    wait_p50_s: float | None
    wait_p90_s: float | None
    alone_p90_s: float | None
    longer_most_s: float
    reclaims: int
    reclaim_p50_s: float | None
    reclaim_most_s: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """One replay in figures.

    Args:
        policy: what it was decided by.
        start: what a start cost, by name.
        start_s: the same in seconds.
        span_h: how long the replay lasted.
        device_h: all devices, all the time.
        own_h: the owners' own jobs.
        idle_h: what these left.
        recovered_h: guests' work that was kept: idle hours put to use.
        starting_h: devices held by guests that did not serve yet, or were handed back.
        lost_h: guests' work that was lost with its lease.
        utilisation: own and guests' device time, of all.
        badput: lost work, of kept and lost work.
        evictions: leases that their donors ended.
        total: all guests together.
        institutions, classes, sizes: the same, apart.
        owners: the owners' side.
    """

    policy: str
    start: str
    start_s: float
    span_h: float
    device_h: float
    own_h: float
    idle_h: float
    recovered_h: float
    starting_h: float
    lost_h: float
    utilisation: float
    badput: float
    evictions: int
    total: Group
    institutions: tuple[Group, ...]
    classes: tuple[Group, ...]
    sizes: tuple[Group, ...]
    owners: tuple[OwnGroup, ...]

    def document(self) -> dict[str, Any]:
        """Return it as plain values, figures to six digits."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def summarise(outcome: Outcome, *, policy: str, start: str, start_s: float) -> Summary:
    """Return the figures of a replay."""
    span_s = outcome.span_s
    devices = sum(one.devices for one in outcome.donors)
    device_h = devices * span_s / _HOUR_S
    own_h = sum(one.busy_s for one in outcome.own.values()) / _HOUR_S
    useful_h = _hours(outcome.stays, lambda stay: stay.useful_s)
    lost_h = _hours(outcome.stays, lambda stay: stay.lost_s)
    held_h = _hours(outcome.stays, lambda stay: stay.held_s)
    sizes = {one.site: one.devices for one in outcome.donors}
    every = _Groups(outcome)
    return Summary(
        policy=policy,
        start=start,
        start_s=start_s,
        span_h=span_s / _HOUR_S,
        device_h=device_h,
        own_h=own_h,
        idle_h=device_h - own_h,
        recovered_h=useful_h,
        starting_h=_hours(outcome.stays, lambda stay: stay.starting_s),
        lost_h=lost_h,
        utilisation=_part(own_h + held_h, device_h),
        badput=_part(lost_h, useful_h + lost_h),
        evictions=sum(one.evicted for one in outcome.stays),
        total=every.of("all", outcome.guests),
        institutions=every.by(lambda job: job.institution),
        classes=every.by(lambda job: job.account_class),
        sizes=every.by(lambda job: _band(sizes.get(job.site, 0)), [name for name, _ in SIZES]),
        owners=tuple(_own(outcome, site) for site in sorted(outcome.own)),
    )


def quantile(values: Sequence[float], part: float) -> float | None:
    """Return the nearest-rank quantile, or ``None`` of no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


class _Groups:
    def __init__(self, outcome: Outcome) -> None:
        self._span_s = outcome.span_s
        self._guests = outcome.guests
        self._all_s = sum(job.devices * job.saved_s for job in outcome.guests)

    def by(self, key: Callable[[GuestJob], str], order: Sequence[str] | None = None) -> tuple[Group, ...]:
        parts: dict[str, list[GuestJob]] = {}
        for job in self._guests:
            name = key(job)
            if name:
                parts.setdefault(name, []).append(job)
        names = [name for name in order if name in parts] if order is not None else sorted(parts)
        return tuple(self.of(name, parts[name]) for name in names)

    def of(self, name: str, jobs: Sequence[GuestJob]) -> Group:
        taken = [job for job in jobs if not job.refused]
        waits = [_wait_s(job, self._span_s) for job in taken]
        useful_s = sum(job.devices * job.saved_s for job in jobs)
        return Group(
            name=name,
            jobs=len(jobs),
            refused=len(jobs) - len(taken),
            given_up=sum(job.given_up_s is not None for job in taken),
            never_started=sum(job.started_s is None and job.given_up_s is None for job in taken),
            wait_p50_s=quantile(waits, 0.5),
            wait_p90_s=quantile(waits, 0.9),
            useful_h=useful_s / _HOUR_S,
            share=_part(useful_s, self._all_s),
            asked_h=sum(job.devices * job.wanted_s for job in jobs) / _HOUR_S,
        )


def _wait_s(job: GuestJob, span_s: float) -> float:
    until_s = span_s if job.given_up_s is None else job.given_up_s
    return (until_s if job.started_s is None else job.started_s) - job.submit_s


def _own(outcome: Outcome, site: str) -> OwnGroup:
    own = outcome.own[site]
    longer = [after - before for after, before in zip(own.waits_s, own.alone_s, strict=False)]
    return OwnGroup(
        name=site,
        devices=next(one.devices for one in outcome.donors if one.site == site),
        jobs=len(own.waits_s),
        wait_p50_s=quantile(own.waits_s, 0.5),
        wait_p90_s=quantile(own.waits_s, 0.9),
        alone_p90_s=quantile(own.alone_s, 0.9),
        longer_most_s=max(longer, default=0.0),
        reclaims=len(own.reclaims_s),
        reclaim_p50_s=quantile(own.reclaims_s, 0.5),
        reclaim_most_s=max(own.reclaims_s, default=None),
    )


def _band(devices: int) -> str:
    return next(name for name, most in SIZES if most is None or devices <= most)


def _hours(stays: Iterable[Stay], seconds: Callable[[Stay], float]) -> float:
    return sum(seconds(one) * one.devices for one in stays) / _HOUR_S


def _part(some: float, whole: float) -> float:
    return some / whole if whole > 0.0 else 0.0


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value
