"""Institutions as real processes: registry, sites and joins by the real commands, runners by stand-ins."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from agent.errors import UnreachableError
from agent.local.client import AgentClient, wait_until_ready
from agent.local.views import FederationView, GrantedView, LeaseView, PublishedView, RunEvent
from agent.paths import Paths
from pyrdma.errors import Error

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
            events = [event async for event in client.run(model, site=site, node=node, timeout_s=DEADLINE_S)]
            assert isinstance(events[-1], GrantedView)
            return events, events[-1]

        return self.call(work)

    def stop(self, lease_id: str) -> LeaseView:
        return self.call(lambda client: client.stop(lease_id))

    def cli(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line on this node's directories."""
        command = [*self.inside, sys.executable, "-m", "agent", *words, *self.directories]
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


class Federation:
    """A consortium in a folder, and the sites that a test founds in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = folder / "registry"
        self.keys = folder / "keys"
        self.source = str(self.registry)
        self.nodes: list[SiteNode] = []
        keys = str(self.keys)
        said = command("consortium", "init", str(self.registry), "--name", "demo", "--keys", keys)
        self.pin = said.stdout.strip()

    def node(self, name: str, site: str, *, host: str = "127.0.0.1", inside: Sequence[str] = ()) -> SiteNode:
        """Return a node that is of no site yet."""
        node = SiteNode(name, site, self.folder, inside)
        node.host = host
        if inside:  # a namespace of its own: every port is free
            node.port, node.join_port = 7443, 7444
        else:
            node.port, node.join_port = free_ports(2)
        self.nodes.append(node)
        return node

    def found(self, node: SiteNode, *options: str, admit: bool = True) -> SiteNode:
        """Make a node the gateway of its site, have the site admitted, and start it."""
        request = self.folder / f"{node.site}.request.json"
        made = node.cli(
            *(
                "init",
                "--site",
                node.site,
                "--trust-domain",
                f"{node.site}.pyrdma.example",
                "--node",
                node.name,
            ),
            *("--address", f"{node.host}:{node.port}", "--join-address", f"{node.host}:{node.join_port}"),
            *("--registry", self.source, "--root-pin", self.pin, "--request", str(request)),
        )
        assert made.returncode == 0, made.stderr
        if admit:
            self.admit(node)
        node.launch(*options)
        return node

    def admit(self, node: SiteNode) -> None:
        """Have the consortium admit a node's site."""
        request = str(self.folder / f"{node.site}.request.json")
        command(
            *("consortium", "admit", request, "--registry", str(self.registry)),
            *("--keys", str(self.keys), "--yes"),
        )

    def join(self, gateway: SiteNode, node: SiteNode, *options: str) -> SiteNode:
        """Have a node join a running gateway's site, and start it."""
        invite = gateway.cli("invite", "create", "--node", node.name)
        assert invite.returncode == 0, invite.stderr
        joined = node.cli(
            "join", "--invite-file", "-", "--address", f"{node.host}:{node.port}", stdin=invite.stdout
        )
        assert joined.returncode == 0, joined.stderr
        node.launch(*options)
        until(
            lambda: any(one.name == node.name and one.state == "ready" for one in gateway.federation().nodes),
            f"{gateway.name} hears of {node.name}",
        )
        return node

    def sign(self, *options: str) -> None:
        """Have the consortium sign its registry anew."""
        command("consortium", "publish", "--registry", self.source, "--keys", str(self.keys), *options)

    def acquaint(self, *gateways: SiteNode) -> None:
        """Wait until each of these gateways hears from all the others."""
        for gateway in gateways:
            others = {one.site for one in gateways if one is not gateway}

            def hears(gateway: SiteNode = gateway, others: set[str] = others) -> bool:
                with contextlib.suppress(Error):
                    gateway.call(lambda client: client.refresh())
                ready = {one.name for one in gateway.federation().sites if one.state == "ready"}
                return others <= ready

            until(hears, f"{gateway.name} hears from {', '.join(sorted(others))}")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command that needs no agent; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "agent", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    return done


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody uses at the moment."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports: list[int] = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def say(granted: GrantedView, data: bytes) -> bytes:
    """Send bytes through a lease's port; return what comes back until the other side ends."""
    port = int(granted.endpoint.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


@contextlib.contextmanager
def consortium_in(folder: Path) -> Iterator[Federation]:
    """Make a consortium without sites; what is started in it ends in order, and leaves nothing behind."""
    made = Federation(folder)
    try:
        yield made
        for node in made.nodes:
            if node.process is not None and node.process.poll() is None:
                assert node.end() == 0, node.log.read_text()
            until(lambda node=node: not node.left(), f"children of {node.name} end")
    finally:
        for node in made.nodes:
            if node.process is not None and node.process.poll() is None:
                node.kill()
