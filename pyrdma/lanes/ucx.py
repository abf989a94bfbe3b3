"""The UCX lane worker: ``python -m pyrdma.lanes.ucx --control-fd N --interface IFACE``.

It parses bytes from other machines in C code that was not written for enemies, so it is untrusted by
construction: it holds no key and no verified memory it could change. It writes into one ring that the weight
cache lent it, and reads the images that it was told to serve through descriptors that cannot be mapped
writable. The cache copies each piece out of the ring and proves the copy.

It says nothing that the cache believes but "fetch 7 ended". It never asks; orders come over the control
channel, requests of peers over UCX itself. With nothing to do it sleeps in epoll.

Here are its start, its event loop and the frames of peers. What it does for readers stands in
``pyrdma.lanes.serving``, for our own pulls in ``pyrdma.lanes.fetching``, with UCX in ``pyrdma.lanes.port``.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from pyrdma.errors import ChannelError, Error
from pyrdma.lanes.fetching import Fetches
from pyrdma.lanes.frame import CONTROL_TAG, FRAME_BYTES, Frame, Kind
from pyrdma.lanes.port import Port, failure
from pyrdma.lanes.serving import Sessions
from pyrdma.limits import LANE_DATA_BYTES
from pyrdma.sandbox import Confinement, enter
from pyrdma.wire import Channel, Message

_CONTROL_RECEIVES: Final = 64
"""Frames that peers may have on the way to us before UCX must buffer them."""
_NETWORK_SYS: Final = (Path("/sys/class/net"), Path("/sys/devices"))
_IDLE_ROUNDS: Final = 2
"""Rounds without progress before the worker sleeps: one spare round is cheaper than a wake-up."""


class UcxWorker:
    """The event loop of the process's only thread: orders of the cache, frames of peers, ends that UCX tells.

    Args:
        channel: the control channel of the cache.
        port: UCX, up already.
        sessions: who reads from us.
        fetches: what we fetch.
    """

    def __init__(self, channel: Channel, port: Port, sessions: Sessions, fetches: Fetches) -> None:
        self._channel = channel
        self._port = port
        self._sessions = sessions
        self._fetches = fetches
        self._frames: list[tuple[Any, Any]] = []
        self._orders: dict[str, Callable[[Message, list[int]], None]] = {
            "ring": fetches.take_ring,
            "connect": fetches.connect,
            "disconnect": fetches.disconnect,
            "fetch": fetches.fetch,
            "serve": sessions.serve,
            "allow": sessions.allow,
            "withdraw": sessions.withdraw,
            "egress": sessions.bound,
        }

    def start(self) -> None:
        """Be ready for frames of peers, and tell the cache our address."""
        self._frames = [self._next_frame() for _ in range(_CONTROL_RECEIVES)]
        self._channel.send({"op": "ready", "address": self._port.address.hex(), "lane": "tcp"})

    def run(self) -> None:
        """Serve until the control channel ends."""
        poller = select.epoll()
        poller.register(self._channel.fileno(), select.EPOLLIN)
        poller.register(self._port.fileno(), select.EPOLLIN)
        control = self._channel.fileno()
        idle = 0
        while True:
            busy = self._port.progress()
            busy = self._finish() or busy
            idle = 0 if busy else idle + 1
            if idle < _IDLE_ROUNDS:
                timeout_s = 0.0
            elif self._port.arm():
                timeout_s = self._sessions.watch()
            else:
                continue
            for fd, _ in poller.poll(timeout_s):
                if fd == control:
                    idle = 0
                    message, fds = self._channel.recv()
                    self._orders[message["op"]](message, fds)

    def _finish(self) -> bool:
        busy = False
        for index, (request, buffer) in enumerate(self._frames):
            if request.completed:
                busy = True
                frame = Frame.decode(buffer.tobytes()) if failure(request) is None else None
                self._frames[index] = self._next_frame()
                if frame is not None:
                    self._take(frame)
        busy = self._fetches.finish() or busy
        busy = self._port.finish_sends() or busy
        self._sessions.remind()
        if self._fetches.lost or self._sessions.left:
            busy = True
            self._port.cancel_failed()
            self._fetches.end_lost()
            self._sessions.end_left()
        return busy

    def _next_frame(self) -> tuple[Any, Any]:
        buffer = np.zeros(FRAME_BYTES, dtype=np.uint8)
        return self._port.receive(buffer, CONTROL_TAG), buffer

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.REQUEST:
                self._sessions.answer(frame)
            case Kind.LEAVE:
                self._sessions.leave(frame.session)
            case Kind.REFUSE:
                self._fetches.refused(frame.tag)
            case Kind.WAIT:
                self._fetches.waits(frame.tag)


def main() -> int:
    """Run the worker; ends with its control channel."""
    parser = argparse.ArgumentParser(prog="pyrdma-ucx-worker")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--interface", required=True)
    options = parser.parse_args()
    channel = Channel.from_fd(options.control_fd)
    try:
        # UCX lists network interfaces in /sys; everything else of the machine is out of sight from here on.
        enter(Confinement(network=True, keep_fds=(options.control_fd,), readable=_NETWORK_SYS))
        resource.setrlimit(resource.RLIMIT_DATA, (LANE_DATA_BYTES, LANE_DATA_BYTES))
        port = Port(options.interface)
        worker = UcxWorker(channel, port, Sessions(port, channel), Fetches(port, channel))
        worker.start()
        worker.run()
    except ChannelError:
        pass  # the cache is gone or has let us go
    except Error as error:
        channel.send({"op": "failed", "code": error.code, "message": error.message, "fix": error.fix})
        return 1
    # UCX's own teardown waits seconds for peers that are gone; the kernel closes everything at once.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
