"""Institutions as real processes: registry, sites and joins by the real commands, runners by stand-ins."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from site_nodes import DEADLINE_S, SiteNode, until

from agent.local.views import GrantedView
from pyrdma.errors import Error

POLICY = """\
kind: consortium
version: 1
name: demo
effective_at: {effective_at}
accounts:
  north: {{weight: 1, open: true}}
  south: {{weight: 1, open: true}}
purposes:
  research: {{factor: 1, claimants: [any]}}
device_classes:
  cpu: 0.5
"""
"""A policy by which north and south share alike, for ``Federation.policy``; a test adds what it is about."""


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

    def remove(self, site: str) -> None:
        """Have the consortium remove a site, and sign its registry anew."""
        keys = ("--registry", str(self.registry), "--keys", str(self.keys))
        command("consortium", "remove", site, *keys, "--confirm", site)

    def sign(self, *options: str) -> None:
        """Have the consortium sign its registry anew."""
        command("consortium", "publish", "--registry", str(self.registry), "--keys", str(self.keys), *options)

    def policy(self, text: str, *gateways: SiteNode) -> None:
        """Sign a policy that counts as of now (``{effective_at}``), and wait until it counts at these."""
        begins = time.gmtime(int(time.time()) // 600 * 600)
        file = self.folder / "policy.yaml"
        file.write_text(text.format(effective_at=time.strftime("%Y-%m-%dT%H:%MZ", begins)))
        self.command(
            *("consortium", "policy", "publish", str(file)),
            *("--registry", str(self.registry), "--keys", str(self.keys)),
        )

        def in_force() -> bool:
            refresh(*gateways)
            return all(one.call(lambda client: client.queue()).consortium for one in gateways)

        until(in_force, "the policy counts")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command that needs no agent; it must succeed."""
        return command(*words)

    def try_command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command that needs no agent, and may fail."""
        return try_command(*words)

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
    done = try_command(*words)
    assert done.returncode == 0, done.stderr
    return done


def try_command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command that needs no agent, and may fail."""
    return subprocess.run(
        [sys.executable, "-m", "agent", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody uses at the moment."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports: list[int] = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def refresh(*gateways: SiteNode) -> None:
    """Have these gateways ask their neighbours and the registry now."""
    for one in gateways:
        one.call(lambda client: client.refresh())


def port_of(granted: GrantedView) -> int:
    """Return the port of loopback at which a lease answers its borrower."""
    return int(granted.endpoint.split(":")[2].split("/")[0])


def say(granted: GrantedView, data: bytes) -> bytes:
    """Send bytes through a lease's port; return what comes back until the other side ends."""
    with socket.create_connection(("127.0.0.1", port_of(granted)), timeout=DEADLINE_S) as connection:
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
