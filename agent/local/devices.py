"""The calls of the local client that are about this node's devices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from agent.devices.wishes import Claim, DeviceChange
from agent.limits import LONG_CALL_S, SHORT_CALL_S
from agent.local import device_views
from agent.rpc import convert_devices
from agent.rpc import pyrdma_pb2 as pb


class DeviceClient:
    """What a client can ask about devices; ``AgentClient`` has the connection."""

    _stub: Any
    _answer: Callable[[Awaitable[Any]], Awaitable[Any]]
    _events: Callable[[Any, Callable[[Any], Any]], AsyncIterator[Any]]

    async def devices(self) -> tuple[device_views.OwnDeviceView, ...]:
        """Return the devices of this node."""
        call = self._stub.ListDevices(pb.ListDevicesRequest(), timeout=SHORT_CALL_S)
        return convert_devices.devices_from(await self._answer(call))

    async def change_devices(self, wish: DeviceChange) -> tuple[device_views.OwnDeviceView, ...]:
        """Lend devices in another way, or no more; return those that it is about."""
        call = self._stub.ChangeDevices(convert_devices.change_to(wish), timeout=SHORT_CALL_S)
        return convert_devices.devices_from(await self._answer(call))

    async def claim_devices(
        self, wish: Claim, *, timeout_s: float = LONG_CALL_S
    ) -> AsyncIterator[device_views.ClaimEvent]:
        """Take devices back for a process; yields what is taken, last that it is there."""
        call = self._stub.ClaimDevices(convert_devices.claim_to(wish), timeout=timeout_s)
        async for event in self._events(call, convert_devices.claim_event_from):
            yield event
