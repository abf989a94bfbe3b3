"""Lane workers that break their word: ``python lane_workers.py MODE ARGUMENT --control-fd N ...``.

The first kind are real UCX workers with one fault; the second kind are hostile programs that never bring UCX
up and attack the weight cache over what it lent them.
"""

from __future__ import annotations

import argparse
import mmap
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from pyrdma.wire import Channel

PIECE_BYTES = 16 << 20


def real(mode: str, argument: str, channel: Channel, interface: str) -> None:
    """Run a UCX worker that notes each piece it is asked for and has one fault."""
    import numpy as np

    from pyrdma.lanes.fetching import Fetches
    from pyrdma.lanes.frame import DATA_TAG, Frame
    from pyrdma.lanes.port import Port
    from pyrdma.lanes.serving import Sessions
    from pyrdma.lanes.ucx import UcxWorker

    class NotedSessions(Sessions):
        def answer(self, frame: Frame) -> None:
            with Path(argument).open("a") as log:
                log.write(f"{frame.offset // PIECE_BYTES}\n")
            super().answer(frame)

    class FaultyPort(Port):
        taken = 0

        def send(self, endpoint: Any, buffer: Any, tag: int, done: Any) -> bool:
            if not tag & DATA_TAG:
                return super().send(endpoint, buffer, tag, done)
            if mode == "liar":
                buffer = np.array(buffer)
                buffer[len(buffer) // 2] ^= 1
            if mode == "short":
                buffer = buffer[:-1]

            def noted() -> None:
                done()
                self.taken += 1  # the first of the two is with the receiver by now
                if self.taken == 2 and mode in ("mortal", "sleeper"):
                    os.kill(os.getpid(), signal.SIGKILL if mode == "mortal" else signal.SIGSTOP)

            return super().send(endpoint, buffer, tag, noted)

    port = FaultyPort(interface)
    worker = UcxWorker(channel, port, NotedSessions(port, channel), Fetches(port, channel))
    worker.start()
    worker.run()


class Hostile:
    """Obeys nothing; each mode is one attack on the cache."""

    def __init__(self, mode: str, argument: str, channel: Channel) -> None:
        self.mode = mode
        self.argument = argument
        self.channel = channel
        self.ring: mmap.mmap | None = None
        self.ring_fd = -1

    def run(self) -> None:
        """Start as the mode says, then answer each order wrongly until the cache hangs up."""
        if self.mode == "exits":
            return
        if self.mode == "mute":
            while True:
                self.channel.recv()
        address = b"a" * (20_000 if self.mode == "huge_address" else 50)
        self.say(op="ready", address=address.hex(), lane="tcp\x1b[31m")
        while True:
            message, fds = self.channel.recv()
            getattr(self, "on_" + message["op"])(message, fds)

    def say(self, **message: Any) -> None:
        """Tell the cache something."""
        self.channel.send(message, [0] * 200 if self.mode == "descriptors" else [])

    def on_ring(self, message: dict[str, Any], fds: list[int]) -> None:
        """Map the ring; perhaps try to take it away from the cache."""
        self.ring_fd = fds[0]
        self.ring = mmap.mmap(fds[0], message["slots"] * message["slot_bytes"])
        if self.mode == "truncates":
            for size in (0, 1 << 40):
                try:
                    os.ftruncate(self.ring_fd, size)
                except OSError:
                    continue
                self.say(op="truncated")

    def on_connect(self, message: dict[str, Any], _fds: list[int]) -> None:
        """Say nothing, or that a source waits that nobody has asked."""
        if self.mode == "waits_unasked":
            self.say(op="waiting", peer=message["peer"] + 1_000)

    def on_disconnect(self, message: dict[str, Any], _fds: list[int]) -> None:
        """Agree, unless the mode never answers."""
        if self.mode != "silent":
            self.say(op="disconnected", peer=message["peer"])

    def on_fetch(self, message: dict[str, Any], _fds: list[int]) -> None:
        """Do what the mode is for."""
        name = message["fetch"]
        match self.mode:
            case "no_data" | "truncates" | "descriptors":
                self.say(op="fetched", fetch=name)
            case "unknown_fetch":
                self.say(op="fetched", fetch=name + 1_000_000)
            case "twice":
                self.say(op="fetched", fetch=name)
                self.say(op="fetched", fetch=name)
            case "unhashable":
                self.say(op="fetched", fetch=[name])
            case "no_reason":
                self.say(op="fetch_failed", fetch=name)
            case "failed_with_escapes":
                self.say(op="fetch_failed", fetch=name, reason="\x1b[2J" + "x" * 10_000)
            case "no_operation":
                self.say(hello=1)
            case "flood":
                while True:
                    self.say(op="peer_lost", peer=message["peer"])
            case "flood_of_waits":
                while True:
                    self.say(op="waiting", peer=message["peer"])
            case "flood_of_strangers":
                while True:
                    self.say(op="session_lost", session=5)
            case "garbage":
                while True:
                    os.write(self.channel.fileno(), b"\xff" * 1000)
            case "not_an_object":
                os.write(self.channel.fileno(), b"[" * 50_000)
            case "rewrites":
                self.rewrite(message)

    def rewrite(self, message: dict[str, Any]) -> None:
        """Deliver the right bytes, and go on writing into the slot for ever."""
        assert self.ring is not None
        ring, at, nbytes = self.ring, message["slot"] * PIECE_BYTES, message["nbytes"]
        with Path(self.argument).open("rb") as image:
            image.seek(message["offset"])
            ring[at : at + nbytes] = image.read(nbytes)

        def go_on() -> None:
            while True:
                for step in range(0, nbytes, 1 << 16):
                    ring[at + step] ^= 1

        threading.Thread(target=go_on, daemon=True).start()
        self.say(op="fetched", fetch=message["fetch"])

    def on_serve(self, message: dict[str, Any], fds: list[int]) -> None:
        """Try to get a way to write into the image that is to be served; tell what worked."""
        worked = []
        for fd in fds:
            ways = {
                "map": lambda fd=fd: mmap.mmap(fd, PIECE_BYTES, mmap.MAP_SHARED, mmap.PROT_WRITE),
                "write": lambda fd=fd: os.pwrite(fd, b"x", 0),
                "truncate": lambda fd=fd: os.ftruncate(fd, 0),
                "reopen": lambda fd=fd: os.write(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"x"),
                "remap": lambda fd=fd: mmap.mmap(
                    os.open(f"/proc/self/fd/{fd}", os.O_RDWR), PIECE_BYTES, mmap.MAP_SHARED, mmap.PROT_WRITE
                ),
            }
            for name, way in ways.items():
                try:
                    way()
                except OSError:
                    continue
                worked.append(name)
        reason = f"worked: {worked} on {len(fds)}"
        if self.mode != "silent":
            self.say(op="serve_failed", session=message["session"], reason=reason)


def main() -> None:
    """Run one worker; its end is the end of the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode")
    parser.add_argument("argument")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--interface", required=True)
    options = parser.parse_args()
    channel = Channel.from_fd(options.control_fd)
    try:
        if options.mode in ("honest", "liar", "short", "mortal", "sleeper"):
            real(options.mode, options.argument, channel, options.interface)
        else:
            Hostile(options.mode, options.argument, channel).run()
    finally:
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
