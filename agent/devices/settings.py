"""How the owner lends one device: what he decided last, as it outlives the agent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Will(StrEnum):
    """What the owner said last of a device."""

    DONATED = "donated"
    RECLAIMED = "reclaimed"
    """It is a donation, and his own for now."""
    WITHDRAWN = "withdrawn"
    """It is no donation any more."""


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """How one device is lent.

    Args:
        will: whether at all.
        draining: leases on it go on, none starts.
        only_idle: it is lent only while no local process uses it.
        hours: it is lent in these spans only; none: always.
        headroom_bytes: of its memory, kept free of guests.
    """

    will: Will = Will.DONATED
    draining: bool = False
    only_idle: bool = False
    hours: tuple[str, ...] = ()
    headroom_bytes: int = 0
