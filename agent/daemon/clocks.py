"""The clock that leases and devices are timed by."""

from __future__ import annotations

import time


def boot_time_s() -> float:
    """Return the clock of leases: it goes on while the machine sleeps, and nobody can set it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
