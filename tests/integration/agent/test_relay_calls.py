"""A relayed connection over real calls: from a port of loopback through one agent or two to a runner."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from waiting import until

from agent.daemon.lending import NothingLent
from agent.daemon.pipes import Pipe, StreamPipe
from agent.daemon.relay import HOST, Relay
from agent.errors import UnknownLeaseError
from agent.limits import RELAY_BUFFER_BYTES
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.identity import IdentityInterceptor
from agent.rpc.leasing import GatewayClient
from agent.rpc.network import Channels, bind_network, network_server
from agent.rpc.node import NodeService
from agent.rpc.pyrdma_pb2_grpc import NodeStub, add_NodeServicer_to_server
from agent.rpc.relaying import AskedPipe
from agent.site.keyring import Credentials
from agent.site.trust import Target
from federation.errors import NotAdmittedError
from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.binding import Binding
from federation.identity.keys import key_to_pem, new_key
from federation.identity.names import NodeIdentity

pytestmark = pytest.mark.asyncio

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
MIB = 1 << 20
DOMAIN = "uni-a.example"
CA = SiteAuthority.create(DOMAIN, now_s=time.time())


def credentials(node: str) -> Credentials:
    """Return what a node shows."""
    key, identity = new_key(), NodeIdentity(DOMAIN, node)
    pem = CA.issue(make_csr(key, identity), identity, now_s=time.time())
    return Credentials(key_to_pem(key), pem, CA.certificate_pem)


class Face:
    """The lease calls of a node with one lease, ``l1``, whose runner is behind ``connect``."""

    def __init__(self, connect: Callable[[], Awaitable[Pipe]]) -> None:
        self._connect = connect
        self.asked: list[str] = []

    async def connect(self, lease_id: str, who: NodeIdentity) -> Pipe:
        self.asked.append(who.node)
        if lease_id != "l1":
            raise UnknownLeaseError(f"no lease {lease_id} runs here.")
        return await self._connect()

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not asked for here")


@dataclass
class Bench:
    """A runner's socket, agents before it, and a port of loopback at the asker."""

    socket: Path
    ending: AsyncExitStack
    faces: list[Face] = field(default_factory=list)
    servers: list[aio.Server] = field(default_factory=list)
    channels: list[Channels] = field(default_factory=list)
    client: GatewayClient | None = None
    port: int = 0

    async def add_hop(self, connect: Callable[[], Awaitable[Pipe]]) -> GatewayClient:
        """Start an agent that connects a lease's calls to this; return what asks it."""
        binding = Binding({DOMAIN: [CA.certificate_pem]})
        shown = credentials("gw")
        server = network_server(IdentityInterceptor(lambda _, pem: binding.identify(pem, now_s=time.time())))
        face: Any = Face(connect)
        add_NodeServicer_to_server(NodeService(NothingLent("gw"), face), server)  # type: ignore[no-untyped-call]
        port = bind_network(server, "127.0.0.1:0", lambda: shown)
        await server.start()
        self.ending.push_async_callback(server.stop, None)
        asker = credentials("gpu01")
        channels = Channels(lambda: asker)
        self.ending.push_async_callback(channels.close)
        target = Target(f"127.0.0.1:{port}", NodeIdentity(DOMAIN, "gw"), CA.certificate_pem)
        self.faces.append(face)
        self.servers.append(server)
        self.channels.append(channels)
        return GatewayClient("gw", lambda: NodeStub(channels.to(target)))  # type: ignore[no-untyped-call]

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect as a program that uses the model does."""
        reader, writer = await asyncio.open_connection(HOST, self.port, limit=RELAY_BUFFER_BYTES)
        self.ending.callback(writer.transport.abort)
        return reader, writer


@asynccontextmanager
async def bench(folder: Path, serve: Serve, hops: int = 1) -> AsyncIterator[Bench]:
    """A runner, so many agents, and the asker's port."""
    async with asyncio.timeout(100), AsyncExitStack() as ending:
        made = Bench(folder / "s", ending)
        runner = await asyncio.start_unix_server(serve, str(made.socket), limit=RELAY_BUFFER_BYTES)
        ending.callback(runner.close)
        client = await made.add_hop(lambda: StreamPipe.to(made.socket))
        for _ in range(hops - 1):
            client = await made.add_hop(lambda before=client: before.connect("l1"))  # type: ignore[misc]
        made.client = client
        relay = await Relay.open(lambda: client.connect("l1"))
        ending.push_async_callback(relay.close)
        made.port = relay.port
        yield made


