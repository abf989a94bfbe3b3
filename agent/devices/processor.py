"""Local use of the processor: what computes beside this agent and its children.

Rules: it is in use when others compute on at least ``BUSY_CORES_PERMILLE`` of the processors at two looks in
a row, and no more when they do on less than half of that. A single look is too short to tell: a shell that
starts is no work. What the kernel does for network and disks counts as others'.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.devices.processes import TICKS_PER_S, busy_ticks, cpu_ticks, tree
from agent.limits import BUSY_CORES_PERMILLE


@dataclass(frozen=True, slots=True)
class Counted:
    """Processor time so far, in s: of the whole machine, and of this agent with all its children."""

    at_s: float
    all_s: float
    own_s: float


def count(now_s: float) -> Counted:
    """Count now."""
    own = sum(map(cpu_ticks, tree(os.getpid())))
    return Counted(now_s, busy_ticks() / TICKS_PER_S, own / TICKS_PER_S)


def others_cores(before: Counted, now: Counted) -> float:
    """Return on how many processors others computed between two counts."""
    seconds = now.at_s - before.at_s
    others = (now.all_s - before.all_s) - (now.own_s - before.own_s)
    return max(0.0, others / seconds) if seconds > 0 else 0.0


class ProcessorUse:
    """Local use of the devices that are the processor; a ``LocalUse``.

    Args:
        devices: their names: whoever computes computes on all of them.
        cores: how many processors the machine has.
        counting: counts processor time.
    """

    def __init__(
        self,
        devices: Sequence[str],
        cores: int,
        counting: Callable[[float], Counted] = count,
        *,
        busy_permille: int = BUSY_CORES_PERMILLE,
    ) -> None:
        self._devices = tuple(devices)
        self._busy_cores = cores * busy_permille / 1000
        self._counting = counting
        self._last: Counted | None = None
        self._above = 0
        self._in_use = False

    def look(self, now_s: float) -> Mapping[str, str]:
        """Return the devices if others compute."""
        counted = self._counting(now_s)
        last, self._last = self._last, counted
        if last is None:
            return {}
        cores = others_cores(last, counted)
        self._above = self._above + 1 if cores >= self._busy_cores else 0
        if self._above >= 2:
            self._in_use = True
        elif cores < self._busy_cores / 2:
            self._in_use = False
        if not self._in_use:
            return {}
        return dict.fromkeys(self._devices, "others compute on this machine")
