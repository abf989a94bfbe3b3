"""Federations under load, simulated over the real decision core, and what their thresholds are measured by.

The setting of the thresholds S1 to S9: eight donors of 16 devices, two nodes each, and borrowers that always
have requests waiting, so that whatever one does not get another has. Everything is drawn by seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from agent.replay.outcome import Outcome, Stay
from agent.replay.simulation import Simulation
from agent.replay.trace import Job
from agent.replay.world import DEVICE_CLASS, DonorSpec, World
from federation.policy.policy import ANY, PER_MILLE, AccountRule, Caps, Lend, Policy, PurposeRule

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
WEIGHTS: Final = {"ash": 40, "beech": 20, "cherry": 15, "dogwood": 10, "elder": 10, "fig": 5}
"""Six borrowers; the first has the weight that S2 speaks of."""
BACKLOG: Final = 8
"""Requests that each borrower has waiting, whatever it is given."""

ONES: Final = ((1, 1.0),)
MIXED: Final = ((1, 0.7), (2, 0.15), (4, 0.1), (8, 0.05))


@dataclass(frozen=True, slots=True, kw_only=True)
class Borrower:
    """An institution that always asks.

    Args:
        name: of it, its account and its site.
        weight: by the policy.
        from_s: when it begins to ask.
        widths: devices of its jobs, and how often.
        median_s, sigma: of its jobs' durations, lognormal, cut at ``most_s``.
        backlog: requests that it has waiting.
    """

    name: str
    weight: int
    from_s: float = 0.0
    widths: tuple[tuple[int, float], ...] = ONES
    median_s: float = HOUR_S
    sigma: float = 0.8
    most_s: float = 6 * HOUR_S
    backlog: int = BACKLOG


def donors(count: int = 8, devices: int = 16) -> tuple[DonorSpec, ...]:
    """Return donors alike, of nodes of eight devices."""
    return tuple(DonorSpec(f"donor-{at + 1}", devices, min(8, devices)) for at in range(count))


def borrowers(
    *, median_s: float = HOUR_S, most_s: float = 6 * HOUR_S, widths: tuple[tuple[int, float], ...] = ONES
) -> tuple[Borrower, ...]:
    """Return the six borrowers of ``WEIGHTS`` with such jobs."""
    return tuple(
        Borrower(name=name, weight=weight, median_s=median_s, most_s=most_s, widths=widths)
        for name, weight in WEIGHTS.items()
    )


def policy_of(some: Iterable[Borrower], *, caps: Caps | None = None, lend: Lend | None = None) -> Policy:
    """Return a policy in which these borrowers have their weights."""
    accounts = {
        f"/{one.name}": AccountRule(
            path=f"/{one.name}",
            weight=one.weight,
            classes=(),
            sites=(one.name,),
            attested_by={},
            open=False,
        )
        for one in some
    }
    return Policy(
        name="thresholds",
        version=1,
        effective_at_s=0,
        digest="0" * 64,
        accounts=accounts,
        classes={},
        purposes={"research": PurposeRule("research", PER_MILLE, (ANY,))},
        device_classes={DEVICE_CLASS: PER_MILLE},
        caps=caps or Caps(),
        lend=lend or Lend(),
    )


def saturate(
    world: World,
    some: Sequence[Borrower],
    *,
    seed: int,
    days: float,
    policy: Policy | None = None,
    own: Iterable[Job] = (),
) -> Outcome:
    """Return what happens while borrowers keep the donors busy.

    Args:
        world: donors and books.
        some: who asks.
        seed: of all that is drawn.
        days: how long.
        policy: instead of the borrowers' weights and what is so by default.
        own: the owners' own jobs, by submission.
    """
    chances = {one.name: Random(f"{seed}/{one.name}") for one in some}
    by_name = {one.name: one for one in some}

    def job(name: str, now_s: float) -> Job:
        one, chance = by_name[name], chances[name]
        drawn = one.median_s * math.exp(one.sigma * chance.gauss(0.0, 1.0))
        return Job(
            submit_s=now_s,
            account=f"/{name}",
            devices=_pick(chance, one.widths),
            duration_s=round(min(one.most_s, max(60.0, drawn)), 3),
            purpose="research",
            local=False,
            site=name,
        )

    first = [job(one.name, one.from_s) for one in some for _ in range(one.backlog)]
    trace = sorted([*first, *own], key=lambda each: each.submit_s)

    def refill(served: Job) -> Job:
        return job(served.site, simulation.agenda.now_s)

    simulation = Simulation(world, policy or policy_of(some), span_s=days * DAY_S, refill=refill)
    return simulation.run(trace)


# --- what thresholds are measured by ----------------------------------------------------------------------


def held(stays: Iterable[Stay], from_s: float, to_s: float) -> dict[str, float]:
    """Return the device-seconds that each borrower held between two moments."""
    found: dict[str, float] = {}
    for stay in stays:
        overlap_s = min(stay.ended_s, to_s) - max(stay.granted_s, from_s)
        if overlap_s > 0.0:
            found[stay.borrower] = found.get(stay.borrower, 0.0) + overlap_s * stay.devices
    return found


def errors(stays: Iterable[Stay], due: Mapping[str, float], from_s: float, to_s: float) -> dict[str, float]:
    """Return by borrower how far what it held is from its due, as a part of its due; below 0: it had less."""
    got = held(stays, from_s, to_s)
    whole = sum(got.values()) or 1.0
    return {name: got.get(name, 0.0) / whole / share - 1.0 for name, share in due.items()}


def worst(some: Mapping[str, float]) -> float:
    """Return the largest error."""
    return max(abs(one) for one in some.values())


def misplaced(some: Mapping[str, float], due: Mapping[str, float]) -> float:
    """Return the part of all device time that somebody else should have had."""
    return sum(abs(error) * due[name] for name, error in some.items()) / 2


def windows(from_s: float, to_s: float, length_s: float, step_s: float) -> list[tuple[float, float]]:
    """Return the windows of a length that lie between two moments, one each step."""
    count = int((to_s - from_s - length_s) // step_s) + 1
    return [(from_s + at * step_s, from_s + at * step_s + length_s) for at in range(count)]


def due_of(some: Iterable[Borrower]) -> dict[str, float]:
    """Return the shares of borrowers that all ask."""
    weights = {one.name: one.weight for one in some}
    whole = sum(weights.values())
    return {name: weight / whole for name, weight in weights.items()}


def longest_gap(stays: Iterable[Stay], name: str, from_s: float, to_s: float) -> float:
    """Return the longest time between two moments in which a borrower held nothing."""
    spans = sorted((one.granted_s, one.ended_s) for one in stays if one.borrower == name)
    gap_s, covered_s = 0.0, from_s
    for begin_s, end_s in spans:
        if begin_s > covered_s:
            gap_s = max(gap_s, min(begin_s, to_s) - covered_s)
        covered_s = max(covered_s, end_s)
        if covered_s >= to_s:
            return gap_s
    return max(gap_s, to_s - covered_s)


def most_held(stays: Iterable[Stay], name: str, from_s: float) -> int:
    """Return the most devices that a borrower held at once after a moment."""
    changes = []
    for one in stays:
        if one.borrower == name and one.ended_s > from_s:
            changes += [(max(from_s, one.granted_s), one.devices), (one.ended_s, -one.devices)]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def _pick(chance: Random, widths: tuple[tuple[int, float], ...]) -> int:
    drawn = chance.random()
    for width, part in widths:
        drawn -= part
        if drawn < 0.0:
            return width
    return widths[-1][0]
