"""Hours of the week: spans, minutes, and how long it takes until they hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.policy.hours import (
    ALWAYS,
    DAYS,
    WEEK_MINUTES,
    in_hours,
    minutes_of,
    minutes_until,
    parse_span,
)

MON_8, SUN_23, SAT_3 = 8 * 60, 6 * 1440 + 23 * 60, 5 * 1440 + 3 * 60
times = st.builds(lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23), st.integers(0, 59))
spans = st.builds(
    lambda first, last, start, end: f"{first}-{last} {start}-{end}",
    st.sampled_from(DAYS),
    st.sampled_from(DAYS),
    times,
    times,
).filter(lambda text: len(set(text.split(" ")[1].split("-"))) == 2)


def test_a_span_without_days_holds_every_day() -> None:
    """And ends before its end."""
    span = ("08:00-12:00",)
    assert all(in_hours(span, day * 1440 + MON_8) for day in range(7))
    assert not in_hours(span, 12 * 60)
    assert not in_hours(span, MON_8 - 1)


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    """Friday's night ends on Saturday morning, Sunday's on Monday's."""
    assert in_hours(("fri 20:00-06:00",), SAT_3)
    assert not in_hours(("sat 20:00-06:00",), SAT_3)
    assert in_hours(("sun 20:00-06:00",), 3 * 60)
    assert in_hours(("sun 20:00-06:00",), SUN_23)


def test_days_may_run_over_the_end_of_the_week() -> None:
    """From Saturday to Monday are three days."""
    assert minutes_of(["sat-mon 00:00-24:00"]).bit_count() == 3 * 1440


def test_nothing_means_always() -> None:
    """A policy that says no hours lends at all of them."""
    assert minutes_of([]) == ALWAYS
    assert in_hours((), 5)
    assert minutes_until((), 5) == 0


@pytest.mark.parametrize(
    "text", ["", "8:00-12:00", "mon", "fri 25:00-26:00", "xyz 08:00-12:00", "24:00-06:00", "08:60-09:00"]
)
def test_what_is_no_span_is_refused(text: str) -> None:
    """With a sentence."""
    with pytest.raises(ValueError, match=r"\w"):
        parse_span(text)


@given(spans, st.integers(0, WEEK_MINUTES - 1))
def test_minutes_until_is_the_first_that_holds(span: str, now: int) -> None:
    """Then it holds, and not before."""
    wait = minutes_until((span,), now)
    assert wait is not None
    assert in_hours((span,), now + wait)
    assert wait == 0 or not in_hours((span,), now + wait - 1)
    assert wait == 0 or not in_hours((span,), now)
