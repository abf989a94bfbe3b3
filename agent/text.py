"""Text and sizes that people and peers give us, made safe to store and print."""

from __future__ import annotations

import re
from typing import Final

from agent.errors import RequestError
from pyrdma.limits import GIB, KIB, MIB

_UNITS: Final = {
    "": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "tib": 1024 * GIB,
}
_SIZE: Final = re.compile(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([a-z]{0,3})\s*", re.IGNORECASE)

_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"\s*(\d{1,9}(?:\.\d{1,3})?)\s*([smhd])\s*", re.IGNORECASE)


def printable(text: str, max_bytes: int) -> str:
    """Return ``text`` cut to ``max_bytes`` of UTF-8, with what would move a terminal's cursor escaped."""
    safe = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:max_bytes])
    data = safe.encode(errors="replace")
    return safe if len(data) <= max_bytes else data[: max_bytes - 3].decode(errors="ignore") + "..."


def parse_size(text: str) -> int:
    """Return the bytes that ``2GB``, ``512MiB`` or ``4096`` name.

    Raises:
        RequestError: the text is no size.
    """
    found = _SIZE.fullmatch(text)
    unit = None if found is None else _UNITS.get(found[2].lower() + ("b" if len(found[2]) == 1 else ""))
    if found is None or (unit is None and found[2].lower() != "b"):
        raise RequestError(f"{text!r} is no size.", fix="write a number and a unit, such as 2GB or 512MiB")
    return int(float(found[1]) * (unit or 1)) if "." in found[1] else int(found[1]) * (unit or 1)


def parse_duration(text: str) -> float:
    """Return the seconds that ``30m``, ``24h`` or ``90s`` name.

    Raises:
        RequestError: the text is no duration.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise RequestError(f"{text!r} is no duration.", fix="write a number and a unit, such as 30m or 24h")
    return float(found[1]) * _SECONDS[found[2].lower()]


def format_size(nbytes: int) -> str:
    """Return a size in decimal units, as rates on wires are given."""
    value, unit = float(nbytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{int(value)} B" if unit == "B" else f"{value:.1f} {unit}"


def format_duration(seconds: float) -> str:
    """Return a duration in the one unit that suits it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
