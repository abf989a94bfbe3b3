"""Carries bytes between a TCP port on loopback and a runner's Unix socket, without reading them.

Backpressure: at most one buffer waits per direction; a side that stops reading stops the other. A side that
ends its half ends the other's half, so streams and keep-alive work. The API key is the runner's to check.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from agent.errors import NodeError
from agent.limits import MAX_RELAY_CONNECTIONS, RELAY_BUFFER_BYTES

_log = logging.getLogger(__name__)
HOST = "127.0.0.1"


class Relay:
    """One lease's port. Made by ``open``."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    @classmethod
    async def open(cls, target: Path) -> Relay:
        """Listen on a free port of 127.0.0.1 and carry every connection to the socket at ``target``.

        Raises:
            NodeError: no port is to be had.
        """
        self = cls(target)
        try:
            self._server = await asyncio.start_server(self._accept, HOST, 0, limit=RELAY_BUFFER_BYTES)
        except OSError as error:
            raise NodeError(f"no port on {HOST} could be opened: {error.strerror}.") from error
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        """Close the port and every connection through it."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_RELAY_CONNECTIONS:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._carry(reader, writer)
        except OSError as error:
            _log.debug("a relayed connection broke: %s", error)
        except asyncio.CancelledError:
            pass  # close() ended us; the stream protocol would log a cancelled callback as an error
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection(
            str(self._target), limit=RELAY_BUFFER_BYTES
        )
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(reader, there_writer))
                both.create_task(_copy(there_reader, writer))
            # Only now may the transports go: what they still hold is sent first.
            for side in (there_writer, writer):
                side.close()
                await side.wait_closed()
        except* OSError as group:
            _log.debug("a relayed connection broke: %s", group.exceptions[0])
        finally:
            there_writer.transport.abort()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    sink.transport.set_write_buffer_limits(high=RELAY_BUFFER_BYTES)
    while data := await source.read(RELAY_BUFFER_BYTES):
        sink.write(data)
        await sink.drain()
    with contextlib.suppress(OSError):
        sink.write_eof()
