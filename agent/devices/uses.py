"""What leases used, counted on their node: energy by their devices' own counters, bytes that were sent.

A device without a counter has none, and a lease with such a device has none either: half of the energy is not
its energy. Whole watt-hours, rounded to the nearest. Of ended leases the last ``MAX_ENDED_KEPT`` are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.limits import MAX_ENDED_KEPT

_MJ_PER_WH = 3_600_000


@dataclass(slots=True)
class _Use:
    began_s: float
    began_mj: Mapping[str, int | None]
    sent_bytes: int = 0
    energy_wh: int | None = None
    ended: bool = False


class Uses:
    """The uses of one node's leases.

    Args:
        read: returns a device's counter in mJ as last read, or ``None``; it must not block.
        clock: the clock of boots.
    """

    def __init__(self, read: Callable[[str], int | None], clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._uses: dict[str, _Use] = {}

    def begin(self, lease_id: str, devices: Sequence[str]) -> None:
        """Note that a lease begins on devices."""
        self._uses[lease_id] = _Use(self._clock(), {one: self._read(one) for one in devices})

    def sent(self, lease_id: str, nbytes: int) -> None:
        """Count what its runner sent."""
        use = self._uses.get(lease_id)
        if use is not None:
            use.sent_bytes += nbytes

    def end(self, lease_id: str) -> None:
        """Keep what a lease has used by now."""
        use = self._uses.pop(lease_id, None)
        if use is None:
            return
        use.energy_wh, use.ended = self._energy(use), True
        self._uses[lease_id] = use  # the newest at the end
        ended = [name for name, one in self._uses.items() if one.ended]
        for name in ended[:-MAX_ENDED_KEPT]:
            del self._uses[name]

    def began_s(self, lease_id: str) -> float | None:
        """Return when a lease began; ``None`` if it is not known."""
        use = self._uses.get(lease_id)
        return use.began_s if use is not None else None

    def energy_wh(self, lease_id: str) -> int | None:
        """Return what a lease has used so far; ``None`` where there is no counter."""
        use = self._uses.get(lease_id)
        if use is None:
            return None
        return use.energy_wh if use.ended else self._energy(use)

    def sent_bytes(self, lease_id: str) -> int:
        """Return what a lease's runner has sent so far."""
        use = self._uses.get(lease_id)
        return use.sent_bytes if use is not None else 0

    def _energy(self, use: _Use) -> int | None:
        total_mj = 0
        for device, before in use.began_mj.items():
            now = self._read(device)
            if before is None or now is None:
                return None
            total_mj += max(0, now - before)
        return (total_mj + _MJ_PER_WH // 2) // _MJ_PER_WH if use.began_mj else None
