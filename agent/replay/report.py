"""A replay's figures as tables for people: variants side by side, and who gains or loses by the last one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from agent.replay.summary import Group, Summary

SAME_PART: Final = 0.01
"""Served hours that differ by less are the same."""
SAME_WAIT_PART: Final = 0.05
"""And waits by less than this, or than ``SAME_WAIT_S``."""
SAME_WAIT_S: Final = 5.0

Table = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]
"""Titles, and rows of cells."""


def titles_of(summaries: Sequence[Summary]) -> tuple[str, ...]:
    """Return a short name for each variant: what differs between them."""
    policies = len({one.policy for one in summaries}) > 1
    starts = len({one.start for one in summaries}) > 1
    names = []
    for one in summaries:
        start = f"{one.start} {one.start_s:g} s"
        parts = ([one.policy] if policies else []) + ([start] if starts or not policies else [])
        names.append(", ".join(parts))
    return tuple(names)


def overview(summaries: Sequence[Summary]) -> Table:
    """Return the figures of all guests and donors together, a column a variant."""
    lines: list[tuple[str, Callable[[Summary], str]]] = [
        ("devices' hours", lambda one: _hours(one.device_h)),
        ("  owners' own jobs", lambda one: _hours(one.own_h)),
        ("  idle beside these", lambda one: _hours(one.idle_h)),
        ("idle hours recovered", lambda one: _of(one.recovered_h, one.idle_h)),
        ("  spent on starts", lambda one: _of(one.starting_h, one.idle_h)),
        ("  lost with a lease", lambda one: _of(one.lost_h, one.idle_h)),
        ("utilisation", lambda one: _percent(one.utilisation)),
        ("badput", lambda one: _percent(one.badput)),
        ("leases ended by donors", lambda one: f"{one.evictions:,}"),
        ("guests' jobs", lambda one: f"{one.total.jobs:,}"),
        ("  refused", lambda one: f"{one.total.refused:,}"),
        ("  given up", lambda one: f"{one.total.given_up:,}"),
        ("  still waiting at the end", lambda one: f"{one.total.never_started:,}"),
        ("  wait until served, half", lambda one: time_text(one.total.wait_p50_s)),
        ("  wait until served, 9 of 10", lambda one: time_text(one.total.wait_p90_s)),
    ]
    rows = tuple((name, *(cell(one) for one in summaries)) for name, cell in lines)
    return ("", *titles_of(summaries)), rows


def groups(summaries: Sequence[Summary], pick: Callable[[Summary], Sequence[Group]], title: str) -> Table:
    """Return waits, served hours and shares of some groups, and how the last variant is for each."""
    head = [title, "jobs"]
    for name in titles_of(summaries):
        head += [f"{name}: p50", "p90", "served h", "share"]
    changed = len(summaries) > 1
    if changed:
        head.append("last beside first")
    by_name = [{group.name: group for group in pick(one)} for one in summaries]
    rows = []
    for name, first in by_name[0].items():
        cells = [name, f"{first.jobs:,}"]
        for of in by_name:
            group = of[name]
            cells += [
                time_text(group.wait_p50_s),
                time_text(group.wait_p90_s),
                _hours(group.useful_h),
                _percent(group.share),
            ]
        if changed:
            cells.append(verdict(first, by_name[-1][name]))
        rows.append(tuple(cells))
    return tuple(head), tuple(rows)


def owners(summaries: Sequence[Summary]) -> Table:
    """Return what lending costs the owners: waits of their own jobs beside those on the cluster alone."""
    head = ["site", "devices", "own jobs", "p90 alone"]
    for name in titles_of(summaries):
        head += [f"{name}: p90", "longer, at most", "reclaims", "at most"]
    by_name = [{own.name: own for own in one.owners} for one in summaries]
    rows = []
    for name, first in by_name[0].items():
        cells = [name, f"{first.devices:,}", f"{first.jobs:,}", time_text(first.alone_p90_s)]
        for of in by_name:
            own = of[name]
            cells += [
                time_text(own.wait_p90_s),
                time_text(own.longer_most_s),
                f"{own.reclaims:,}",
                time_text(own.reclaim_most_s),
            ]
        rows.append(tuple(cells))
    return tuple(head), tuple(rows)


def verdict(before: Group, after: Group) -> str:
    """Return whether a group gains or loses: by the hours that it is served, then by the wait of 9 of 10."""
    change = after.useful_h - before.useful_h
    if abs(change) > SAME_PART * max(before.useful_h, 1e-9):
        return f"{'gains' if change > 0 else 'loses'} {abs(change):,.0f} h"
    earlier, later = before.wait_p90_s, after.wait_p90_s
    if earlier is None or later is None or abs(later - earlier) <= max(SAME_WAIT_S, SAME_WAIT_PART * earlier):
        return "the same"
    return f"{'loses' if later > earlier else 'gains'} {time_text(abs(later - earlier))} of waiting"


def document(summaries: Sequence[Summary]) -> dict[str, Any]:
    """Return all figures as one JSON object; ``docs/replay.md`` says what they mean."""
    return {"schema": 1, "variants": [one.document() for one in summaries]}


def time_text(seconds: float | None) -> str:
    """Return a time in the unit that suits it."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _hours(value: float) -> str:
    return f"{value:,.0f}"


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"


def _of(some: float, whole: float) -> str:
    return f"{some:,.0f} ({_percent(some / whole if whole else 0.0)})"
