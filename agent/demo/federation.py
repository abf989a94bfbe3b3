"""The demo's institutions, made by the commands that people use: registry, admission, invites, joins."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from agent.demo.nodes import DemoNode
from agent.errors import NodeError
from agent.text import printable

COMMAND_DEADLINE_S: Final = 60.0
CONSORTIUM: Final = "demo"
Said = list[str]
"""The words of a command, without the program's name."""


class DemoFederation:
    """A consortium in a folder: its registry is a folder that every site of this machine reads.

    Args:
        folder: for everything.
        told: gets each command before it is run, for people.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.registry = folder / "registry"
        self._keys = folder / "keys"
        self.pin = ""
        self.commands: list[str] = []

    async def begin(self) -> None:
        """Make the registry."""
        keys = str(self._keys)
        said = await self.run(
            ["consortium", "init", str(self.registry), "--name", CONSORTIUM, "--keys", keys]
        )
        self.pin = said.strip()

    async def found(self, site: str, gateway: DemoNode) -> None:
        """Make a site with its gateway, and have the consortium admit it."""
        port, join_port = free_ports(2)
        request = self._folder / f"{site}.request.json"
        await self.run(
            [
                *("init", "--site", site, "--trust-domain", f"{site}.pyrdma.example"),
                *("--node", gateway.name, "--address", f"127.0.0.1:{port}"),
                *("--join-address", f"127.0.0.1:{join_port}"),
                *("--registry", str(self.registry), "--root-pin", self.pin, "--request", str(request)),
                *gateway.directories,
            ]
        )
        await self.run(
            [
                "consortium",
                "admit",
                str(request),
                "--registry",
                str(self.registry),
                "--keys",
                str(self._keys),
                "--yes",
            ]
        )

    async def join(self, gateway: DemoNode, node: DemoNode) -> None:
        """Have a node join the site of a running gateway."""
        (port,) = free_ports(1)
        invite = self._folder / f"{node.name}.invite"
        invite.touch(mode=0o600)
        invite.write_text(await self.run(["invite", "create", "--node", node.name, *gateway.directories]))
        await self.run(
            ["join", "--invite-file", str(invite), "--address", f"127.0.0.1:{port}", *node.directories]
        )

    async def publish_policy(self, file: Path) -> None:
        """Have the consortium's signers publish a policy."""
        await self.run(
            [
                *("consortium", "policy", "publish", str(file)),
                *("--registry", str(self.registry), "--keys", str(self._keys)),
            ]
        )

    async def run(self, words: Said) -> str:
        """Run a command that has to succeed; return what it printed."""
        self.commands.append("pyrdma-agent " + " ".join(words))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agent",
            *words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(COMMAND_DEADLINE_S):
                out, err = await process.communicate()
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise NodeError(f"pyrdma-agent {words[0]} did not end.") from error
        if process.returncode != 0:
            why = printable(err.decode(errors="replace").strip(), 600)
            raise NodeError(f"pyrdma-agent {' '.join(words[:2])} failed: {why}")
        return out.decode()


def shortened(command: str, folder: Path) -> str:
    """Return a command with the demo's folder left out of its paths, and what every command has left away."""
    words = command.split(" ")
    kept = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("--state-dir", "--run-dir"):
            skip = True
        else:
            pin = len(word) == 64 and word.isalnum()
            kept.append(f"{word[:8]}..." if pin else word.removeprefix(f"{folder}/"))
    return " ".join(kept)


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody uses at the moment."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
