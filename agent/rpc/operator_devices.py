"""The calls of the Operator service that are about this node's devices."""

# ruff: noqa: N802, ARG002 - the protocol file names the methods, gRPC their arguments

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from agent.daemon.node import Node
from agent.limits import LONG_CALL_S, SHORT_CALL_S
from agent.local.device_views import ClaimEvent
from agent.rpc import convert_devices
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import Context, answering
from agent.rpc.streams import Work, stream_of


class DeviceCalls:
    """What this node lends, and how its owner takes it back."""

    _node: Node
    _refuse_viewers: Callable[[], None]

    async def ListDevices(self, request: pb.ListDevicesRequest, context: Context) -> pb.ListDevicesResponse:
        """Return the devices of this node."""
        async with answering(context, SHORT_CALL_S):
            host = self._node.host
            return convert_devices.devices_to(host.devices.views() if host is not None else ())

    async def ChangeDevices(
        self, request: pb.ChangeDevicesRequest, context: Context
    ) -> pb.ListDevicesResponse:
        """Lend devices in another way, or no more."""
        async with answering(context, SHORT_CALL_S):
            self._refuse_viewers()
            wish = convert_devices.change_from(request)
            return convert_devices.devices_to(await self._node.devices.change(wish))

    async def ClaimDevices(
        self, request: pb.ClaimDevicesRequest, context: Context
    ) -> AsyncIterator[pb.ClaimEvent]:
        """Take devices back for a command, and say when they are there."""
        async with answering(context, LONG_CALL_S):
            self._refuse_viewers()
            wish = convert_devices.claim_from(request)
            work: Work[ClaimEvent] = lambda emit: self._node.devices.claim(wish, emit)  # noqa: E731
            async with aclosing(stream_of(work)) as events:
                async for event in events:
                    yield convert_devices.claim_event_to(event)
