"""The demo's nodes: real ``pyrdma-agent serve`` processes, each with directories of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.errors import NodeError, UnreachableError
from agent.local.client import AgentClient, wait_until_ready
from agent.local.people_views import Wanted
from agent.local.views import GrantedView, ProgressView, PublishedView, RunEvent
from agent.paths import Paths
from federation.errors import FederationError
from pyrdma.errors import Error

START_DEADLINE_S: Final = 60.0
STOP_DEADLINE_S: Final = 15.0
SPARE_DEADLINE_S: Final = 180.0
_POLL_S: Final = 0.1
OnProgress = Callable[[ProgressView], None]
OnEvent = Callable[[RunEvent], None]


class DemoNode:
    """One node, in a session of its own: Ctrl-C reaches the demo alone, which then ends the node."""

    def __init__(self, name: str, folder: Path, memory_bytes: int) -> None:
        self.name = name
        self.paths = Paths(folder / name, folder / name / "run")
        self._log_path = folder / f"{name}.log"
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def directories(self) -> list[str]:
        """The options that name its directories to a command."""
        return ["--state-dir", str(self.paths.state_dir), "--run-dir", str(self.paths.run_dir)]

    @property
    def running(self) -> bool:
        """Whether its agent has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The agent's process, 0 before the start."""
        return self._process.pid if self._process is not None else 0

    def launch(self, *, spares: int = 1) -> None:
        """Start the process; it is not ready yet."""
        command = [sys.executable, "-m", "agent", "serve", "--name", self.name, *self.directories]
        command += ["--memory", str(self._memory_bytes), "--spares", str(spares)]
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Wait until the agent answers.

        Raises:
            NodeError: it ended, or did not come up in time; its last words are in the message.
        """
        try:
            await wait_until_ready(self.paths, START_DEADLINE_S)
        except UnreachableError as error:
            raise NodeError(f"the node {self.name} did not come up. {self._last_words()}") from error

    async def spare_ready(self) -> None:
        """Wait until a warm spare runner stands by: before that, a start would measure an import."""
        async with asyncio.timeout(SPARE_DEADLINE_S), AgentClient(self.paths) as client:
            while not (status := await client.status()).spares.ready:
                if status.spares.last_fault:
                    raise NodeError(f"the node {self.name} has no runner: {status.spares.last_fault}")
                await asyncio.sleep(_POLL_S)

    async def memory_ready(self) -> None:
        """Wait until the donated memory has been touched once."""
        async with AgentClient(self.paths) as client:
            while (cache := (await client.status()).cache).faulted_bytes < cache.budget_bytes:
                await asyncio.sleep(_POLL_S)

    async def publish(self, folder: Path, name: str, on_progress: OnProgress) -> PublishedView:
        """Publish a model folder."""
        async with AgentClient(self.paths, change=True) as client:
            async for event in client.publish(folder, name):
                if isinstance(event, ProgressView):
                    on_progress(event)
                elif isinstance(event, PublishedView):
                    return event
        raise NodeError(f"the node {self.name} ended a publication without a word.")

    async def run(
        self,
        model: str,
        on_event: OnEvent,
        *,
        site: str = "",
        node: str = "",
        account: str = "",
        purpose: str = "",
    ) -> GrantedView:
        """Start a model, on this node or where it is told; progress goes to the callback."""
        async with AgentClient(self.paths, change=True) as client:
            async for event in client.run(Wanted(model, site, node, account, purpose)):
                if isinstance(event, GrantedView):
                    return event
                on_event(event)
        raise NodeError(f"the node {self.name} ended a start without a word.")

    async def stop_lease(self, lease_id: str) -> None:
        """End a lease."""
        async with AgentClient(self.paths, change=True) as client:
            await client.stop(lease_id)

    async def sees(self, *sites: str) -> None:
        """Wait until this node's gateway hears from other sites.

        Raises:
            NodeError: it does not in time.
        """
        async with AgentClient(self.paths, change=True) as client:
            for _ in range(int(START_DEADLINE_S / _POLL_S)):
                with contextlib.suppress(Error, FederationError):
                    ready = {one.name for one in (await client.refresh()).sites if one.state == "ready"}
                    if ready >= set(sites):
                        return
                await asyncio.sleep(_POLL_S)
        raise NodeError(f"{self.name} does not hear from {', '.join(sites)}. {self._last_words()}")

    async def has_node(self, name: str) -> None:
        """Wait until a node of this gateway's site has reported a device."""
        async with asyncio.timeout(START_DEADLINE_S), AgentClient(self.paths) as client:
            while not any(one.name == name and one.devices for one in (await client.federation()).nodes):
                await asyncio.sleep(_POLL_S)

    async def cache_pid(self) -> int:
        """Return the pid of the node's weight cache."""
        async with AgentClient(self.paths) as client:
            pid = (await client.status()).cache.pid
        if pid is None:
            raise NodeError(f"the node {self.name} has no weight cache at the moment.")
        return pid

    def kill(self) -> None:
        """End the whole node at once, without a word to anyone."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def terminate(self) -> None:
        """Ask the node to end."""
        if self._process is not None and self.running:
            self._process.terminate()

    def wait_ended(self) -> None:
        """Wait until it has ended, and end it the hard way if it will not."""
        if self._process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_DEADLINE_S)
        self.kill()

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self._log_path.read_text(errors="replace").splitlines()
            return " ".join(lines[-3:])
        return ""
