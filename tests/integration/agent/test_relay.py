"""The relay between a loopback port and a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.daemon.pipes import StreamPipe
from agent.daemon.relay import HOST, Relay
from agent.limits import MAX_RELAY_CONNECTIONS, RELAY_BUFFER_BYTES

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def with_relay(path: Path, serve: Serve, work: Callable[[Relay], Awaitable[None]]) -> None:
    """Serve a Unix socket, relay to it, and let a client work."""

    async def run() -> None:
        async with asyncio.timeout(60):
            server = await asyncio.start_unix_server(serve, str(path / "s"))
            relay = await Relay.open(lambda: StreamPipe.to(path / "s"))
            try:
                await work(relay)
            finally:
                await relay.close()
                server.close()

    asyncio.run(run())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write(b"|end")
    writer.close()


def test_bytes_pass_both_ways_and_each_half_ends_by_itself(tmp_path: Path) -> None:
    """What was under way when a half ended still arrives."""

    async def work(relay: Relay) -> None:
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        data = bytes(range(256)) * (4 << 10)
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data + b"|end"
        writer.close()

    with_relay(tmp_path, echo, work)


def test_a_server_that_streams_is_not_held_back_until_its_end(tmp_path: Path) -> None:
    """A token is passed on when it comes."""

    async def tick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(3):
            writer.write(b"%d" % number)
            await reader.readexactly(1)
        writer.close()

    async def work(relay: Relay) -> None:
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        for number in range(3):
            assert await reader.readexactly(1) == b"%d" % number
            writer.write(b".")
        assert await reader.read() == b""
        writer.close()

    with_relay(tmp_path, tick, work)


def test_a_reader_that_sleeps_stops_the_writer(tmp_path: Path) -> None:
    """The relay holds a few buffers, not everything that a fast side sends."""
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(bytes(RELAY_BUFFER_BYTES))
            await writer.drain()
            sent += RELAY_BUFFER_BYTES

    async def work(relay: Relay) -> None:
        _, writer = await asyncio.open_connection(HOST, relay.port, limit=1024)
        before = -1
        while before != sent:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.3)
        assert 0 < sent < 64 << 20
        writer.close()

    with_relay(tmp_path, flood, work)


def test_what_waits_in_the_relay_when_a_server_ends_still_arrives(tmp_path: Path) -> None:
    """The end of an answer is not lost on a slow reader."""
    ended = asyncio.Event()
    sent = 0

    async def flood_and_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.transport.set_write_buffer_limits(high=0)
        with contextlib.suppress(TimeoutError):
            while True:
                writer.write(bytes(4096))
                sent += 4096
                async with asyncio.timeout(0.5):  # every buffer on the way is full
                    await writer.drain()
        writer.close()
        ended.set()

    async def work(relay: Relay) -> None:
        loop = asyncio.get_running_loop()
        with socket.create_connection((HOST, relay.port)) as slow:
            slow.setblocking(False)
            await ended.wait()
            got = 0
            while data := await loop.sock_recv(slow, 1 << 16):
                got += len(data)
        assert got == sent

    with_relay(tmp_path, flood_and_end, work)


def test_closing_ends_every_connection_and_the_port(tmp_path: Path) -> None:
    """A lease that ended answers nobody."""

    async def work(relay: Relay) -> None:
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        await relay.close()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.transport.abort()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, relay.port)

    with_relay(tmp_path, echo, work)


def test_a_runner_that_is_gone_is_said_in_http(tmp_path: Path) -> None:
    """Neither a hang nor an empty answer: status 503, and a sentence that an OpenAI client shows."""

    async def run() -> None:
        relay = await Relay.open(lambda: StreamPipe.to(tmp_path / "nothing"))
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
        writer.write_eof()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert f"Content-Length: {len(body)}".encode() in head
        assert "could not be reached" in json.loads(body)["error"]["message"]
        writer.close()
        await writer.wait_closed()
        await relay.close()

    asyncio.run(run())


def test_a_runner_that_dies_in_its_answer_breaks_it_off(tmp_path: Path) -> None:
    """What has begun is not followed by an apology that would look like a part of it."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half")
        await writer.drain()
        await reader.readexactly(1)
        writer.transport.abort()

    async def work(relay: Relay) -> None:
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        assert await reader.readexactly(4) == b"half"
        writer.write(b"x" * 1000)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.transport.abort()

    with_relay(tmp_path, half, work)


def test_connections_past_the_limit_are_closed(tmp_path: Path) -> None:
    """One local user cannot take every descriptor of the agent."""

    async def work(relay: Relay) -> None:
        held = []
        for _ in range(MAX_RELAY_CONNECTIONS):
            reader, writer = await asyncio.open_connection(HOST, relay.port)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            held.append(writer)
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        assert await reader.read() == b""
        for one in [*held, writer]:
            one.transport.abort()

    with_relay(tmp_path, echo, work)
