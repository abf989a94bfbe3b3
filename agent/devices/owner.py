"""The owner's side of a node: sees local demand, takes devices back, hands them over, lends them again.

Rules: demand is looked for each ``DEMAND_EVERY_S``; what follows from it, ``agent.devices.ownership`` says
for each device. Nothing here waits for a disk, a gateway, a borrower or a driver: looks and checks run beside
the loop, and what they do not say in time is taken for not seen. Time is the clock of boots.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol, TypeVar

from agent.devices.commands import Commands
from agent.devices.ownership import (
    Claimed,
    Event,
    GuestCame,
    GuestLeft,
    HandedOver,
    Held,
    Kill,
    LentAgain,
    MakeRoom,
    MemorySeen,
    Notify,
    Phase,
    Tick,
    Unclaimed,
    Withdraw,
    next_deadline_s,
    step,
)
from agent.devices.processes import group_is_gone
from agent.devices.provider import DeviceSpec, Moment, Provider
from agent.devices.settings import DeviceSettings, Will
from agent.errors import OwnedError, RequestError
from agent.limits import DEMAND_EVERY_S, LOOK_S, VERIFY_EVERY_S, VERIFY_S

_A = TypeVar("_A")
_R = TypeVar("_R")
_log = logging.getLogger(__name__)
_SEEN = ("use", "hours")
"""Claims of providers; they come and go with what is seen."""
_WILL = "will"
"""The claim of what the owner said last of a device."""


class Guests(Protocol):
    """The leases of this node, as the owner of its devices treats them. No call waits for anything."""

    def notice(self, lease_id: str, left_s: float, reason: str, *, for_owner: bool = False) -> None:
        """Let a lease finish what it has begun, since it is killed in ``left_s``."""

    def withdraw(self, lease_id: str, *, for_owner: bool = False) -> None:
        """Take a notice back: the lease goes on if it still can."""

    def kill(self, lease_id: str, reason: str) -> None:
        """End a lease at once, whatever it does."""

    def expire(self) -> None:
        """End the leases whose time is over."""


class Room(Protocol):
    """What this node holds for guests to come."""

    def pause(self) -> None:
        """Let go of spare runners, and start none."""

    def resume(self) -> None:
        """Keep spare runners again."""

    async def fit(self, lent: Sequence[DeviceSpec]) -> bool:
        """Hold no more memory than that of the devices that are lent; say whether that is so now."""

    def in_use(self, device: DeviceSpec) -> bool:
        """Say whether a process of ours is still on a device; it may block on a driver."""


class Owner:
    """The devices of one node and who has them.

    Args:
        provider: which devices there are, and what wants them; its calls may block.
        room: what is held for guests to come.
        settings: how each device is lent, as its owner said before.
        clock: the clock of boots, in s.
    """

    def __init__(
        self,
        provider: Provider,
        room: Room,
        settings: Mapping[str, DeviceSettings],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._provider = provider
        self._room = room
        self._clock = clock
        self.specs = {one.id: one for one in provider.devices()}
        self.settings = {one: settings.get(one, DeviceSettings()) for one in self.specs}
        self.guests: Guests | None = None
        self.on_change: Callable[[], None] = lambda: None
        """Told when a device changes hands, or begins to."""
        self._held = dict.fromkeys(self.specs, Held())
        self._groups: dict[str, set[int]] = {one: set() for one in self.specs}
        self.commands = Commands(self, clock)
        self._wake = asyncio.Event()
        self._watchers: set[asyncio.Event] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._looking_since_s = 0.0
        # One thread for the driver: when it hangs, nothing else does, and no thread comes on top.
        self._driver = ThreadPoolExecutor(1, thread_name_prefix="driver")
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; what its owner had kept back before is kept back."""
        for device, one in self.settings.items():
            if one.will is not Will.DONATED:
                self._apply(device, Claimed(_WILL, _said(one.will), self._clock()))
        self._loop = asyncio.create_task(self._keep(), name="devices")

    async def close(self) -> None:
        """Stop looking."""
        tasks = [*self._tasks.values(), *([self._loop] if self._loop is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._driver.shutdown(wait=False, cancel_futures=True)

    def held(self, device: str) -> Held:
        """Return how a device stands."""
        return self._held[device]

    # --- what leases ask ----------------------------------------------------------------------------------

    def place(self, lease_id: str, wanted: Sequence[str], grace_s: float) -> tuple[str, ...]:
        """Give a lease its devices; those that are wanted, or one that fits.

        Raises:
            RequestError: there is no such device.
            OwnedError: the device's owner has it, or takes it back; no lease starts there.
        """
        for device in wanted:
            if device not in self.specs:
                raise RequestError(f"this node has no device {device[:32]!r}.")
        taken = tuple(dict.fromkeys(wanted)) or (self._least_taken(),)
        for device in taken:
            self._refuse_owned(device)
        for device in taken:
            self._apply(device, GuestCame(lease_id, grace_s, self._clock()))
        return taken

    def left(self, lease_id: str, group: int | None) -> None:
        """Note that nothing of a lease runs any more; ``group``: the process group that its runner had."""
        for device, held in self._held.items():
            if lease_id in held.guests:
                if group is not None:
                    self._groups[device].add(group)
                self._apply(device, GuestLeft(lease_id, self._clock()))

    def _least_taken(self) -> str:
        free = [one for one in self.specs if self._takes(one)]
        if not free:
            device = next(iter(self.specs), "")
            if not device:
                raise OwnedError("this node lends no device.")
            self._refuse_owned(device)
        return min(free, key=lambda one: len(self._held[one].guests))

    def _takes(self, device: str) -> bool:
        return self._held[device].takes_guests and not self.settings[device].draining

    def _refuse_owned(self, device: str) -> None:
        held = self._held[device]
        if not held.takes_guests:
            why = held.reason or "it was not seen free after the last reclaim"
            verb = "has" if held.phase is Phase.OWNED else "takes back"
            raise OwnedError(
                f"the owner of this node {verb} {device}: {why}.",
                fix="use another device, or try again later",
            )
        if self.settings[device].draining:
            raise OwnedError(
                f"{device} is draining: what runs there goes on, nothing starts.", fix="use another device"
            )

    # --- what the owner says ------------------------------------------------------------------------------

    def lend_as(self, device: str, settings: DeviceSettings) -> None:
        """Lend a device in another way from now on, or no more."""
        self.settings[device] = settings
        if settings.will is Will.DONATED:
            self._apply(device, Unclaimed(_WILL, self._clock()))
        else:
            self._apply(device, Claimed(_WILL, _said(settings.will), self._clock()))
        self._wake.set()
        self.on_change()

    def claim(self, name: str, devices: Sequence[str], reason: str) -> None:
        """Want devices for their owner."""
        for device in devices:
            self._apply(device, Claimed(name, reason, self._clock()))

    def unclaim(self, name: str) -> None:
        """Want them no more."""
        for device, held in self._held.items():
            if name in held.claims:
                self._apply(device, Unclaimed(name, self._clock()))

    def owned(self, devices: Sequence[str]) -> bool:
        """Say whether these devices are all their owner's."""
        return all(self._held[one].phase is Phase.OWNED for one in devices)

    def watch(self, changed: asyncio.Event) -> None:
        """Set an event at every change from now on."""
        self._watchers.add(changed)

    def unwatch(self, changed: asyncio.Event) -> None:
        """Set it no more."""
        self._watchers.discard(changed)

    # --- the loop -----------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            self._wake.clear()
            try:
                self._beat()
            except Exception:  # noqa: BLE001 - without this loop no device would ever come back to its owner
                _log.exception("the loop of devices met a defect; it goes on")
            pause_s = self._pause_s()
            try:
                async with asyncio.timeout(pause_s + 0.005):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _pause_s(self) -> float:
        held = self._held.values()
        due = [at_s - self._clock() for one in held if (at_s := next_deadline_s(one)) is not None]
        usual = VERIFY_EVERY_S if any(one.phase is Phase.VERIFYING for one in held) else DEMAND_EVERY_S
        return max(0.0, min([usual, *due]))

    def _beat(self) -> None:
        if self.guests is not None:
            self.guests.expire()
        self.commands.forget_ended()
        self._begin("look", self._look)
        if "look" in self._tasks and self._clock() - self._looking_since_s > LOOK_S:
            _log.warning("a look at this node's devices hangs; the last one counts")
            self._looking_since_s = self._clock()
        for device in self.specs:
            self._apply(device, Tick(self._clock()))
            held = self._held[device]
            if held.phase is Phase.VERIFYING or held.doubt:
                self._begin(device, lambda device=device: self._verify(device))  # type: ignore[misc]

    def _begin(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do something beside the loop, once at a time."""
        if name in self._tasks:
            return
        if name == "look":
            self._looking_since_s = self._clock()

        async def run() -> None:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - what a driver or a cache says must not stop the loop
                _log.warning("devices: %s could not be seen: %s", name, error)
            finally:
                del self._tasks[name]

        self._tasks[name] = asyncio.create_task(run(), name=f"devices-{name}")

    async def _look(self) -> None:
        here = time.localtime()
        moment = Moment(self._clock(), here.tm_wday * 1440 + here.tm_hour * 60 + here.tm_min)
        wants = await self._drive(self._provider.wants, moment)
        for device, held in self._held.items():
            claims = wants.get(device, {})
            for claim in _SEEN:
                if claim in claims:
                    self._apply(device, Claimed(claim, claims[claim], self._clock()))
                elif claim in held.claims:
                    self._apply(device, Unclaimed(claim, self._clock()))

    async def _drive(self, call: Callable[[_A], _R], argument: _A) -> _R:
        return await asyncio.get_running_loop().run_in_executor(self._driver, call, argument)

    async def _verify(self, device: str) -> None:
        groups = self._groups[device]
        groups -= {one for one in groups if group_is_gone(one)}
        async with asyncio.timeout(VERIFY_S):
            used = await self._drive(self._room.in_use, self.specs[device])
            fits = await self._room.fit(self._lent())
        free = not groups and not used and fits
        self._apply(device, MemorySeen(free, self._clock()))

    def _lent(self) -> list[DeviceSpec]:
        """Return the devices that are lent, each with the memory that is."""
        return [self.lent_spec(one) for one, held in self._held.items() if held.phase is Phase.LENT]

    def lent_spec(self, device: str) -> DeviceSpec:
        """Return a device without what is kept free of its memory."""
        spec, headroom = self.specs[device], self.settings[device].headroom_bytes
        return replace(spec, memory_bytes=max(0, spec.memory_bytes - headroom))

    def _apply(self, device: str, event: Event) -> None:
        before = self._held[device]
        held, effects = step(before, event)
        self._held[device] = held
        for effect in effects:
            match effect:
                case MakeRoom():
                    _log.info("%s is taken back for its owner: %s", device, held.reason)
                    self._room.pause()
                    self._refit()
                case Notify(lease_id, deadline_s):
                    assert self.guests is not None, "there are guests"
                    left_s = max(0.0, deadline_s - self._clock())
                    self.guests.notice(lease_id, left_s, _why(device), for_owner=True)
                case Withdraw(lease_id):
                    assert self.guests is not None, "there are guests"
                    if not self._wanted(lease_id):
                        self.guests.withdraw(lease_id, for_owner=True)
                case Kill(lease_id):
                    assert self.guests is not None, "there are guests"
                    self.guests.kill(lease_id, _why(device))
                case HandedOver(seconds, doubt):
                    _log.info(
                        "%s is its owner's after %.1f s%s", device, seconds, "; in doubt" if doubt else ""
                    )
                    self._settle()
                case LentAgain():
                    _log.info("%s is lent again", device)
                    self._groups[device].clear()
                    self._settle()
                    self._refit()
        if held.phase is not before.phase:
            self._wake.set()
            self.on_change()
        if held != before:
            for watcher in self._watchers:
                watcher.set()

    def _wanted(self, lease_id: str) -> bool:
        """Say whether any device of a lease is its owner's, or on its way there."""
        return any(lease_id in one.guests and not one.takes_guests for one in self._held.values())

    def _settle(self) -> None:
        """Keep spares again once no reclaim is under way and something is lent."""
        phases = {one.phase for one in self._held.values()}
        if phases <= {Phase.LENT, Phase.OWNED} and Phase.LENT in phases:
            self._room.resume()

    def _refit(self) -> None:
        async def fit() -> None:
            lent: list[DeviceSpec] = []
            async with asyncio.timeout(VERIFY_S):
                while lent != (lent := self._lent()):  # it may change while the cache is told
                    await self._room.fit(lent)

        self._begin("memory", fit)


def _why(device: str) -> str:
    # What the owner does with it is not the guest's to know.
    return f"the owner of {device} needs it"


def _said(will: Will) -> str:
    return "its operator has withdrawn it" if will is Will.WITHDRAWN else "its operator has taken it back"
