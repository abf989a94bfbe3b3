"""A relayed connection as a gRPC call: the asker's end and the servicer's end of it, as pipes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from google.protobuf.message import DecodeError
from grpc import aio

from agent.errors import RequestError
from agent.limits import RELAY_CALL_S
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import Context, is_cancelled, peer_error


class AskedPipe:
    """The asker's end. It does not wait for the other side's word: the first answer or the break tells it."""

    def __init__(self, call: Any, peer: str) -> None:
        self._call = call
        self._peer = peer

    @classmethod
    async def open(
        cls, stub: Any, lease_id: str, peer: str, metadata: Sequence[tuple[str, str]] = ()
    ) -> AskedPipe:
        """Ask a peer to connect to a lease's runner."""
        call = stub.Relay(timeout=RELAY_CALL_S, metadata=metadata)
        pipe = cls(call, peer)
        with pipe._broken():
            await call.write(pb.RelayData(lease_id=lease_id))
        return pipe

    async def read(self) -> bytes:
        """Return what came."""
        while True:
            with self._broken():
                message = await self._call.read()
            if not isinstance(message, pb.RelayData) or message.end:
                return b""
            if message.data:  # an empty message would read as the end
                return message.data

    async def write(self, data: bytes) -> None:
        """Send."""
        with self._broken():
            await self._call.write(pb.RelayData(data=data))

    async def end(self) -> None:
        """End this half."""
        with self._broken():
            await self._call.done_writing()

    async def close(self) -> None:
        """Let go once the other side has; to cancel the call before would lose what is still under way."""
        try:
            with self._broken():
                await self._call.read()
        finally:
            self._call.cancel()

    def abort(self) -> None:
        """Let go at once."""
        self._call.cancel()

    @contextmanager
    def _broken(self) -> Iterator[None]:
        try:
            yield
        except aio.AioRpcError as error:
            raise ConnectionError(peer_error(error, self._peer).message) from error
        except (aio.BaseError, asyncio.InvalidStateError) as error:  # the call ended under our hands
            raise ConnectionError(f"the call to {self._peer} has ended.") from error
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            raise ConnectionError(f"the channel to {self._peer} was closed.") from None


async def first_of(context: Context) -> pb.RelayData:
    """Return an asker's first message, which names the lease.

    Raises:
        RequestError: there is none.
    """
    with suppress(DecodeError):
        message = await context.read()
        if isinstance(message, pb.RelayData):
            return message
    raise RequestError("a relayed connection begins with the name of a lease.")


async def begin(context: Context) -> None:
    """Send the head of the answer by itself.

    With the first bytes it would be sent twice if the call fails while they are under way, and then gRPC
    sends no status at all: the asker would wait until its deadline.
    """
    with suppress(aio.BaseError):  # whoever has gone needs none
        await context.send_initial_metadata(())


class AnsweredPipe:
    """The servicer's end; it lasts as long as the call."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def read(self) -> bytes:
        """Return what came."""
        while True:
            with _gone():
                message = await self._context.read()
            if not isinstance(message, pb.RelayData):
                return b""
            if message.data:  # an empty message would read as the end
                return message.data

    async def write(self, data: bytes) -> None:
        """Send."""
        with _gone():
            await self._context.write(pb.RelayData(data=data))

    async def end(self) -> None:
        """End this half; the call goes on."""
        with _gone():
            await self._context.write(pb.RelayData(end=True))

    async def close(self) -> None:
        """Do nothing: the call ends when the servicer's method does."""

    def abort(self) -> None:
        """Do nothing, for the same reason."""


@contextmanager
def _gone() -> Iterator[None]:
    try:
        yield
    except aio.BaseError as error:
        raise ConnectionError("the asker has gone.") from error
    except DecodeError as error:
        raise ConnectionError("the asker sent what cannot be read.") from error
