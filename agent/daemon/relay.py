"""A lease's port: carries each connection on a TCP port of loopback to the lease's runner, wherever that is.

The API key is the runner's to check. How bytes are carried: ``agent.daemon.pipes``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent.daemon.pipes import Pipe, StreamPipe, carry
from agent.errors import NodeError, Reported
from agent.limits import MAX_RELAY_CONNECTIONS, RELAY_BUFFER_BYTES

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
            await carry(StreamPipe(reader, writer), await self._connect())
        except (OSError, *Reported) as error:
            _log.debug("a relayed connection broke: %s", error)
        except asyncio.CancelledError:
            pass  # close() ended us; the stream protocol would log a cancelled callback as an error
        finally:
            self._connections.discard(task)
            writer.transport.abort()
