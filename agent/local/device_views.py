"""What the local API shows of this node's devices to their owner, and of taking them back: frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GuestView:
    """A lease on a device of this node; ``held_s``: since it came, ``grace_s``: what it gets to end."""

    lease_id: str
    model: str
    borrower: str
    held_s: float
    grace_s: float


@dataclass(frozen=True, slots=True)
class OwnDeviceView:
    """A device of this node as its owner sees it.

    Args:
        memory_bytes: what is lent of its memory.
        state: ``lent``, ``reclaiming`` (its guests have notice), ``stopping``, ``verifying`` or ``owned``.
        wanted: why its owner has it, or takes it back.
        left_s: until its guests are killed, while it is reclaimed.
        donated: ``False``: its owner has withdrawn it.
        draining: leases on it go on, none starts.
        only_idle: it is lent only while no local process uses it.
        hours: it is lent in these spans only; none: always.
        headroom_bytes: of its memory, kept free of guests.
        doubt: why it is not lent again after a reclaim; empty: nothing.
        last_reclaim_s: how long the last reclaim took; ``None`` before the first.
    """

    id: str
    kind: str
    device_class: str
    memory_bytes: int
    state: str
    wanted: tuple[str, ...]
    left_s: float
    guests: tuple[GuestView, ...]
    donated: bool
    draining: bool
    only_idle: bool
    hours: tuple[str, ...]
    headroom_bytes: int
    doubt: str
    last_reclaim_s: float | None


@dataclass(frozen=True, slots=True)
class TakingView:
    """Devices that are being taken back for a command of their owner's, with the guests that have to go."""

    devices: tuple[OwnDeviceView, ...]


@dataclass(frozen=True, slots=True)
class HandedOverView:
    """Devices that are their owner's: ``gpus`` for CUDA; ``doubt``: what was not seen free, or nothing."""

    devices: tuple[str, ...]
    gpus: tuple[str, ...]
    seconds: float
    doubt: str


ClaimEvent = TakingView | HandedOverView
