"""``door.sock``: tells the agent which user a process is, which gRPC in Python cannot.

Who connects is told by the kernel (SO_PEERCRED); the answer is one line with a pass, which the caller then
shows on the user socket. Nothing is read from the caller. The connection stays open as long as the pass is
needed: its end, and ``PASS_LIFE_S``, end the pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.errors import BusyError, NodeError, SocketInUseError
from agent.limits import DOOR_LOOKUP_S, MAX_DOOR_CONNECTIONS, PASS_LIFE_S
from agent.people.model import Who
from agent.people.passes import Passes
from pyrdma.errors import Error

_log = logging.getLogger(__name__)
_CREDENTIALS: Final = struct.Struct("iII")
_NOBODY: Final = 0xFFFFFFFF
GIVEN: Final = "pass"
REFUSED: Final = "refused"
Describe = Callable[[int, int], Who]
"""Given a user's and a group's number, returns who it is; may take long."""


class Door:
    """The socket and the connections over which a pass was given.

    Args:
        path: of the socket; its permissions decide who may come at all.
        passes: where passes are kept.
        describe: what the machine knows of a user.
    """

    def __init__(self, path: Path, passes: Passes, describe: Describe) -> None:
        self._path = path
        self._passes = passes
        self._describe = describe
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen; the caller holds the directory's lock.

        Raises:
            SocketInUseError: the socket cannot be bound.
        """
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o117)
        try:
            listener.bind(str(self._path))
        except OSError as error:
            listener.close()
            raise SocketInUseError(
                f"the socket {self._path} cannot be bound ({error.strerror}).",
                fix="see who uses it, or name another --run-dir",
            ) from error
        finally:
            os.umask(before)
        self._server = await asyncio.start_unix_server(self._accept, sock=listener)

    async def close(self) -> None:
        """Let nobody in any more; passes that were given end."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this as a task"
        self._open.add(task)
        try:
            if len(self._open) <= MAX_DOOR_CONNECTIONS:
                await self._answer(reader, writer)
        except asyncio.CancelledError:
            pass  # close() ended us; the stream protocol would log a cancelled callback as an error
        except OSError:
            _log.debug("somebody left the door before the answer")
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        given = ""
        try:
            try:
                given = self._passes.issue(await self._who(writer), time.monotonic())
                writer.write(f"{GIVEN} {given}\n".encode())
            except Error as error:
                writer.write(f"{REFUSED} {error.message}\n".encode())
            await writer.drain()
            if given:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PASS_LIFE_S):
                        await reader.read(1)  # nothing is to come but the end
            else:
                writer.close()
                await writer.wait_closed()
        finally:
            self._passes.strike(given)

    async def _who(self, writer: asyncio.StreamWriter) -> Who:
        connection: socket.socket = writer.get_extra_info("socket")
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, gid = _CREDENTIALS.unpack(raw)
        if uid == _NOBODY:
            raise NodeError("the kernel does not say which user this is.")
        try:
            async with asyncio.timeout(DOOR_LOOKUP_S):
                return await asyncio.to_thread(self._describe, uid, gid)
        except TimeoutError:
            raise BusyError("this machine does not say who its users are.", fix="try again") from None
