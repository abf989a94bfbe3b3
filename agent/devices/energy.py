"""How much energy a lease has used: the difference of its devices' own counters.

A device without a counter has none, and a lease with such a device has none either: half of the energy is not
its energy. Whole watt-hours, rounded to the nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_MJ_PER_WH = 3_600_000


class EnergyMeter:
    """The energy of the leases of one node.

    Args:
        read: returns a device's counter in mJ, or ``None``; it may block.
    """

    def __init__(self, read: Callable[[str], int | None]) -> None:
        self._read = read
        self._began: dict[str, dict[str, int | None]] = {}
        self._used: dict[str, int | None] = {}

    def begin(self, lease_id: str, devices: Sequence[str]) -> None:
        """Note that a lease begins on devices."""
        self._began[lease_id] = {one: self._read(one) for one in devices}

    def end(self, lease_id: str) -> None:
        """Keep what a lease has used by now."""
        self._used[lease_id] = self.energy_wh(lease_id)
        self._began.pop(lease_id, None)

    def forget(self, lease_id: str) -> None:
        """Let go of a lease that has ended."""
        self._used.pop(lease_id, None)

    def energy_wh(self, lease_id: str) -> int | None:
        """Return what a lease has used so far; ``None`` where there is no counter."""
        began = self._began.get(lease_id)
        if began is None:
            return self._used.get(lease_id)
        total_mj = 0
        for device, before in began.items():
            now = self._read(device)
            if before is None or now is None:
                return None
            total_mj += max(0, now - before)
        return (total_mj + _MJ_PER_WH // 2) // _MJ_PER_WH if began else None
