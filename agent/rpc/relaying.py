"""A relayed connection as a gRPC call: the asker's end and the servicer's end of it, as pipes."""

from __future__ import annotations

from typing import Any

from grpc import aio

from agent.limits import RELAY_CALL_S
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import Context, peer_error


class AskedPipe:
    """The asker's end. It does not wait for the other side's word: the first answer, or the break, comes by it."""

    def __init__(self, call: Any, peer: str) -> None:
        self._call = call
        self._peer = peer

    @classmethod
    async def open(cls, stub: Any, lease_id: str, peer: str) -> AskedPipe:
        """Ask a peer to connect to a lease's runner."""
        call = stub.Relay(timeout=RELAY_CALL_S)
        pipe = cls(call, peer)
        await pipe._send(pb.RelayData(lease_id=lease_id))
        return pipe

    async def read(self) -> bytes:
        """Return what came."""
        try:
            message = await self._call.read()
        except aio.AioRpcError as error:
            raise self._broken(error) from error
        return b"" if not isinstance(message, pb.RelayData) or message.end else message.data

    async def write(self, data: bytes) -> None:
        """Send."""
        await self._send(pb.RelayData(data=data))

    async def end(self) -> None:
        """End this half."""
        try:
            await self._call.done_writing()
        except aio.AioRpcError as error:
            raise self._broken(error) from error

    async def close(self) -> None:
        """Let go; both halves have ended."""
        self._call.cancel()

    def abort(self) -> None:
        """Let go at once."""
        self._call.cancel()

    async def _send(self, message: pb.RelayData) -> None:
        try:
            await self._call.write(message)
        except aio.AioRpcError as error:
            raise self._broken(error) from error
        except aio.InternalError as error:  # the call was cancelled under our hands
            raise ConnectionError(str(error)) from error

    def _broken(self, error: aio.AioRpcError) -> ConnectionError:
        return ConnectionError(peer_error(error, self._peer).message)


class AnsweredPipe:
    """The servicer's end; it lasts as long as the call."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def read(self) -> bytes:
        """Return what came."""
        while True:
            message = await self._context.read()
            if not isinstance(message, pb.RelayData):
                return b""
            if message.data:  # an empty message would read as the end
                return message.data

    async def write(self, data: bytes) -> None:
        """Send."""
        try:
            await self._context.write(pb.RelayData(data=data))
        except aio.UsageError as error:
            raise ConnectionError("the asker has gone.") from error

    async def end(self) -> None:
        """End this half; the call goes on."""
        try:
            await self._context.write(pb.RelayData(end=True))
        except aio.UsageError as error:
            raise ConnectionError("the asker has gone.") from error

    async def close(self) -> None:
        """Do nothing: the call ends when the servicer's method does."""

    def abort(self) -> None:
        """Do nothing, for the same reason."""
