"""Nodes as real processes, and small models to publish on them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from agent.local.client import AgentClient, wait_until_ready
from agent.local.people_views import Wanted
from agent.local.views import GrantedView, PublishedView, StatusView
from agent.paths import Paths

T = TypeVar("T")
DEADLINE_S = 60.0


def until(condition: Callable[[], T | None], what: str) -> T:
    """Wait for a condition with a deadline; return its first true value."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.05)
    return value


@dataclass
class Process:
    """One agent, started by ``serve_stand_in`` or by the real command."""

    name: str
    state: Path
    process: subprocess.Popen[str]
    log: Path
    family: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def paths(self) -> Paths:
        return Paths(self.state, self.state / "run")

    @property
    def address(self) -> str:
        return f"unix:{self.paths.node_socket}"

    def call(self, work: Callable[[AgentClient], Awaitable[T]], *, change: bool = True) -> T:
        """Run one call on the agent."""

        async def run() -> T:
            async with AgentClient(self.paths, change=change) as client:
                return await work(client)

        result = asyncio.run(run())
        self.remember()
        return result

    def status(self) -> StatusView:
        return self.call(lambda client: client.status())

    def publish(self, folder: Path, name: str) -> PublishedView:
        async def work(client: AgentClient) -> PublishedView:
            events = [event async for event in client.publish(folder, name)]
            assert isinstance(events[-1], PublishedView)
            return events[-1]

        return self.call(work)

    def run(self, model: str) -> GrantedView:
        async def work(client: AgentClient) -> GrantedView:
            events = [event async for event in client.run(Wanted(model))]
            assert isinstance(events[-1], GrantedView)
            return events[-1]

        return self.call(work)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line against this agent."""
        command = [sys.executable, "-m", "agent", *arguments, "--run-dir", str(self.paths.run_dir)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)

    def remember(self) -> None:
        """Note every process below this one, so that what outlives it can be found."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self.family[child.pid] = child

    def left(self) -> list[psutil.Process]:
        """Return the processes of the family that still run."""
        return [one for one in self.family.values() if one.is_running() and one.status() != "zombie"]

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it; return its exit code."""
        self.remember()
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., object]:
    """Hand ``until`` to tests: with importlib mode they cannot import this file."""
    return until


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start agents by name; each is ended afterwards, and must leave no process behind."""
    started: list[Process] = []

    def begin(name: str, *options: str, wait: bool = True, command: list[str] | None = None) -> Process:
        state = tmp_path / name
        log = tmp_path / f"{name}.log"
        script = [sys.executable, str(Path(__file__).with_name("serve_stand_in.py")), "--state", str(state)]
        with log.open("a") as out:
            process = subprocess.Popen(
                [*(command or script), "--name", name, *options], stdout=out, stderr=out, text=True
            )
        node = Process(name, state, process, log)
        started.append(node)
        if wait:
            try:
                asyncio.run(wait_until_ready(node.paths, DEADLINE_S))
            except Exception as error:
                raise AssertionError(log.read_text()) from error
        return node

    yield begin
    for node in started:
        if node.process.poll() is None:
            assert node.end() == 0, node.log.read_text()
        until(lambda node=node: not node.left(), f"children of {node.name} end")


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a small model folder; other seeds give other weights."""

    def make(name: str, *, seed: int = 0, nbytes: int = 1 << 20, architecture: str = "Tiny") -> Path:
        folder = tmp_path / f"model-{name}"
        folder.mkdir()
        header = {"w": {"dtype": "U8", "shape": [nbytes], "data_offsets": [0, nbytes]}}
        text = json.dumps(header).encode()
        data = random.Random(seed).randbytes(nbytes)
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
        (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
        (folder / "README.md").write_text("not for the image")
        return folder

    return make
