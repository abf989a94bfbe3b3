"""Waits and reclaims of the last days as figures that may be published. Pure.

Rules: a cell of fewer than ``SMALL_CELL`` requests shows no figure and no count, so that nobody's single
request can be read from it; percentiles are of what happened, not of a model (nearest rank). Accounts are
grouped by their share of the federation, never named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SMALL_CELL: Final = 5
"""Fewer requests than this are not shown."""
KEPT_S: Final = 7 * 86400
"""How far back the figures go."""
_BANDS: Final = ((10, "under 1 %"), (50, "1 to 5 %"), (200, "5 to 20 %"))
_LARGEST_BAND: Final = "over 20 %"


@dataclass(frozen=True, slots=True)
class Wait:
    """One request that was granted.

    Args:
        at_s: Unix time of the grant.
        waited_s: from when it was first asked here.
        device_class: what it got.
        band: how large its account's share is, as ``band_of`` says.
        classes: what its account is in.
    """

    at_s: float
    waited_s: float
    device_class: str
    band: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reclaim:
    """One device that its owner took back: when, and the seconds from the wish to the free device."""

    at_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class WaitCell:
    """Waits of one group; the figures are ``None`` in a cell that is too small to be shown."""

    group: str
    device_class: str
    requests: int | None
    p50_s: float | None
    p90_s: float | None


@dataclass(frozen=True, slots=True)
class ReclaimCell:
    """All reclaims of a site; a donor's own data, so that even one is shown."""

    reclaims: int
    p50_s: float | None
    longest_s: float | None


def band_of(part: int, whole: int) -> str:
    """Return the band of a share (part, whole) of the federation."""
    permille = part * 1000 // whole if whole else 0
    return next((name for below, name in _BANDS if permille < below), _LARGEST_BAND)


def percentile(values: Sequence[float], permille: int) -> float:
    """Return the nearest-rank percentile of values that are sorted and not empty."""
    return values[max(0, math.ceil(len(values) * permille / 1000) - 1)]


def waits_by_band(waits: Iterable[Wait]) -> tuple[WaitCell, ...]:
    """Return the waits by device class and by the size of accounts' shares."""
    cells: dict[tuple[str, str], list[float]] = {}
    for one in waits:
        cells.setdefault((one.device_class, one.band), []).append(one.waited_s)
    return _cells(cells)


def waits_by_class(waits: Iterable[Wait], reserved: Iterable[str]) -> tuple[WaitCell, ...]:
    """Return the waits of each class that has a reserve, by device class."""
    names = frozenset(reserved)
    cells: dict[tuple[str, str], list[float]] = {}
    for one in waits:
        for name in names.intersection(one.classes):
            cells.setdefault((one.device_class, name), []).append(one.waited_s)
    return _cells(cells)


def reclaims_in_all(reclaims: Iterable[Reclaim]) -> ReclaimCell:
    """Return how fast devices went back to their owners."""
    seconds = sorted(one.seconds for one in reclaims)
    if not seconds:
        return ReclaimCell(0, None, None)
    return ReclaimCell(len(seconds), percentile(seconds, 500), seconds[-1])


def _cells(cells: Mapping[tuple[str, str], list[float]]) -> tuple[WaitCell, ...]:
    return tuple(
        _cell(group, device_class, sorted(cells[device_class, group]))
        for device_class, group in sorted(cells)
    )


def _cell(group: str, device_class: str, seconds: Sequence[float]) -> WaitCell:
    if len(seconds) < SMALL_CELL:
        return WaitCell(group, device_class, None, None, None)
    return WaitCell(group, device_class, len(seconds), percentile(seconds, 500), percentile(seconds, 900))
