"""A lease's port: carries each connection on a TCP port of loopback to the lease's runner, wherever that is.

The API key is the runner's to check. How bytes are carried: ``agent.daemon.pipes``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable

from agent.daemon.pipes import Pipe, StreamPipe, carry
from agent.errors import NodeError, Reported
from agent.limits import APOLOGY_S, MAX_ERROR_TEXT_BYTES, MAX_RELAY_CONNECTIONS, RELAY_BUFFER_BYTES
from agent.text import printable

_log = logging.getLogger(__name__)
HOST = "127.0.0.1"
Connect = Callable[[], Awaitable[Pipe]]
"""Opens a pipe to the runner; raises OSError, Error or FederationError."""


class Relay:
    """One lease's port. Made by ``open``."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    @classmethod
    async def open(cls, connect: Connect) -> Relay:
        """Listen on a free port of 127.0.0.1 and carry every connection to what ``connect`` opens.

        Raises:
            NodeError: no port is to be had.
        """
        self = cls(connect)
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
            await self._serve(_Client(reader, writer))
        except asyncio.CancelledError:
            pass  # close() ended us; the stream protocol would log a cancelled callback as an error
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _serve(self, client: _Client) -> None:
        try:
            await carry(client, await self._connect())
        except (OSError, *Reported) as error:
            _log.debug("a relayed connection broke: %s", error)
            if not client.answered:
                with contextlib.suppress(OSError, TimeoutError):
                    await _apologise(client, str(error))


class _Client(StreamPipe):
    """The caller's end, which the relay itself lets go of: it may have to say why nobody answered."""

    answered = False

    async def write(self, data: bytes) -> None:
        """Send."""
        self.answered = True
        await super().write(data)

    def abort(self) -> None:
        """Leave it to the relay."""


async def _apologise(client: _Client, reason: str) -> None:
    """Say why nobody answers, and let the caller finish its request: a reset would overtake the sentence."""
    async with asyncio.timeout(APOLOGY_S):
        await client.write(_apology(reason))
        await client.end()
        while await client.read():
            pass


def _apology(reason: str) -> bytes:
    """Return an HTTP answer that says why there is none; every client of this port speaks HTTP."""
    said = f"the lease's runner could not be reached: {printable(reason, MAX_ERROR_TEXT_BYTES)}"
    body = json.dumps({"error": {"message": said, "type": "lease_unreachable", "param": None, "code": None}})
    return (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
