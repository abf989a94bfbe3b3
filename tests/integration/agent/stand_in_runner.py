"""A runner's protocol without an engine: what arrives on the socket is sent back.

The lease's model decides how it behaves: ``refuses`` fails the assignment, ``stubborn`` ignores SIGTERM and
every notice, ``slow`` needs half a minute to serve. After a notice it sends ``|drains`` to new connections,
and ends with the last one that was open, unless the notice is withdrawn before. A connection that sends
``die`` kills the process, ``key`` asks for the lease's key, ``env`` for the environment's names.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import time

from pyrdma.attach import receive_attachment
from pyrdma.errors import ChannelError
from pyrdma.wire import Channel


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int, required=True)
    channel = Channel.from_fd(parser.parse_args().control_fd)
    channel.send({"op": "ready", "phases": {"import_s": 0.5, "warm_s": 0.25}})
    try:
        message, fds = channel.recv()
    except ChannelError:
        return
    attachment = receive_attachment(channel)
    model = message["model"]
    channel.send({"op": "phase", "name": "map", "seconds": 0.001})
    if model == "refuses":
        channel.send({"op": "failed", "code": "binding", "message": "It does not fit.", "fix": "none"})
        return
    if model == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if model == "slow":
        time.sleep(30)
    channel.send({"op": "serving", "phases": {"map_s": 0.001, "ready_s": 0.002}})
    asyncio.run(_serve(channel, socket.socket(fileno=fds[0]), message["api_key"], deaf=model == "stubborn"))
    del attachment


async def _serve(channel: Channel, listener: socket.socket, key: str, *, deaf: bool) -> None:
    connections: set[object] = set()
    closed = asyncio.Event()
    draining = False

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if draining:
            writer.write(b"|drains")
            writer.close()
            return
        connections.add(writer)
        try:
            await echo(reader, writer)
        finally:
            connections.discard(writer)
            closed.set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if data == b"die":
                os.kill(os.getpid(), signal.SIGKILL)
            if data == b"key":
                data = key.encode()
            if data == b"env":
                data = " ".join(os.environ).encode()
            writer.write(data)
            await writer.drain()
        writer.write(b"|end")
        writer.close()

    await asyncio.start_unix_server(answer, sock=listener)
    said = asyncio.create_task(channel.arecv())
    while connections or not draining:
        closed.clear()
        waiting = asyncio.create_task(closed.wait())
        await asyncio.wait({said, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if said.done():
            try:
                message, _ = said.result()
            except ChannelError:
                return
            draining = message["op"] == "drain" and not deaf
            if message["op"] == "undrain":
                await channel.asend({"op": "serving"})
            said = asyncio.create_task(channel.arecv())
    said.cancel()


if __name__ == "__main__":
    main()