def worries(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged as a fault; gRPC's own goodbye to the loop of the test before is none."""
    found = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    return [one for one in found if "PollerCompletionQueue" not in one]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write(b"|end")
    writer.close()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize("hops", [1, 2])
async def test_bytes_pass_both_ways_at_once(tmp_path: Path, hops: int) -> None:
    """8 MiB each way, unchanged, and the end of each half; over one agent, and over two in a row."""
    data = random.Random(hops).randbytes(8 * MIB)
    async with bench(tmp_path, echo, hops) as made:
        reader, writer = await made.open()

        async def send() -> None:
            for at in range(0, len(data), 100_000):
                writer.write(data[at : at + 100_000])
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        got = await reader.read(-1)
        await sending
        assert (len(got), hashlib.sha256(got).digest()) == (
            len(data) + 4,
            hashlib.sha256(data + b"|end").digest(),
        )
        assert [face.asked for face in made.faces] == [["gpu01"]] * hops
        await hang_up(writer)


@pytest.mark.parametrize("hops", [1, 2])
async def test_a_runner_that_has_said_all_still_hears_all(tmp_path: Path, hops: int) -> None:
    """Its half ends first; what the asker sends after that, and its end, still arrive whole."""
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def listener(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"go on")
        writer.write_eof()
        heard.set_result(await reader.read(-1))
        writer.close()

    data = random.Random(3).randbytes(8 * MIB)
    async with bench(tmp_path, listener, hops) as made:
        reader, writer = await made.open()
        assert await reader.read(-1) == b"go on"
        writer.write(data)
        writer.write_eof()
        assert hashlib.sha256(await heard).digest() == hashlib.sha256(data).digest()
        await hang_up(writer)


async def test_an_asker_that_has_said_all_still_hears_all(tmp_path: Path) -> None:
    """A request that ends its half gets its answer, however long that takes to come."""

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read(-1)
        writer.write(question * MIB)
        writer.close()

    async with bench(tmp_path, late) as made:
        reader, writer = await made.open()
        writer.write(b"ping")
        writer.write_eof()
        assert await reader.read(-1) == b"ping" * MIB
        await hang_up(writer)


@pytest.mark.parametrize("hops", [1, 2])
async def test_a_stream_is_not_held_back(tmp_path: Path, hops: int) -> None:
    """A token is passed on when it comes: the next one comes only when this one was seen."""

    async def tick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(20):
            writer.write(b"%c" % (65 + number))
            await reader.readexactly(1)
        writer.close()

    async with bench(tmp_path, tick, hops) as made:
        reader, writer = await made.open()
        for number in range(20):
            assert await reader.readexactly(1) == b"%c" % (65 + number)
            writer.write(b".")
        assert await reader.read() == b""
        await hang_up(writer)


@pytest.mark.parametrize("hops", [1, 2])
async def test_a_client_that_does_not_read_stops_the_runner(tmp_path: Path, hops: int) -> None:
    """What waits on the way has an end, far below what a runner can produce."""
    sent, moved = 0, time.monotonic()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent, moved
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(RELAY_BUFFER_BYTES))
                await writer.drain()
                sent, moved = sent + RELAY_BUFFER_BYTES, time.monotonic()

    async with bench(tmp_path, flood, hops) as made:
        reader, writer = await made.open()
        await until(lambda: sent > 0 and time.monotonic() - moved > 1.0)
        assert sent < 24 * MIB * hops
        before = sent
        while sent < before + 4 * MIB:  # and goes on when it is read again
            assert await reader.read(1 << 16)
        writer.transport.abort()


