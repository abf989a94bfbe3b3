"""One node of a site as a real process with stand-ins for runners, driven by calls and by commands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from agent.errors import UnreachableError
from agent.local.client import AgentClient, wait_until_ready
from agent.local.federation_views import FederationView
from agent.local.people_views import Wanted
from agent.local.views import GrantedView, LeaseView, PublishedView, RunEvent
from agent.paths import Paths

T = TypeVar("T")
DEADLINE_S = 60.0


def until(condition: Callable[[], T | None], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Wait for a condition with a deadline; return its first true value."""
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {deadline_s:.0f} s: {what}"
        time.sleep(0.05)
    return value


class SiteNode:
    """One node of a site: its directories, and its agent's process while it runs."""

    def __init__(self, name: str, site: str, folder: Path, inside: Sequence[str]) -> None:
        self.name = name
        self.site = site
        self.state = folder / name
        self.paths = Paths(self.state, self.state / "run")
        self.log = folder / f"{name}.log"
        self.inside = list(inside)
        self.port = 0
        self.join_port = 0
        self.host = "127.0.0.1"
        self.process: subprocess.Popen[bytes] | None = None
        self._family: dict[int, psutil.Process] = {}

    @property
    def directories(self) -> list[str]:
        return ["--state-dir", str(self.state), "--run-dir", str(self.paths.run_dir)]

    def launch(self, *options: str) -> None:
        """Start its agent, and wait until it answers."""
        script = [sys.executable, str(Path(__file__).with_name("serve_node.py")), "--state", str(self.state)]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*self.inside, *script, *options], stdout=out, stderr=out, start_new_session=True
            )
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(UnreachableError):
                asyncio.run(wait_until_ready(self.paths, 0.5))
                return
            running = self.process.poll() is None and time.monotonic() < deadline_s
            assert running, f"{self.name} does not run: {self.log.read_text()}"

    def kill(self) -> None:
        """End its agent and all its children at once."""
        assert self.process is not None
        self._remember()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for child in self._family.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        until(lambda: not self.left(), f"children of {self.name} end")

    def end(self) -> int:
        """End its agent in order; return the exit code."""
        assert self.process is not None
        self._remember()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def left(self) -> list[psutil.Process]:
        """Return its processes that still run."""
        return [one for one in self._family.values() if one.is_running() and one.status() != "zombie"]

    def call(self, work: Callable[[AgentClient], Awaitable[T]], *, change: bool = True) -> T:
        """Run one call on its agent."""

        async def run() -> T:
            async with AgentClient(self.paths, change=change) as client:
                return await work(client)

        result = asyncio.run(run())
        self._remember()
        return result

    def federation(self) -> FederationView:
        return self.call(lambda client: client.federation())

    def leases(self, *, ended: bool = False) -> tuple[LeaseView, ...]:
        return self.call(lambda client: client.leases(include_ended=ended))

    def lease(self, lease_id: str) -> LeaseView:
        return next(one for one in self.leases(ended=True) if one.id == lease_id)

    def pulls(self, image_id: str) -> list[dict[str, int]]:
        """Return how many bytes each source gave in each pull of an image that has ended here."""
        views = self.call(lambda client: client.transfers())
        mine = [one for one in views if one.kind == "pull" and one.image_id == image_id]
        return [{source.name: source.bytes for source in one.progress.sources} for one in mine]

    def publish(self, folder: Path, name: str) -> PublishedView:
        async def work(client: AgentClient) -> PublishedView:
            events = [event async for event in client.publish(folder, name)]
            assert isinstance(events[-1], PublishedView)
            return events[-1]

        return self.call(work)

    def run(self, model: str, *, site: str = "", node: str = "") -> GrantedView:
        return self.run_events(model, site=site, node=node)[1]

    def run_events(self, model: str, *, site: str = "", node: str = "") -> tuple[list[RunEvent], GrantedView]:
        async def work(client: AgentClient) -> tuple[list[RunEvent], GrantedView]:
            events = [event async for event in client.run(Wanted(model, site, node), timeout_s=DEADLINE_S)]
            assert isinstance(events[-1], GrantedView)
            return events, events[-1]

        return self.call(work)

    def stop(self, lease_id: str) -> LeaseView:
        return self.call(lambda client: client.stop(lease_id))

    def cli(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line on this node's directories; what follows ``--`` stays last."""
        at = words.index("--") if "--" in words else len(words)
        command = [*self.inside, sys.executable, "-m", "agent", *words[:at], *self.directories, *words[at:]]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=DEADLINE_S, input=stdin
        )

    @contextlib.contextmanager
    def cli_started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Begin a command on this node's directories; what still runs in the end is killed."""
        command = [*self.inside, sys.executable, "-m", "agent", *words, *self.directories]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as started:
            try:
                yield started
            finally:
                started.kill()

    def wait_ended(self, lease_id: str, deadline_s: float = DEADLINE_S) -> LeaseView:
        """Wait until a lease of this node's books has ended; return it."""
        return until(
            lambda: next((one for one in [self.lease(lease_id)] if one.state == "ended"), None),
            f"lease {lease_id} ends at {self.name}",
            deadline_s,
        )

    def device_states(self) -> dict[str, str]:
        """Return the state of each node's device, as this gateway has it."""
        return {node.name: device.state for node in self.federation().nodes for device in node.devices}

    def _remember(self) -> None:
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self._family[child.pid] = child
