"""Numbers as short words, and as little drawings of block characters; all pure.

Every number may come from another institution: none, however large, negative or no number at all, breaks
a line or raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from agent.text import format_size
from tui.picture import finite

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_UNITS: Final = ((86_400.0, "d"), (3600.0, "h"), (60.0, "m"))
_LONG: Final = {"d": "days", "h": "hours", "m": "min"}
_MOST: Final = 10**21


def short_age(seconds: float | None) -> str:
    """Return an age in at most four characters, ``-`` for none: ``42s``, ``12m``, ``5h``, ``99d``."""
    if seconds is None:
        return "-"
    for unit_s, unit in _UNITS:
        if finite(seconds) >= unit_s:
            return f"{min(999, int(finite(seconds) / unit_s))}{unit}"
    return f"{int(finite(seconds))}s"


def duration(seconds: float) -> str:
    """Return a duration as it stands in a sentence: ``42 s``, ``12 min``, ``3.4 hours``, ``2.1 days``."""
    for unit_s, unit in _UNITS:
        if finite(seconds) >= unit_s:
            value = min(99_999.0, finite(seconds) / unit_s)
            return f"{value:.0f} {_LONG[unit]}" if unit == "m" else f"{value:.1f} {_LONG[unit]}"
    return f"{int(finite(seconds))} s"


def until(when: float, now: float) -> str:
    """Return when something ends: ``expires in 2.1 days``, ``expired 3.0 hours ago``."""
    left_s = when - now
    return f"expires in {duration(left_s)}" if left_s > 0 else f"expired {duration(-left_s)} ago"


def moment(when: float | None) -> str:
    """Return a Unix time in UTC, ``-`` for none and for what is no time."""
    try:
        return "-" if when is None else f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return "-"


def gigabytes(rate: float) -> str:
    """Return bytes a second as GB/s in five characters: ``0``, ``<0.01``, ``1.24``, ``12.4``, ``124``."""
    value = finite(rate) / 1e9
    if value == 0:
        return "0"
    if value < 0.01:
        return "<0.01"
    if value >= 99.95:
        return f"{min(value, 99_999):.0f}"
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"


def size(nbytes: float) -> str:
    """Return a size, however large it claims to be."""
    return format_size(int(min(_MOST, finite(nbytes))))


def speed(rate: float | None) -> str:
    """Return bytes a second with their unit, ``-`` for none."""
    return "-" if rate is None else f"{size(rate)}/s"


def share_of(done: int, total: int) -> str:
    """Return two sizes in the unit of the second: ``12.3/45.6 GB``."""
    number, _, unit = size(total).partition(" ")
    part = finite(done) * float(number) / total if total > 0 else finite(done)
    return f"{part:.0f}/{number} B" if unit == "B" else f"{part:.1f}/{number} {unit}"


def fraction(done: int, total: int) -> float:
    """Return how much is done, from 0 to 1; nothing of nothing is 0."""
    return min(1.0, max(0, done) / total) if total > 0 else 0.0


def bar(done: int, total: int, width: int) -> str:
    """Return a bar of ``width`` cells; it is full only when all is done."""
    full = int(fraction(done, total) * width)
    return "█" * full + "░" * (width - full)


def sparkline(values: Sequence[float], width: int, *, peak: float) -> str:
    """Return the last ``width`` values as blocks under one peak; nothing is blank, little is still seen."""
    if width <= 0 or peak <= 0:
        return ""
    top = len(_BLOCKS) - 1
    return "".join(
        _BLOCKS[min(top, int(value / peak * top + 0.5))] if value > 0 else " " for value in values[-width:]
    ).rjust(width)