@dataclass
class Held:
    """Connections that a runner was asked for and keeps open."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    ended: list[bytes | str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        writer.write(b"x")
        try:
            self.ended.append(await reader.read(-1))
        except OSError:
            self.ended.append("reset")
        writer.transport.abort()


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("by", ["the program", "the asker's agent", "the call"])
async def test_whoever_hangs_up_ends_the_runner_s_connection(tmp_path: Path, by: str, hops: int) -> None:
    """Nothing of a conversation stays at the runner when its other end has gone."""
    held = Held()
    async with bench(tmp_path, held.serve, hops) as made:
        assert made.client is not None
        if by == "the call":
            pipe = await made.client.connect("l1")
            assert await pipe.read() == b"x"
            pipe.abort()
        else:
            reader, writer = await made.open()
            assert await reader.readexactly(1) == b"x"
            if by == "the program":
                writer.transport.abort()
            else:
                await made.channels[-1].close()
                with contextlib.suppress(OSError):
                    assert await reader.read(-1) == b""
                writer.transport.abort()
        await until(lambda: held.ended)


@pytest.mark.parametrize("hops", [1, 2])
async def test_a_runner_that_dies_is_an_error_and_no_hang(
    tmp_path: Path, hops: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of an answer, while both sides have more to say; and no defect of ours."""
    held = Held()
    async with bench(tmp_path, held.serve, hops) as made:
        reader, writer = await made.open()
        assert await reader.readexactly(1) == b"x"
        assert made.client is not None
        pipe = await made.client.connect("l1")
        assert await pipe.read() == b"x"
        for one in held.writers:
            one.transport.abort()
        assert await breaks(pipe)
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"are you there?")
                await writer.drain()
                await asyncio.sleep(0)
        pipe.abort()
        writer.transport.abort()
    assert worries(caplog) == []


async def breaks(pipe: Pipe) -> bool:
    """Write until the pipe breaks."""
    try:
        while True:
            await pipe.write(b"are you there?")
            await asyncio.sleep(0)
    except OSError:
        return True


async def test_an_agent_that_dies_is_an_error_and_no_hang(tmp_path: Path) -> None:
    """Its server ends with calls under way; the program's connection is closed, and so is the runner's."""
    held = Held()
    async with bench(tmp_path, held.serve, 2) as made:
        reader, writer = await made.open()
        assert await reader.readexactly(1) == b"x"
        await made.servers[0].stop(None)  # the one beside the runner
        with contextlib.suppress(OSError):
            assert await reader.read(-1) == b""
        await until(lambda: held.ended)
        writer.transport.abort()


@pytest.mark.parametrize("hops", [1, 2])
async def test_a_lease_that_is_not_there_is_an_error(tmp_path: Path, hops: int) -> None:
    """The asker hears it as a connection that broke, with the reason; the program's connection is closed."""
    async with bench(tmp_path, echo, hops) as made:
        assert made.client is not None
        pipe = await made.client.connect("l2")
        with pytest.raises(ConnectionError, match=r"refused: no lease l2 runs here\."):
            await pipe.read()
        with pytest.raises(ConnectionError):
            await pipe.write(b"x")
        with pytest.raises(ConnectionError):
            await pipe.close()


