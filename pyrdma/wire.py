"""Messages with file descriptors between processes of one node.

A message is one packet of a ``SOCK_SEQPACKET`` Unix socket: a JSON object of at most ``MAX_MESSAGE_BYTES``
and at most ``MAX_MESSAGE_FDS`` descriptors. What does not fit travels as a descriptor (a sealed memfd, see
``pyrdma.memory``). No message is ever evaluated; a packet that is no JSON object ends the channel.

A channel belongs to one reader and any number of writers; it keeps no queue of its own. Closing it ends every
wait on it with ``ChannelError``.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from pyrdma.errors import ChannelError
from pyrdma.limits import MAX_MESSAGE_BYTES, MAX_MESSAGE_FDS

Message = dict[str, Any]

_FD_BYTES = array.array("i").itemsize


class Channel:
    """One end of a message channel; owns its socket.

    Args:
        sock: a connected ``AF_UNIX`` ``SOCK_SEQPACKET`` socket. The channel closes it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = asyncio.Lock()
        self._waiters: set[asyncio.Future[None]] = set()

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Return a channel and the plain socket of the other end, for a child to inherit."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        """Return a channel on an inherited descriptor, which it owns from now on."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 once closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket; the other end reads the end of the channel."""
        for waiter in self._waiters:
            # Now, not when the waiter runs: by then its descriptor may be the number of another socket.
            _forget(waiter.get_loop(), self._sock.fileno())
            if not waiter.done():
                waiter.set_exception(ChannelError("this channel was closed."))
        self._waiters.clear()
        self._sock.close()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message, waiting for room.

        Raises:
            ChannelError: the other end is gone, or the message is past the limits.
        """
        payload = _encode(message, fds)
        try:
            self._sock.setblocking(True)
            socket.send_fds(self._sock, [payload], list(fds), socket.MSG_NOSIGNAL)
        except OSError as error:
            raise ChannelError(f"a process of this node closed its channel ({error.strerror}).") from error

    def recv(self, timeout_s: float | None = None) -> tuple[Message, list[int]]:
        """Receive one message and its descriptors, which the caller owns.

        Raises:
            ChannelError: the channel ended, or what came is no message.
            TimeoutError: nothing came within ``timeout_s``.
        """
        return self._read(timeout_s)

    async def asend(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message without blocking the event loop; raises as ``send``."""
        payload = _encode(message, fds)
        async with self._sending:  # an event loop wakes one writer of a descriptor, not several
            sent = 0
            while not sent:
                try:
                    self._sock.setblocking(False)
                    sent = socket.send_fds(self._sock, [payload], list(fds), socket.MSG_NOSIGNAL)
                except (BlockingIOError, InterruptedError):
                    await self._ready(writing=True)
                except OSError as error:
                    raise ChannelError(
                        f"a process of this node closed its channel ({error.strerror})."
                    ) from error

    async def arecv(self) -> tuple[Message, list[int]]:
        """Receive one message without blocking the event loop; raises as ``recv``."""
        await asyncio.sleep(0)  # a writer that never pauses does not starve the loop of its reader
        while True:
            try:
                return self._read(0.0)
            except (BlockingIOError, InterruptedError):
                await self._ready(writing=False)

    async def _ready(self, *, writing: bool) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        fd = self._sock.fileno()
        add = loop.add_writer if writing else loop.add_reader
        remove = loop.remove_writer if writing else loop.remove_reader
        add(fd, _wake, waiter)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.discard(waiter)
                remove(fd)

    def _read(self, timeout_s: float | None) -> tuple[Message, list[int]]:
        room = socket.CMSG_SPACE(MAX_MESSAGE_FDS * _FD_BYTES)
        try:
            self._sock.settimeout(timeout_s)
            payload, ancillary, flags, _ = self._sock.recvmsg(
                MAX_MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError, TimeoutError):
            raise
        except OSError as error:
            raise ChannelError(f"a process of this node closed its channel ({error.strerror}).") from error
        fds = _descriptors(ancillary)
        try:
            if not payload:
                raise ChannelError("a process of this node closed its channel.")
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ChannelError("a process of this node sent a message past the limits.")
            message = json.loads(payload)
            if not isinstance(message, dict):
                raise ChannelError("a process of this node sent what is no message.")
        except (ValueError, RecursionError) as error:
            _close_all(fds)
            raise ChannelError("a process of this node sent what is no message.") from error
        except ChannelError:
            _close_all(fds)
            raise
        return message, fds


def _encode(message: Message, fds: Sequence[int]) -> bytes:
    payload = json.dumps(message, separators=(",", ":")).encode()
    if len(payload) > MAX_MESSAGE_BYTES or len(fds) > MAX_MESSAGE_FDS:
        raise ChannelError(
            f"a message of {len(payload)} bytes and {len(fds)} descriptors is past the limits."
        )
    return payload


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _FD_BYTES])
    return fds.tolist()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _forget(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    loop.remove_reader(fd)
    loop.remove_writer(fd)
