"""Commands of the owner's that hold devices, each for as long as its process lives.

A command is known by its process and when that began, so that another process of the same number is not taken
for it. While it waits for its devices, whoever asked for them holds the claim as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from agent.devices.processes import started_ticks
from agent.errors import BusyError, RequestError
from agent.limits import MAX_CLAIMS


class Claimable(Protocol):
    """The devices of a node, as commands claim them."""

    def claim(self, name: str, devices: Sequence[str], reason: str) -> None:
        """Want devices for their owner."""

    def unclaim(self, name: str) -> None:
        """Want them no more."""

    def owned(self, devices: Sequence[str]) -> bool:
        """Say whether these devices are all their owner's."""

    def watch(self, changed: asyncio.Event) -> None:
        """Set an event at every change from now on."""

    def unwatch(self, changed: asyncio.Event) -> None:
        """Set it no more."""


class Commands:
    """The commands that have devices of one node, or wait for them.

    Args:
        devices: what they claim.
        clock: the clock of boots, in s.
    """

    def __init__(self, devices: Claimable, clock: Callable[[], float]) -> None:
        self._devices = devices
        self._clock = clock
        self._holders: dict[str, tuple[int, int]] = {}

    async def take(self, name: str, devices: Sequence[str], reason: str, *, pid: int, started: int) -> float:
        """Take devices back for a process; returns the seconds when they are all the owner's.

        The claim lasts as long as the process. Being cancelled before the return ends it.

        Raises:
            BusyError: there are too many claims.
            RequestError: there is no such process here.
        """
        if len(self._holders) >= MAX_CLAIMS:
            raise BusyError(f"{MAX_CLAIMS} commands have devices of this node already.")
        if started_ticks(pid) != started:
            raise RequestError(
                f"the process {pid} cannot be seen by the agent, so nobody would give the devices back.",
                fix="run the command on this machine, outside of containers that the agent is not in",
            )
        begun_s = self._clock()
        changed = asyncio.Event()
        self._holders[name] = (pid, started)
        self._devices.watch(changed)
        try:
            self._devices.claim(name, devices, reason)
            while not self._devices.owned(devices):
                await changed.wait()
                changed.clear()
                if name not in self._holders:
                    raise RequestError(f"the process {pid} has ended.")
        except BaseException:
            self._give_back(name)
            raise
        finally:
            self._devices.unwatch(changed)
        return self._clock() - begun_s

    def forget_ended(self) -> None:
        """End the claims of those that have ended."""
        for name, (pid, started) in list(self._holders.items()):
            if started_ticks(pid) != started:
                self._give_back(name)

    def _give_back(self, name: str) -> None:
        self._holders.pop(name, None)
        self._devices.unclaim(name)
