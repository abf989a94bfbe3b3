"""Messages with descriptors: limits, hostile packets, many writers, ends of a channel."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrdma.errors import ChannelError
from pyrdma.limits import MAX_MESSAGE_BYTES, MAX_MESSAGE_FDS
from pyrdma.wire import Channel


def open_descriptors() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def ends():
    """A channel and the raw socket of its other end."""
    channel, theirs = Channel.pair()
    yield channel, theirs
    channel.close()
    theirs.close()


def test_a_message_arrives_with_its_descriptors(ends, tmp_path: Path) -> None:
    """What was sent is received, and the descriptors are usable ones of the receiver's own."""
    channel, theirs = ends
    (tmp_path / "file").write_text("content")
    with (tmp_path / "file").open() as file:
        Channel(theirs).send({"op": "here", "n": [1, 2]}, [file.fileno()])
    message, fds = channel.recv(5)
    assert message == {"op": "here", "n": [1, 2]}
    assert os.pread(fds[0], 100, 0) == b"content"
    assert not os.get_inheritable(fds[0])
    os.close(fds[0])


def test_the_largest_message_passes_and_one_byte_more_is_refused(ends) -> None:
    """A message of exactly the limit is carried; past it the sender is told, and the channel lives on."""
    channel, theirs = ends
    other = Channel(theirs)
    frame = len(b'{"x":""}')
    other.send({"x": "a" * (MAX_MESSAGE_BYTES - frame)})
    assert len(channel.recv(5)[0]["x"]) == MAX_MESSAGE_BYTES - frame
    with pytest.raises(ChannelError, match="past the limits"):
        other.send({"x": "a" * (MAX_MESSAGE_BYTES - frame + 1)})
    other.send({"op": "still"})
    assert channel.recv(5)[0] == {"op": "still"}


@pytest.mark.parametrize(
    "packet",
    [b"[]", b"1", b'"op"', b"{", b"\xff\xfe", b"[" * 50_000, b"1" * 50_000, b'{"a":' * 9_000, b"null"],
)
def test_a_packet_that_is_no_object_ends_the_channel(ends, packet: bytes) -> None:
    """Whatever is no JSON object is a ChannelError and nothing else, and its descriptors are closed."""
    channel, theirs = ends
    before = open_descriptors()
    socket.send_fds(theirs, [packet], [0, 1, 2])
    with pytest.raises(ChannelError, match="no message"):
        channel.recv(5)
    assert open_descriptors() == before


@pytest.mark.parametrize(("nbytes", "fds"), [(MAX_MESSAGE_BYTES + 1, 0), (10, MAX_MESSAGE_FDS + 1)])
def test_a_packet_past_the_limits_ends_the_channel_without_a_leak(ends, nbytes: int, fds: int) -> None:
    """More bytes or descriptors than agreed is a ChannelError; those that came are closed."""
    channel, theirs = ends
    before = open_descriptors()
    socket.send_fds(theirs, [b'{"x":"' + b"a" * (nbytes - 8) + b'"}'], [0] * fds)
    with pytest.raises(ChannelError, match="past the limits"):
        channel.recv(5)
    assert open_descriptors() == before


@given(st.binary(max_size=200))
def test_no_packet_gives_anything_but_a_message_or_a_channel_error(packet: bytes) -> None:
    """Fuzz: random bytes never raise another class."""
    channel, theirs = Channel.pair()
    with theirs:
        theirs.send(packet)
        try:
            message, _ = channel.recv(5)
            assert isinstance(message, dict)
        except ChannelError:
            pass
    channel.close()


def test_the_other_ends_death_is_a_channel_error(ends) -> None:
    """Reading and writing after the other end is gone each give a sentence."""
    channel, theirs = ends
    theirs.close()
    with pytest.raises(ChannelError, match="closed its channel"):
        channel.recv(5)
    with pytest.raises(ChannelError, match="closed its channel"):
        channel.send({"op": "x"})


def test_nothing_within_the_timeout_is_a_timeout(ends) -> None:
    """A silent other end is a TimeoutError, not an error of the channel."""
    with pytest.raises(TimeoutError):
        ends[0].recv(0.01)


def test_a_closed_channel_says_so() -> None:
    """Each use of a channel that was closed here is a ChannelError, in both styles."""

    async def use(channel: Channel) -> None:
        with pytest.raises(ChannelError):
            await channel.asend({})
        with pytest.raises(ChannelError):
            await channel.arecv()

    channel, theirs = Channel.pair()
    channel.close()
    with theirs:
        with pytest.raises(ChannelError):
            channel.send({})
        with pytest.raises(ChannelError):
            channel.recv(1)
        asyncio.run(use(channel))


def test_many_writers_that_wait_for_room_all_get_through(ends) -> None:
    """A slow reader makes writers wait; each of them is woken, none is forgotten, order is kept."""
    channel, theirs = ends
    other = Channel(theirs)

    async def scenario() -> list[int]:
        writers = [asyncio.create_task(other.asend({"n": n, "pad": "x" * 20_000})) for n in range(200)]
        await asyncio.sleep(0)
        assert not all(writer.done() for writer in writers)
        got = [(await asyncio.wait_for(channel.arecv(), 5))[0]["n"] for _ in range(200)]
        await asyncio.wait_for(asyncio.gather(*writers), 5)
        return got

    assert asyncio.run(scenario()) == list(range(200))


def test_closing_ends_a_wait_and_frees_the_descriptors_number(ends) -> None:
    """A reader that waits gets a ChannelError at once, and its number may be watched for another socket."""
    channel, _ = ends
    fresh: list[socket.socket] = []

    async def scenario() -> None:
        reading = asyncio.create_task(channel.arecv())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        number = channel.fileno()
        channel.close()
        while not any(one.fileno() == number for one in fresh):
            fresh.extend(socket.socketpair())
        new = next(one for one in fresh if one.fileno() == number)
        loop = asyncio.get_running_loop()
        seen = asyncio.Event()
        loop.add_writer(new, seen.set)
        with pytest.raises(ChannelError):
            await asyncio.wait_for(reading, 5)
        await asyncio.wait_for(seen.wait(), 5)
        loop.remove_writer(new)

    asyncio.run(scenario())
    for one in fresh:
        one.close()


def test_a_writer_that_never_pauses_does_not_starve_the_loop(ends) -> None:
    """While one end is flooded, other tasks of the reader's loop get their turns."""
    channel, theirs = ends
    turns = 0

    async def scenario() -> None:
        nonlocal turns
        for _ in range(100):
            theirs.send(b"{}")
        reading = asyncio.create_task(read())
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)

    async def read() -> None:
        for _ in range(100):
            await channel.arecv()

    asyncio.run(scenario())
    assert turns >= 100
