"""Numbers as short words: their widths hold for whatever a peer claims."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui import words

ANY = st.floats(allow_nan=True, allow_infinity=True)
SIZES = st.integers(min_value=-1, max_value=2**64)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (99 * 86_400, "99d")],
)
def test_an_age_is_short(seconds: float | None, shown: str) -> None:
    """One number, one letter."""
    assert words.short_age(seconds) == shown


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        (0, "0"),
        (1, "<0.01"),
        (1.239e9, "1.24"),
        (9.996e9, "10.0"),
        (12.34e9, "12.3"),
        (99.96e9, "100"),
        (1e30, "99999"),
    ],
)
def test_a_rate_is_gigabytes_a_second(rate: float, shown: str) -> None:
    """Three digits that matter; little is not nothing."""
    assert words.gigabytes(rate) == shown


def test_a_part_is_in_the_unit_of_the_whole() -> None:
    """Two numbers, one unit."""
    assert words.share_of(8 * 10**9, 16 * 10**9) == "8.0/16.0 GB"
    assert words.share_of(500, 2 * 10**6) == "0.0/2.0 MB"
    assert words.share_of(3, 7) == "3/7 B"
    assert words.share_of(0, 0) == "0/0 B"


def test_an_end_is_ahead_or_over() -> None:
    """A moment that has passed is not said to come."""
    assert words.until(1000.0, 400.0) == "expires in 10 min"
    assert words.until(400.0, 1000.0 + 2 * 3600) == "expired 2.2 hours ago"


def test_a_moment_says_its_zone() -> None:
    """Institutions lie in several."""
    assert words.moment(1_800_000_000.0) == "2027-01-15 08:00:00 UTC"
    assert words.moment(None) == words.moment(1e40) == words.moment(math.nan) == "-"


@given(ANY, ANY)
def test_no_number_breaks_a_line(one: float, other: float) -> None:
    """Negative, infinite or no number at all: there is a short word for it."""
    assert len(words.short_age(one)) <= 4
    assert len(words.gigabytes(one)) <= 5
    assert len(words.duration(one)) <= 12
    assert len(words.speed(one)) <= 20
    assert "\n" not in words.until(one, other) + words.moment(one)


@given(SIZES, SIZES, st.integers(0, 60))
def test_a_bar_has_its_width_and_is_full_only_at_the_end(done: int, total: int, width: int) -> None:
    """Whatever is claimed to be done."""
    drawn = words.bar(done, total, width)
    assert len(drawn) == width
    if width and total > 0 and done < total:
        assert "░" in drawn
    assert len(words.share_of(done, total)) < 45


@given(st.lists(st.floats(0, 1e15), max_size=40), st.integers(0, 40))
def test_a_sparkline_has_its_width(values: list[float], width: int) -> None:
    """The newest values stand at the right; nothing is blank, little is still seen."""
    drawn = words.sparkline(values, width, peak=max(values, default=0.0))
    assert len(drawn) == (width if any(values) else 0)
    for value, block in zip(reversed(values), reversed(drawn), strict=False):
        assert (block == " ") == (value == 0)
