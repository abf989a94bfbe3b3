"""Times, sizes, ratios, amounts of use and dates as policy files write them, and their whole numbers.

Rules: a figure without its unit is refused, never guessed; what was probably meant is said. Ratios become
whole per mille and must be exact. One way to write each, and ``write_*`` is the way back for people.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from federation.policy.policy import PER_MILLE

MSGS_PER_GPU_HOUR: Final = 3600 * 1000
DURATION_PATTERN: Final = r"^[0-9]{1,9}(s|min|h|d)$"
SIZE_PATTERN: Final = r"^[0-9]{1,9}(\.[0-9]{1,3})?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$"
USE_PATTERN: Final = r"^[0-9]{1,9}GPUh$"
TIME_PATTERN: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?Z$"
PERCENT_PATTERN: Final = r"^[0-9]{1,6}(\.[0-9])?%$"

_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_DURATION_WORDS: Final = {
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "d"),
}
_BYTES: Final = {
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}
_LIKELY_BYTES: Final = 10**6
_FIGURE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([A-Za-z%-]*)")


class UnitError(ValueError):
    """A text that is not of its kind.

    Args:
        message: what is wrong with it, without a full stop.
        expected: how it is written.
        did_you_mean: what was probably meant, or empty.
    """

    def __init__(self, message: str, expected: str, did_you_mean: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.did_you_mean = did_you_mean


def duration_s(value: object) -> int:
    """Return the seconds of ``10s``, ``5min``, ``4h`` or ``7d``.

    Raises:
        UnitError: it is no duration.
    """
    expected = "a whole number and s, min, h or d, such as 10s, 5min or 7d"
    number, unit = _figure(value, "a duration", expected, "s")
    if unit not in _SECONDS:
        meant = _DURATION_WORDS.get(unit.lower(), unit.lower())
        hint = f"{number}{meant}" if meant in _SECONDS and number == number.to_integral_value() else ""
        raise UnitError(f"{unit!r} is no unit of time", expected, hint)
    seconds = number * _SECONDS[unit]
    if seconds != seconds.to_integral_value() or "." in str(value) or " " in str(value):
        whole = seconds == seconds.to_integral_value()
        raise UnitError(f"{value!r} is no duration", expected, write_duration(int(seconds)) if whole else "")
    return int(seconds)


def size_bytes(value: object) -> int:
    """Return the bytes of ``20GB`` or ``512MiB``.

    Raises:
        UnitError: it is no size.
    """
    expected = "a number and kB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 20GB"
    number, unit = _figure(value, "a size", expected, "GB")
    if unit not in _BYTES:
        folded = {each.lower(): each for each in _BYTES} | {
            each[0].lower(): each for each in ("kB", "MB", "GB", "TB")
        }
        meant = folded.get(unit.lower().removesuffix("ytes").removesuffix("yte"), "")
        raise UnitError(f"{unit!r} is no unit of size", expected, f"{number}{meant}" if meant else "")
    if " " in str(value):
        raise UnitError(f"{value!r} is no size", expected, f"{number}{unit}")
    return int(number * _BYTES[unit])


def ratio_permille(value: object) -> int:
    """Return the per mille of ``0.5``, ``2`` or ``12.5%``.

    Raises:
        UnitError: it is no ratio, or not in whole per mille.
    """
    expected = "a number such as 0.5, or a percentage such as 10%, in whole per mille"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UnitError("this is no ratio", expected)
    text = str(value)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?%?", text):
        hint = text.replace(",", ".").replace(" ", "")
        good = hint if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?%?", hint) else ""
        raise UnitError(f"{text!r} is no ratio", expected, good)
    exact = Decimal(text.rstrip("%")) * (10 if text.endswith("%") else PER_MILLE)
    if exact != exact.to_integral_value():
        raise UnitError(f"{text} has more than whole per mille", expected)
    return int(exact)


def use_msgs(value: object) -> int:
    """Return the milli standard-GPU-seconds of ``500GPUh``.

    Raises:
        UnitError: it is no amount of use.
    """
    expected = "a whole number of standard-GPU hours, such as 500GPUh"
    number, unit = _figure(value, "an amount of use", expected, "GPUh")
    if unit != "GPUh" or number != number.to_integral_value() or " " in str(value) or "." in str(value):
        meant = unit.lower().replace("-", "") in {"h", "gpuh", "gpuhours", "gpuhour", "hours"}
        raise UnitError(f"{value!r} is no amount of use", expected, f"{int(number)}GPUh" if meant else "")
    return int(number) * MSGS_PER_GPU_HOUR


def time_s(value: object) -> int:
    """Return the Unix time of ``2027-01-01T06:00Z``.

    Raises:
        UnitError: it is no time in UTC.
    """
    expected = "a time in UTC, such as 2027-01-01T06:00Z"
    text = value if isinstance(value, str) else str(value)
    if not re.fullmatch(TIME_PATTERN, text):
        hint = text.replace(" ", "T").removesuffix("Z").removesuffix("+00:00") + "Z"
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            hint = f"{text}T00:00Z"
        raise UnitError(f"{text!r} is no time", expected, hint if re.fullmatch(TIME_PATTERN, hint) else "")
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError as error:
        raise UnitError(f"{text!r} is no time: {error}", expected) from error
    seconds = int(moment.replace(tzinfo=UTC).timestamp())
    if seconds < 0:
        raise UnitError(f"{text!r} is before 1970", expected)
    return seconds


def write_duration(seconds: int) -> str:
    """Return a time as a file writes it."""
    for unit in ("d", "h", "min"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds // _SECONDS[unit]}{unit}"
    return f"{seconds}s"


def write_size(nbytes: int) -> str:
    """Return a size as a file writes it."""
    for unit in ("TB", "GB", "MB", "kB"):
        if nbytes and nbytes % (_BYTES[unit] // 1000) == 0 and nbytes >= _BYTES[unit]:
            return f"{Decimal(nbytes) / _BYTES[unit]:f}{unit}"
    return f"{nbytes}B"


def write_ratio(permille: int) -> str:
    """Return a ratio as a number, such as ``0.5``."""
    return f"{(Decimal(permille) / PER_MILLE).normalize():f}"


def write_percent(permille: int) -> str:
    """Return a ratio as a percentage, such as ``12.5%``."""
    return f"{(Decimal(permille) / 10).normalize():f}%"


def write_use(msgs: int) -> str:
    """Return an amount of use in standard-GPU hours."""
    return f"{msgs / MSGS_PER_GPU_HOUR:.6g}GPUh"


def write_time(seconds: int) -> str:
    """Return a Unix time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _figure(value: object, what: str, expected: str, unit: str) -> tuple[Decimal, str]:
    """Return a number and its unit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        hint = f"{value}{unit}" if isinstance(value, int) and value >= 0 else ""
        if unit == "GB" and hint and value >= _LIKELY_BYTES:
            hint = write_size(int(value))
        raise UnitError(f"{value} has no unit", expected, hint)
    found = _FIGURE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        given = repr(value) if isinstance(value, str) else "this"
        raise UnitError(f"{given} is no {what.split(' ', 1)[1]}", expected)
    if not found[2]:
        raise UnitError(f"{value} has no unit", expected, f"{found[1]}{unit}")
    return Decimal(found[1]), found[2]
