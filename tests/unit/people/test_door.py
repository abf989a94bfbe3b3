"""The door, over a real socket: what it says, and what it bears."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.errors import NotAllowedError, UnreachableError
from agent.limits import MAX_PASSES_PER_USER
from agent.local.door import DoorPass
from agent.people.door import Door
from agent.people.machine import describe_user
from agent.people.model import Who
from agent.people.passes import Passes

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Bench:
    """A door, and who comes to it."""

    def __init__(self, path: Path, describe: Callable[[int, int], Who]) -> None:
        self.path = path
        self.passes = Passes()
        self.door = Door(path, self.passes, describe)
        self.writers: list[asyncio.StreamWriter] = []

    async def come(self) -> tuple[str, Connection]:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        self.writers.append(writer)
        return (await reader.readline()).decode().strip(), (reader, writer)

    async def until_none(self) -> None:
        async with asyncio.timeout(5.0):
            while len(self.passes):
                await asyncio.sleep(0.001)


def at_the_door(
    tmp_path: Path,
    work: Callable[[Bench], Awaitable[None]],
    describe: Callable[[int, int], Who] = lambda uid, gid: Who(uid, "me", (gid,)),
) -> None:
    async def run() -> None:
        bench = Bench(tmp_path / "door.sock", describe)
        await bench.door.open()
        try:
            await work(bench)
        finally:
            await bench.door.close()
            for writer in bench.writers:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        assert not bench.path.exists()

    asyncio.run(run())


def test_whoever_comes_is_who_the_kernel_says(tmp_path: Path) -> None:
    """The pass that is given means this process's user."""

    async def work(bench: Bench) -> None:
        said, (_, writer) = await bench.come()
        word, text = said.split(" ")
        assert word == "pass"
        assert bench.passes.who(text, time.monotonic()) == Who(os.geteuid(), "me", (os.getegid(),))
        writer.close()

    at_the_door(tmp_path, work)


def test_a_pass_ends_when_its_owner_leaves_or_speaks(tmp_path: Path) -> None:
    """Nothing is to come over the connection but its end."""

    async def work(bench: Bench) -> None:
        for leave in (lambda writer: writer.close(), lambda writer: writer.write(b"hello\n")):
            said, (_, writer) = await bench.come()
            assert len(bench.passes) == 1
            leave(writer)
            await bench.until_none()
            with pytest.raises(NotAllowedError):
                bench.passes.who(said.split(" ")[1], time.monotonic())
            writer.close()

    at_the_door(tmp_path, work)


def test_one_user_gets_so_many_passes_and_a_sentence_after_that(tmp_path: Path) -> None:
    """The connection is closed then, and room comes back with those that leave."""

    async def work(bench: Bench) -> None:
        held = [(await bench.come())[1] for _ in range(MAX_PASSES_PER_USER)]
        said, (reader, _) = await bench.come()
        assert said.startswith("refused ")
        assert await reader.read() == b""
        for _, writer in held:
            writer.close()
        await bench.until_none()
        assert (await bench.come())[0].startswith("pass ")

    at_the_door(tmp_path, work)


def test_the_socket_is_open_to_owner_and_group_from_its_first_moment(tmp_path: Path) -> None:
    """Nobody else ever had a chance; an old socket of an agent that was killed is replaced."""
    (tmp_path / "door.sock").touch()

    async def work(bench: Bench) -> None:
        assert bench.path.stat().st_mode & 0o777 == 0o660

    at_the_door(tmp_path, work)


def test_a_command_holds_one_pass_and_gives_it_back(tmp_path: Path) -> None:
    """It is asked for once, and struck when the command ends; without a door the sentence says so."""

    async def work(bench: Bench) -> None:
        mine = DoorPass(bench.path)
        assert await mine.text() == await mine.text()
        assert len(bench.passes) == 1
        mine.close()
        await bench.until_none()
        with pytest.raises(UnreachableError):
            await DoorPass(tmp_path / "none.sock").text()

    at_the_door(tmp_path, work)


def test_a_defect_of_the_users_directory_ends_one_connection_and_not_the_door(tmp_path: Path) -> None:
    """A directory service that fails gives nobody a pass, and the next one is answered."""
    broken = [True]

    def describe(uid: int, gid: int) -> Who:
        if broken:
            broken.clear()
            raise OSError("the directory is down")
        return Who(uid, "")

    async def work(bench: Bench) -> None:
        assert (await bench.come())[0] == ""
        assert (await bench.come())[0].startswith("pass ")

    at_the_door(tmp_path, work, describe)


def test_this_machine_names_its_users_and_their_groups() -> None:
    """A user without a line has a number and the group of its process; root and the agent's user own it."""
    root = describe_user(0, 0, 1000)
    assert (root.uid, root.name, root.owner) == (0, "root", True)
    assert 0 in root.gids
    stranger = describe_user(4_000_000_000, 4_000_000_001, 1000)
    assert (stranger.name, stranger.gids, stranger.groups) == ("", (4_000_000_001,), ())
    assert not stranger.owner
    assert describe_user(1000, 1000, 1000).owner
    with contextlib.suppress(KeyError):
        assert describe_user(os.getuid(), os.getgid(), 12345).uid == os.getuid()
