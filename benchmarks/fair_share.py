"""``fair_share``: the thresholds S1 to S9, measured by seeded simulations over the real decision core.

Each line is one figure beside its threshold; a ratio of at most 1 is within it. ``--days`` and ``--seeds``
make it shorter; ``--only S1 S4`` picks. Utilisation is given as what is missing, so that less is better.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from agent.replay.generate import Institution, generate
from agent.replay.outcome import Outcome
from agent.replay.summary import summarise
from agent.replay.trace import Job
from agent.replay.world import WARM, DonorSpec, Partition, World
from benchmarks.report import Figure, spread
from benchmarks.sharing import (
    DAY_S,
    HOUR_S,
    MIXED,
    ONES,
    Borrower,
    borrowers,
    donors,
    due_of,
    errors,
    held,
    longest_gap,
    misplaced,
    most_held,
    saturate,
    windows,
    worst,
)
from federation.policy.policy import Caps, Lend

SEEDS = (1, 2, 3)
T_RECLAIM_EXTRA_S = 2.0 + 10.0 + 10.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of one seed; ``limit`` is the threshold that it must not exceed."""

    name: str
    value: float
    unit: str
    limit: float
    what: str
    detail: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How large a scenario is; the thresholds are those of the one that is so by default."""

    days: float = 7.5
    donors: int = 8
    devices: int = 16
    median_s: float = HOUR_S
    warm_up_s: float = 12 * HOUR_S
    """Left out of shares: all devices are given away at one moment at first, and come free together."""

    @property
    def span_s(self) -> float:
        """How long it lasts."""
        return self.days * DAY_S

    def where(self) -> tuple[DonorSpec, ...]:
        """Return who lends."""
        return donors(self.donors, self.devices)

    def some(self, widths: tuple[tuple[int, float], ...] = ONES) -> tuple[Borrower, ...]:
        """Return who asks."""
        return borrowers(median_s=self.median_s, most_s=6 * self.median_s, widths=widths)


Scenario = Callable[[int, Setting], Iterator[Measured]]
"""Given a seed and a setting, yields what was measured."""


def s1(seed: int, of: Setting) -> Iterator[Measured]:
    """Books five minutes late: each share of a week, and of the worst six hours."""
    some = of.some()
    outcome = saturate(World(donors=of.where(), lag_s=300.0), some, seed=seed, days=of.days)
    due = due_of(some)
    week = errors(outcome.stays, due, of.warm_up_s, of.span_s)
    yield Measured(
        "s1_week", worst(week), "of its due", 0.03, "the farthest share of the week", _rounded(week)
    )
    six = [
        errors(outcome.stays, due, begin_s, end_s)
        for begin_s, end_s in windows(of.warm_up_s, of.span_s, 6 * HOUR_S, HOUR_S)
    ]
    most = max(six, key=worst)
    detail = {**_rounded(most), "misplaced": round(max(misplaced(one, due) for one in six), 4)}
    yield Measured("s1_six_hours", worst(most), "of its due", 0.25, "the farthest share of six hours", detail)


def s2(seed: int, of: Setting) -> Iterator[Measured]:
    """The borrower with 40 % of the weight can ask three of eight donors only: 37.5 % of the devices."""
    some = of.some()
    where = of.where()
    reach = {"ash": frozenset(one.site for one in where[: 3 * of.donors // 8])}
    outcome = saturate(World(donors=where, lag_s=300.0, reach=reach), some, seed=seed, days=of.days)
    week = errors(outcome.stays, due_of(some), of.warm_up_s, of.span_s)
    what = "the share of who is confined"
    yield Measured("s2_confined", abs(week["ash"]), "of its due", 0.10, what, _rounded(week))


def s3(seed: int, of: Setting) -> Iterator[Measured]:
    """After a day of fresh books they are two, or six, hours late for good."""
    for hours in (2, 6):
        some = of.some()
        world = World(donors=of.where(), lag_s=300.0, lags=((DAY_S, hours * HOUR_S),))
        outcome = saturate(world, some, seed=seed, days=of.days)
        due = due_of(some)
        week = errors(outcome.stays, due, DAY_S, of.span_s)
        gap_s = max(longest_gap(outcome.stays, name, 0.0, of.span_s) for name in due)
        name, what = f"s3_lag_{hours}h", f"the farthest share, books {hours} h late"
        yield Measured(name, worst(week), "of its due", 0.08, what, _rounded(week))
        yield Measured(f"{name}_gap", gap_s, "s", 8 * HOUR_S, "the longest time that anybody had nothing")


def s4(seed: int, of: Setting) -> Iterator[Measured]:
    """Somebody new begins to ask, with a weight of 10 beside 100."""
    join_s = of.span_s - DAY_S
    old = of.some()
    new = replace(old[0], name="gorse", weight=10, from_s=join_s)
    outcome = saturate(World(donors=of.where(), lag_s=300.0), (*old, new), seed=seed, days=of.days)
    due = due_of((*old, new))
    devices = sum(one.devices for one in outcome.donors)
    fair = due["gorse"] * devices
    reached_s = _reached(outcome, "gorse", 0.9 * fair, join_s)
    yield Measured("s4_newcomer", reached_s - join_s, "s", 3 * HOUR_S, "until it first had 90 % of its share")
    most = most_held(outcome.stays, "gorse", join_s) / fair
    yield Measured("s4_newcomer_most", most, "of its share", 2.5, "the most that it had at once")
    least = min(
        held(outcome.stays, begin_s, end_s).get(one.name, 0.0) / (6 * HOUR_S) / (due[one.name] * devices)
        for one in old
        for begin_s, end_s in windows(join_s, of.span_s, 6 * HOUR_S, HOUR_S)
    )
    what = "what incumbents lacked of their shares in the worst six hours"
    yield Measured("s4_incumbents", 1.0 - least, "of its share", 0.75, what)


def s5(seed: int, of: Setting) -> Iterator[Measured]:
    """For a day neither books nor requests pass between two halves; weights are 55 here and 45 there."""
    cut_s = 2 * DAY_S
    some = of.some()
    where = of.where()
    sides = ({"ash", "elder", "fig"}, {"beech", "cherry", "dogwood"})
    halves = (where[: of.donors // 2], where[of.donors // 2 :])
    groups = tuple(
        frozenset(names | {one.site for one in half}) for names, half in zip(sides, halves, strict=True)
    )
    world = World(
        donors=where,
        lag_s=300.0,
        partitions=(Partition(cut_s, cut_s + DAY_S, groups),),
        partition_asks=True,
    )
    outcome = saturate(world, some, seed=seed, days=max(of.days, 6.0))
    due = due_of(some)
    each = [
        errors(outcome.stays, due, cut_s + at * HOUR_S, cut_s + DAY_S + at * HOUR_S) for at in range(0, 25, 6)
    ]
    most = max(each, key=worst)
    yield Measured(
        "s5_worst_day", worst(most), "of its due", 0.30, "the farthest share of a day", _rounded(most)
    )
    after_s = cut_s + 3 * DAY_S
    later = errors(outcome.stays, due, after_s, after_s + DAY_S)
    what = "the farthest share of the day that begins two days after"
    yield Measured("s5_after", worst(later), "of its due", 0.03, what, _rounded(later))


def s6(seed: int, of: Setting) -> Iterator[Measured]:
    """Some jobs want several devices of one node, for which freed ones are held; what lies idle of all."""
    some = of.some(MIXED)
    outcome = saturate(World(donors=of.where(), lag_s=300.0), some, seed=seed, days=of.days)
    used_s = sum(held(outcome.stays, of.warm_up_s, of.span_s).values())
    whole_s = sum(one.devices for one in outcome.donors) * (of.span_s - of.warm_up_s)
    yield Measured("s6_idle", 1.0 - used_s / whole_s, "of device time", 0.08, "devices that nobody had")
    waits = sorted(
        (outcome.span_s if one.started_s is None else one.started_s) - one.submit_s for one in outcome.guests
    )
    limit_s = 6.0 * Caps().max_wait_s
    what = "six times the time after which requests age"
    longest = {f"{width}_wide": 0.0 for width, _ in MIXED}
    for one in outcome.guests:
        end_s = outcome.span_s if one.started_s is None else one.started_s
        name = f"{one.devices}_wide"
        longest[name] = max(longest[name], round(end_s - one.submit_s))
    detail = {"p50": round(statistics.median(waits)), "p99": round(waits[int(0.99 * len(waits))]), **longest}
    yield Measured("s7_longest_wait", waits[-1], "s", limit_s, what, detail)


def s8(seed: int, of: Setting) -> Iterator[Measured]:
    """Owners' own jobs come and go by day and night while guests fill what they leave."""
    some = of.some()
    where = of.where()
    own = own_jobs(where, seed, of.days)
    lend = Lend()
    outcome = saturate(World(donors=where, lag_s=300.0), some, seed=seed, days=of.days, own=own)
    longer = [
        after - before
        for each in outcome.own.values()
        for after, before in zip(each.waits_s, each.alone_s, strict=False)
    ]
    limit_s = T_RECLAIM_EXTRA_S + lend.grace_s
    yield Measured("s8_own_longer", max(longer), "s", limit_s, "T_reclaim", {"jobs": len(longer)})
    summary = summarise(outcome, policy="", start=WARM.name, start_s=WARM.seconds)
    detail = {
        "evictions": summary.evictions,
        "own_load": round(summary.own_h / summary.device_h, 3),
        "utilisation": round(summary.utilisation, 4),
    }
    yield Measured("s9_badput", summary.badput, "of work", 0.05, "guests' work that was lost", detail)


