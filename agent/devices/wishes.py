"""What the owner of a node says of its devices."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """What the owner says of devices; ``None``: as before.

    Args:
        change: ``donate``, ``withdraw``, ``drain``, ``undrain`` or ``reclaim``.
        devices: which ones; none: ``count`` of them, or all.
        count: so many, those whose guests lose least; 0: all.
    """

    change: str
    devices: tuple[str, ...] = ()
    count: int = 0
    dry_run: bool = False
    only_idle: bool | None = None
    hours: tuple[str, ...] | None = None
    headroom_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A command of the owner's that needs devices; ``started``: of its process, in ticks after boot."""

    devices: tuple[str, ...]
    count: int
    pid: int
    started: int
    command: str