@pytest.mark.parametrize("error", [NotAdmittedError("no such site."), UnknownLeaseError("no such lease.")])
@pytest.mark.parametrize("stays", [True, False])
async def test_a_connection_that_cannot_be_asked_for_tells_the_program_why(
    error: Exception, stays: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever package the error is of."""

    async def connect() -> Pipe:
        raise error

    relay = await Relay.open(connect)
    reader, writer = await asyncio.open_connection(HOST, relay.port)
    answer = await reader.read(-1)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert str(error).encode() in answer
    if stays:  # and the relay is closed while the program has not hung up
        await relay.close()
    writer.transport.abort()
    await relay.close()
    assert worries(caplog) == []


async def stub_of(made: Bench) -> Any:
    """Return what asks the first agent without our client."""
    assert made.client is not None
    return made.client._stub()


async def test_a_call_that_does_not_begin_with_a_lease_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No first message, no id in it, or bytes that are no message: the caller's fault, at once."""
    async with bench(tmp_path, echo) as made:
        stub = await stub_of(made)
        for first in (None, pb.RelayData(), pb.RelayData(lease_id="../l1"), pb.RelayData(data=b"x")):
            call = stub.Relay(timeout=20)
            if first is not None:
                await call.write(first)
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert made.faces[0].asked == []
    assert worries(caplog) == []


async def test_bytes_that_are_no_message_end_the_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of a conversation: both sides are let go, and no defect of ours is logged."""
    held = Held()
    async with bench(tmp_path, held.serve) as made:
        assert made.client is not None
        pipe = await made.client.connect("l1")
        assert await pipe.read() == b"x"
        channel = next(iter(made.channels[0]._open.values()))
        call = channel.stream_stream("/pyrdma.v1.Node/Relay")(timeout=20)
        await call.write(pb.RelayData(lease_id="l1").SerializeToString())
        assert pb.RelayData.FromString(await call.read()).data == b"x"
        await call.write(b"\xff\xff\xff")
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        await until(lambda: held.ended)
        pipe.abort()
    assert worries(caplog) == []


async def test_an_empty_message_is_not_the_end(tmp_path: Path) -> None:
    """A peer of another make may send one."""
    async with bench(tmp_path, echo) as made:
        call = (await stub_of(made)).Relay(timeout=20)
        await call.write(pb.RelayData(lease_id="l1"))
        await call.write(pb.RelayData())
        await call.write(pb.RelayData(data=b"after"))
        assert (await call.read()).data == b"after"
        await call.done_writing()
        assert (await call.read()).data == b"|end"
        assert (await call.read()).end
        assert await call.code() is grpc.StatusCode.OK


async def test_an_asker_keeps_what_was_under_way_when_both_halves_end(tmp_path: Path) -> None:
    """To close a pipe waits for the other side: to cancel at once would lose what it has not read yet."""
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    may_read = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        await may_read.wait()
        heard.set_result(len(await reader.read(-1)))
        writer.close()

    async with bench(tmp_path, slow) as made:
        assert made.client is not None
        pipe = await made.client.connect("l1")
        assert isinstance(pipe, AskedPipe)
        assert await pipe.read() == b""
        await pipe.write(bytes(48 << 10))
        await pipe.end()
        closing = asyncio.create_task(pipe.close())
        may_read.set()
        await closing
        assert await heard == 48 << 10


async def test_askers_that_vanish_at_any_moment_leave_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, count_descriptors: Callable[[], int]
) -> None:
    """Calls let go in the middle of writes both ways: no defect is logged, no connection stays."""
    open_now = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            while not reader.at_eof():
                writer.write(bytes(1 << 14))
                await writer.drain()
                await reader.read(1 << 14)
        except OSError:
            pass
        finally:
            open_now -= 1
            writer.transport.abort()

    async def visit(made: Bench, chance: random.Random) -> None:
        assert made.client is not None
        pipe = await made.client.connect("l1")
        for _ in range(chance.randrange(6)):
            await pipe.read()
            await pipe.write(bytes(chance.randrange(1, 1 << 16)))
        pipe.abort()

    async with bench(tmp_path, flood, 2) as made:
        await visit(made, random.Random(0))
        await until(lambda: open_now == 0)
        before = count_descriptors()
        for seed in range(10):
            await asyncio.gather(*(visit(made, random.Random(10 * seed + at)) for at in range(10)))
        await until(lambda: open_now == 0)
        await until(lambda: count_descriptors() <= before + 4)
    assert worries(caplog) == []


async def test_a_call_that_fails_with_the_first_answer_under_way_has_its_status(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A status that came with the head of the answer a second time is never sent: the asker would wait."""
    held = Held()
    async with bench(tmp_path, held.serve) as made:
        assert made.client is not None
        await (await made.client.connect("l1")).read()
        channel = next(iter(made.channels[0]._open.values()))

        async def ask() -> grpc.StatusCode:
            call = channel.stream_stream("/pyrdma.v1.Node/Relay")(timeout=10)
            await call.write(pb.RelayData(lease_id="l1").SerializeToString())
            with contextlib.suppress(asyncio.InvalidStateError):
                await call.write(b"\xff\xff\xff")
            with contextlib.suppress(aio.AioRpcError):
                while await call.read():  # the status comes behind what was said before it
                    pass
            return await call.code()

        for _ in range(10):
            assert set(await asyncio.gather(*(ask() for _ in range(30)))) == {grpc.StatusCode.UNAVAILABLE}
    assert worries(caplog) == []


async def test_what_a_runner_said_before_it_died_behind_full_buffers_arrives(tmp_path: Path) -> None:
    """A client that comes back to read gets what is still there, then the end, and no hang."""
    held: list[asyncio.StreamWriter] = []
    moved = time.monotonic()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal moved
        held.append(writer)
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(RELAY_BUFFER_BYTES))
                await writer.drain()
                moved = time.monotonic()

    async with bench(tmp_path, flood, 2) as made:
        assert made.client is not None
        pipe = await made.client.connect("l1")
        await until(lambda: held and time.monotonic() - moved > 0.5)
        held[0].transport.abort()
        got = 0
        with contextlib.suppress(OSError):
            while data := await pipe.read():
                got += len(data)
        assert got > 0
        assert await breaks(pipe)
