"""What a lane worker sends of metered sessions: how much, at which pace, and up to where.

Rules: the pace is one for all metered sessions together; who has been still for a while may send at once what
``BURST_S`` of it is, nothing more. Beyond ``until_bytes`` nothing is sent. Without bounds, a piece costs one
addition. It sends nothing itself, and does not know who may have what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BURST_S: Final = 0.1
"""A pace holds over longer times than this."""


@dataclass(slots=True)
class Egress:
    """The count, and its bounds.

    Args:
        bytes_per_s: the pace; 0: no bound.
        until_bytes: the count that is not exceeded; ``None``: no bound.
        sent_bytes: the count.
    """

    bytes_per_s: int = 0
    until_bytes: int | None = None
    sent_bytes: int = 0
    _ready_s: float = 0.0

    def lets(self, nbytes: int) -> bool:
        """Whether so many bytes more are within the count that is not exceeded."""
        return self.until_bytes is None or self.sent_bytes + nbytes <= self.until_bytes

    def wait_s(self, now_s: float) -> float:
        """Return how long the next bytes have to wait for the pace's sake."""
        return max(0.0, self._ready_s - now_s) if self.bytes_per_s else 0.0

    def count(self, nbytes: int, now_s: float) -> None:
        """Note that so many bytes go out."""
        self.sent_bytes += nbytes
        if self.bytes_per_s:
            self._ready_s = max(self._ready_s, now_s - BURST_S) + nbytes / self.bytes_per_s

    def bound(self, bytes_per_s: int, until_bytes: int | None, now_s: float) -> None:
        """Set other bounds from now on; what had to wait for an older pace waits no longer."""
        if bytes_per_s != self.bytes_per_s:
            self._ready_s = now_s
        self.bytes_per_s, self.until_bytes = bytes_per_s, until_bytes
