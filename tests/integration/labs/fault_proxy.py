"""A TCP proxy with faults: what the network between two programs does to them, on demand.

As a thread::

    with FaultProxy("127.0.0.1", port) as proxy:
        ... connect to proxy.host, proxy.port ...
        proxy.delay(forward_s=0.1)

As a process, ``python fault_proxy.py TARGET-HOST:PORT --listen HOST:PORT``: it writes ``listening HOST:PORT``
and then, for each line that it reads (``delay 0.1 0``, ``cut forward``, ``heal``, ``reset``), an ``ok`` or
what was wrong; it ends with its input. Forward is from whoever dials to the target, backward the other way.

A cut is a black hole: bytes, ends and resets stay in the proxy until it is healed, as a network sends again
what was lost. A delay holds each byte that long and does not slow a stream down (up to 16 MiB on their way).
What the system's TCP says is not delayed: a dial succeeds at once, and that much is taken from a sender.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

Direction = Literal["forward", "backward"]
READ_BYTES = 64 << 10
READS_ON_THEIR_WAY = 256
THREAD_S = 10.0
_Held = asyncio.Queue[tuple[float, bytes | OSError]]


@dataclass
class _Way:
    """One direction, of all connections."""

    delay_s: float = 0.0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()


class FaultProxy:
    """A proxy to one target, in a thread of its own, from ``with`` to its end."""

    def __init__(self, target_host: str, target_port: int, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._target = (target_host, target_port)
        self._listener = socket.create_server((host, port))
        self._listener.setblocking(False)
        self.host, self.port = self._listener.getsockname()
        self._ways: dict[str, _Way] = {"forward": _Way(), "backward": _Way()}
        self._loop = asyncio.new_event_loop()
        self._connections: dict[asyncio.Task[None], list[socket.socket]] = {}
        self._thread = threading.Thread(target=self._run, name="fault-proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(lambda: None)  # it runs
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._accepting.cancel)
        self._thread.join(THREAD_S)
        assert not self._thread.is_alive()

    def delay(self, *, forward_s: float = 0.0, backward_s: float = 0.0) -> None:
        """Hold from now on what goes either way for so long."""

        def change() -> None:
            self._ways["forward"].delay_s = forward_s
            self._ways["backward"].delay_s = backward_s

        self._do(change)

    def cut(self, *directions: Direction) -> None:
        """Let nothing through in these directions, or in both when none is named."""

        def change() -> None:
            for name in directions or self._ways:
                self._ways[name].open.clear()

        self._do(change)

    def heal(self) -> None:
        """Let everything through again, what was held too."""

        def change() -> None:
            for way in self._ways.values():
                way.open.set()

        self._do(change)

    def reset(self) -> None:
        """Reset every connection that stands, on both sides, through a cut as well."""
        self._do(lambda: [task.cancel() for task in self._connections])

    @property
    def connections(self) -> int:
        """How many connections stand."""
        return len(self._connections)

    def _do(self, change: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(THREAD_S)

    def _run(self) -> None:
        self._accepting = self._loop.create_task(self._accept())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._accepting)
        self._loop.close()

    async def _accept(self) -> None:
        try:
            while True:
                caller, _ = await self._loop.sock_accept(self._listener)
                task = self._loop.create_task(self._carry(caller))
                self._connections[task] = [caller]
                task.add_done_callback(self._end)
        finally:
            self._listener.close()
            for task in list(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await asyncio.sleep(0)  # the callbacks that close what they held

    def _end(self, task: asyncio.Task[None]) -> None:
        broken = task.cancelled() or task.exception() is not None
        for end in self._connections.pop(task):
            if broken:  # linger of 0 s: the close is a reset
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()

    async def _carry(self, caller: socket.socket) -> None:
        await self._ways["forward"].open.wait()
        target = socket.socket()
        task = asyncio.current_task()
        assert task is not None
        self._connections[task].append(target)
        for end in (caller, target):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self._loop.sock_connect(target, self._target)
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(self._pump(caller, target, self._ways["forward"], self._ways["backward"]))
            pumps.create_task(self._pump(target, caller, self._ways["backward"], self._ways["forward"]))

    async def _pump(self, source: socket.socket, sink: socket.socket, way: _Way, back: _Way) -> None:
        held: _Held = asyncio.Queue(READS_ON_THEIR_WAY)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._take_in(source, held, way))
            both.create_task(self._let_out(sink, held, way, back))

    async def _take_in(self, source: socket.socket, held: _Held, way: _Way) -> None:
        taken: bytes | OSError = b"-"
        while taken and not isinstance(taken, OSError):
            try:
                taken = await self._loop.sock_recv(source, READ_BYTES)
            except OSError as error:
                taken = error
            await held.put((self._loop.time() + way.delay_s, taken))

    async def _let_out(self, sink: socket.socket, held: _Held, way: _Way, back: _Way) -> None:
        taken: bytes | OSError = b"-"
        while taken:
            due_s, taken = await held.get()
            await asyncio.sleep(due_s - self._loop.time())
            await way.open.wait()
            if isinstance(taken, OSError):
                raise taken  # ends both directions: a reset
            try:
                await self._loop.sock_sendall(sink, taken)
                if not taken:
                    sink.shutdown(socket.SHUT_WR)
            except OSError:
                await back.open.wait()  # the news travels back
                raise


def _obey(proxy: FaultProxy, commands: Iterator[str]) -> None:
    for line in commands:
        match line.split():
            case ["delay", forward_s, backward_s]:
                proxy.delay(forward_s=float(forward_s), backward_s=float(backward_s))
            case ["cut", *directions] if set(directions) <= {"forward", "backward"}:
                proxy.cut(*directions)  # type: ignore[arg-type]
            case ["heal"]:
                proxy.heal()
            case ["reset"]:
                proxy.reset()
            case _:
                print(f"not understood: {line.strip()}", flush=True)
                continue
        print("ok", flush=True)


def main() -> None:
    """Run a proxy as a process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--listen", default="127.0.0.1:0")
    arguments = parser.parse_args()
    (host, port), (target, target_port) = (text.split(":") for text in (arguments.listen, arguments.target))
    with FaultProxy(target, int(target_port), host=host, port=int(port)) as proxy:
        print(f"listening {proxy.host}:{proxy.port}", flush=True)
        _obey(proxy, iter(sys.stdin.readline, ""))


if __name__ == "__main__":
    main()
