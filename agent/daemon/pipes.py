"""A relayed connection as both of its ends see it, and the pump between two of them.

Rules: bytes are never read for what they say; at most one buffer waits per direction, so a side that stops
reading stops the other; a side that ends its half ends the other's half, so streams and keep-alive work;
whatever breaks, both sides are let go.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Protocol

from agent.limits import RELAY_BUFFER_BYTES


class Pipe(Protocol):
    """One end of a connection. Methods raise OSError when it broke."""

    async def read(self) -> bytes:
        """Return what came, or nothing when the other side has ended its half."""

    async def write(self, data: bytes) -> None:
        """Send, and wait while the other side takes nothing."""

    async def end(self) -> None:
        """End this half; reading goes on."""

    async def close(self) -> None:
        """End both halves once what was written is out."""

    def abort(self) -> None:
        """Let go at once; after ``close`` this does nothing."""


class StreamPipe:
    """A pipe over a socket of asyncio's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=RELAY_BUFFER_BYTES)

    @classmethod
    async def to(cls, path: Path) -> StreamPipe:
        """Connect to a Unix socket. Raises OSError."""
        return cls(*await asyncio.open_unix_connection(str(path), limit=RELAY_BUFFER_BYTES))

    async def read(self) -> bytes:
        """Return what came."""
        return await self._reader.read(RELAY_BUFFER_BYTES)

    async def write(self, data: bytes) -> None:
        """Send."""
        self._writer.write(data)
        await self._writer.drain()

    async def end(self) -> None:
        """End this half."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def close(self) -> None:
        """End both halves once what was written is out."""
        self._writer.close()
        await self._writer.wait_closed()

    def abort(self) -> None:
        """Let go at once."""
        self._writer.transport.abort()


async def carry(one: Pipe, other: Pipe) -> None:
    """Carry bytes both ways until both halves have ended, then let go of both pipes.

    Raises:
        OSError: a side broke.
    """
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_copy(one, other))
            both.create_task(_copy(other, one))
        # Only now may they go: what they still hold is sent first.
        await other.close()
        await one.close()
    except ExceptionGroup as group:
        broken, defects = group.split(OSError)
        if broken is None or defects is not None:
            raise
        raise ConnectionError(str(broken.exceptions[0])) from group
    finally:
        other.abort()
        one.abort()


async def _copy(source: Pipe, sink: Pipe) -> None:
    while data := await source.read():
        await sink.write(data)
    await sink.end()
