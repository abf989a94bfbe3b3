"""Hours of the week as policy files write them: ``mon-fri 20:00-06:00``, ``sun 00:00-24:00``.

Rules: a span without days holds every day; one that ends at or before its start runs into the next day, which
it belongs to by its start. Spans are in the time of the site that they bind: whoever asks gives the minute of
the week there, from Monday 00:00. What the file says becomes a set of minutes, one bit each, so that "is this
stricter" is arithmetic. Not here: clocks and time zones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60
WEEK_MINUTES: Final = 7 * DAY_MINUTES
ALWAYS: Final = (1 << WEEK_MINUTES) - 1
EXPECTED: Final = "DAYS HH:MM-HH:MM in the site's time, such as 'mon-fri 20:00-06:00', or HH:MM-HH:MM"

_SPAN: Final = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))? )?"
    r"(?P<from_h>[0-9]{2}):(?P<from_m>[0-9]{2})-(?P<to_h>[0-9]{2}):(?P<to_m>[0-9]{2})"
)


def minutes_of(spans: Iterable[str]) -> int:
    """Return the minutes of the week that any of the spans holds, as bits; none at all means always.

    Raises:
        ValueError: a text that is no span.
    """
    given = tuple(spans)
    return _minutes(given) if given else ALWAYS


def in_hours(spans: tuple[str, ...], week_minute: int) -> bool:
    """Return whether the minute is in the spans; none at all means always."""
    return not spans or bool(_minutes(spans) >> (week_minute % WEEK_MINUTES) & 1)


def minutes_until(spans: tuple[str, ...], week_minute: int) -> int | None:
    """Return how many minutes it takes until the spans hold; 0: they do now; ``None``: never."""
    if not spans:
        return 0
    bits = _minutes(spans)
    now = week_minute % WEEK_MINUTES
    ahead = bits >> now | (bits & ((1 << now) - 1)) << (WEEK_MINUTES - now)
    return (ahead & -ahead).bit_length() - 1 if ahead else None


def parse_span(text: str) -> int:
    """Return one span's minutes of the week, as bits.

    Raises:
        ValueError: it is none; the sentence says why.
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no span of hours")
    start = _minute(match["from_h"], match["from_m"])
    end = _minute(match["to_h"], match["to_m"])
    if start == DAY_MINUTES:
        raise ValueError("a span begins before 24:00")
    if start == end:
        raise ValueError("a span that ends where it begins is empty; a whole day is 00:00-24:00")
    length = (end - start) % DAY_MINUTES or DAY_MINUTES
    bits = 0
    for day in _days(match["first"], match["last"]):
        bits |= ((1 << length) - 1) << (day * DAY_MINUTES + start)
    return bits & ALWAYS | bits >> WEEK_MINUTES  # what runs over Sunday's end is Monday's


@lru_cache(maxsize=1024)
def _minutes(spans: tuple[str, ...]) -> int:
    bits = 0
    for span in spans:
        bits |= parse_span(span)
    return bits


def _minute(hour: str, minute: str) -> int:
    if int(minute) > 59 or int(hour) * 60 + int(minute) > DAY_MINUTES:
        raise ValueError(f"{hour}:{minute} is no time of a day")
    return int(hour) * 60 + int(minute)


def _days(first: str | None, last: str | None) -> list[int]:
    if first is None:
        return list(range(7))
    for name in (first, last):
        if name is not None and name not in DAYS:
            raise ValueError(f"{name!r} is no day; days are {', '.join(DAYS)}")
    start = DAYS.index(first)
    end = start if last is None else DAYS.index(last)
    return [(start + ahead) % 7 for ahead in range((end - start) % 7 + 1)]
