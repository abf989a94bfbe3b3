"""Processes of this machine as /proc shows them: which are ours, how long they computed, which still are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_STATE, _UTIME, _STARTED = 0, 11, 19
"""Places in ``/proc/PID/stat`` after the name in brackets."""
_BUSY: Final = (0, 1, 2, 5, 6)
"""Places in the first line of ``/proc/stat``: user, nice, system, irq, softirq."""


def tree(pid: int) -> set[int]:
    """Return a process and all that descend from it."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += _children(one)
    return found


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                yield from map(int, path.read_text().split())


def cpu_ticks(pid: int) -> int:
    """Return the processor time of a process and of those of its children that it has waited for."""
    fields = _stat(pid)
    return sum(map(int, fields[_UTIME : _UTIME + 4])) if fields else 0


def busy_ticks() -> int:
    """Return the time that all processors of the machine have computed since its boot."""
    with Path("/proc/stat").open() as stat:
        numbers = stat.readline().split()[1:]
    return sum(int(numbers[one]) for one in _BUSY)


def started_ticks(pid: int) -> int | None:
    """Return when a process began, in ticks after boot; ``None`` if there is none, or it has ended."""
    fields = _stat(pid)
    return int(fields[_STARTED]) if fields and fields[_STATE] not in "ZX" else None


def group_is_gone(group: int) -> bool:
    """Say whether no process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return []
