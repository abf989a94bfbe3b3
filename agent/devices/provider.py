"""Which devices a node has to lend, and what wants them for their owner: one interface, three providers.

``static`` has devices and wants none; ``idle`` wants one while local processes use it, and for a while after;
``window`` wants one outside the hours of lending. The last two stand around another provider, so that they
can be combined, and each speaks only of the devices whose owner chose it.

A provider says what it sees at one moment. What follows from that is ``agent.devices.ownership``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from agent.limits import QUIET_S
from federation.policy.hours import in_hours

Wants = Mapping[str, Mapping[str, str]]
"""By device: what claims it for its owner, each with the reason in half a sentence."""


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device as it is built.

    Args:
        id: its name on the node, such as ``cpu0`` or ``gpu3``.
        kind: what it is.
        device_class: the policy's word for such devices.
        memory_bytes: what it has, or what is donated of the machine's.
        gpu: what CUDA calls it; empty where there is no GPU.
    """

    id: str
    kind: Literal["cpu", "gpu"]
    device_class: str
    memory_bytes: int
    gpu: str = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """When somebody looks: on the clock of boots, and in the week of this place from Monday 00:00."""

    now_s: float
    week_minute: int


class Provider(Protocol):
    """Which devices there are, and which ones their owner wants. Calls may block on a driver."""

    def devices(self) -> tuple[DeviceSpec, ...]:
        """Return the devices, always the same ones."""

    def wants(self, moment: Moment) -> Wants:
        """Return what wants devices for their owner at this moment."""


class LocalUse(Protocol):
    """What local processes do with devices."""

    def look(self, now_s: float) -> Mapping[str, str]:
        """Return the devices that local processes use, each with who does; calls may block on a driver."""


class Static:
    """Devices that are lent always."""

    def __init__(self, devices: Sequence[DeviceSpec]) -> None:
        self._devices = tuple(devices)

    def devices(self) -> tuple[DeviceSpec, ...]:
        """Return the devices."""
        return self._devices

    def wants(self, moment: Moment) -> Wants:
        """Return nothing."""
        del moment
        return {}


class Idle:
    """Devices that are lent only while no local process uses them.

    Args:
        inner: what has them.
        use: what sees local processes.
        watched: which devices are lent in this way, asked at each look.
        quiet_s: how long a device must have been idle before it is lent.
    """

    def __init__(
        self, inner: Provider, use: LocalUse, watched: Callable[[str], bool], *, quiet_s: float = QUIET_S
    ) -> None:
        self._inner = inner
        self._use = use
        self._watched = watched
        self._quiet_s = quiet_s
        self._used: dict[str, tuple[float, str]] = {}

    def devices(self) -> tuple[DeviceSpec, ...]:
        """Return the devices."""
        return self._inner.devices()

    def wants(self, moment: Moment) -> Wants:
        """Return what is used now, or was a moment ago."""
        wants = {device: dict(claims) for device, claims in self._inner.wants(moment).items()}
        watched = [one.id for one in self.devices() if self._watched(one.id)]
        seen = self._use.look(moment.now_s) if watched else {}
        self._used = {one: was for one, was in self._used.items() if one in watched}
        for device in watched:
            if device in seen:
                self._used[device] = (moment.now_s, seen[device])
            when_s, who = self._used.get(device, (moment.now_s - self._quiet_s, ""))
            if moment.now_s - when_s < self._quiet_s:
                wants.setdefault(device, {})["use"] = who
        return wants


class Window:
    """Devices that are lent in certain hours only.

    Args:
        inner: what has them.
        hours: returns the spans of a device, as ``federation.policy.hours`` reads them; none: at all hours.
    """

    def __init__(self, inner: Provider, hours: Callable[[str], tuple[str, ...]]) -> None:
        self._inner = inner
        self._hours = hours

    def devices(self) -> tuple[DeviceSpec, ...]:
        """Return the devices."""
        return self._inner.devices()

    def wants(self, moment: Moment) -> Wants:
        """Return what is outside its hours."""
        wants = {device: dict(claims) for device, claims in self._inner.wants(moment).items()}
        for one in self.devices():
            spans = self._hours(one.id)
            if not in_hours(spans, moment.week_minute):
                wants.setdefault(one.id, {})["hours"] = f"it is lent {', '.join(spans)} only"
        return wants