def own_jobs(where: Sequence[DonorSpec], seed: int, days: float) -> list[Job]:
    """Return owners' own jobs that keep half of each donor's devices busy on average."""
    shape = tuple(
        Institution(name=one.site, devices=one.devices, local_load=0.5, zone_h=3.0 * at)
        for at, one in enumerate(where)
    )
    jobs = []
    for job in generate(seed, 10**6, shape):
        if job.submit_s >= days * DAY_S:
            break
        jobs.append(replace(job, account=f"/{job.site}"))
    return jobs


SCENARIOS: Mapping[str, Scenario] = {
    "S1": s1,
    "S2": s2,
    "S3": s3,
    "S4": s4,
    "S5": s5,
    "S6": s6,
    "S8": s8,
}
"""S7 is measured with S6, S9 with S8."""


def main(arguments: Sequence[str]) -> None:
    """Run the scenarios and print their figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fair_share")
    parser.add_argument("--days", type=float, default=7.5)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--only", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    options = parser.parse_args(arguments)
    for name in options.only:
        runs = [list(SCENARIOS[name](seed, Setting(days=options.days))) for seed in options.seeds]
        for same in zip(*runs, strict=True):
            farthest = max(same, key=lambda one: one.value)
            Figure(
                farthest.name,
                farthest.value,
                farthest.unit,
                farthest.limit,
                farthest.what,
                farthest.value / farthest.limit,
                {
                    "days": options.days,
                    "seeds": options.seeds,
                    "by_seed": spread([one.value for one in same]),
                    **farthest.detail,
                },
            ).emit()


def _reached(outcome: Outcome, name: str, devices: float, from_s: float) -> float:
    """Return when a borrower first held so many devices after a moment; the span's end if it never did."""
    changes = []
    for one in outcome.stays:
        if one.borrower == name and one.ended_s > from_s:
            changes += [(one.granted_s, one.devices), (one.ended_s, -one.devices)]
    now = 0
    for (at_s, change), (next_s, _) in pairwise([*sorted(changes), (outcome.span_s, 0)]):
        now += change
        if now >= devices and next_s > at_s:
            return max(from_s, at_s)
    return outcome.span_s


def _rounded(some: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in some.items()}
