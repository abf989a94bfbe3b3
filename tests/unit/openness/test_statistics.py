"""What may be published of waits and reclaims."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.openness.statistics import (
    SMALL_CELL,
    Reclaim,
    ReclaimCell,
    Wait,
    WaitCell,
    band_of,
    percentile,
    reclaims_in_all,
    waits_by_band,
    waits_by_class,
)


def waits(*seconds: float, band: str = "1 to 5 %", classes: tuple[str, ...] = ()) -> list[Wait]:
    return [Wait(0.0, one, "h100", band, classes) for one in seconds]


def test_a_small_cell_shows_nothing() -> None:
    """Four requests are four people; not even their number is said."""
    (cell,) = waits_by_band(waits(1, 2, 3, 4))
    assert cell == WaitCell("1 to 5 %", "h100", None, None, None)


def test_a_cell_of_five_is_shown() -> None:
    """Five requests are a statistic."""
    (cell,) = waits_by_band(waits(50, 10, 30, 20, 40))
    assert cell == WaitCell("1 to 5 %", "h100", 5, 30, 50)


def test_waits_of_reserved_classes_stand_apart() -> None:
    """Who is in a class with a reserve counts there, whatever its share; other classes are not shown."""
    some = waits(1, 1, 1, 1, 1, classes=("student", "partner"))
    some += waits(9, 9, 9, 9, 9, band="over 20 %", classes=("student",))
    assert waits_by_class(some, ["student"]) == (WaitCell("student", "h100", 10, 1, 9),)


@pytest.mark.parametrize(
    ("part", "whole", "band"),
    [
        (1, 1000, "under 1 %"),
        (10, 1000, "1 to 5 %"),
        (199, 1000, "5 to 20 %"),
        (1, 1, "over 20 %"),
        (0, 0, "under 1 %"),
    ],
)
def test_bands_of_shares(part: int, whole: int, band: str) -> None:
    """An account is known by the size of its share alone."""
    assert band_of(part, whole) == band


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_percentiles_are_of_what_happened(values: list[float]) -> None:
    """A percentile is one of the values, the median as the library has it, the last the largest."""
    ordered = sorted(values)
    assert percentile(ordered, 500) == statistics.median_low(ordered)
    assert percentile(ordered, 1000) == ordered[-1]
    assert percentile(ordered, 900) in ordered


@given(st.integers(0, 30))
def test_no_cell_tells_of_fewer_than_five(count: int) -> None:
    """Whatever comes in, a figure stands for at least five requests."""
    for cell in waits_by_band(waits(*map(float, range(count)))):
        assert (cell.requests is None) == (count < SMALL_CELL)
        assert (cell.p50_s is None) == (cell.requests is None)


def test_reclaims_are_the_donors_own() -> None:
    """How fast owners get their devices is shown from the first on."""
    assert reclaims_in_all([]) == ReclaimCell(0, None, None)
    assert reclaims_in_all([Reclaim(0, 9.0), Reclaim(1, 3.0), Reclaim(2, 4.0)]) == ReclaimCell(3, 4.0, 9.0)
