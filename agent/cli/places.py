"""A node's names and addresses where none are given, and the making of a site."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from pathlib import Path

from agent.daemon.lock import state_locked
from agent.errors import RequestError, StateError
from agent.paths import Paths
from agent.site.config import DEFAULT_PORT, SiteConfig
from agent.site.home import SiteHome
from agent.state import StateFile, forget_site
from federation.identity.names import check_address
from federation.limits import MAX_LABEL_CHARS


def make_site(paths: Paths, home: SiteHome, config: SiteConfig) -> bool:
    """Make this node the gateway of a new site; return False if it is that already.

    Raises:
        StateError: it is of another site or place, or its files cannot be written.
        SocketInUseError: an agent runs here.
    """
    if home.exists:
        present = home.load()
        if present == config:
            return False
        raise StateError(
            f"this node is {present.node} of {present.site} already, with other values than these.",
            fix="give the values of the first time, or leave that site first: pyrdma-agent leave",
        )
    with state_locked(paths):
        asyncio.run(empty_books(paths))
        home.create_gateway(config, now_s=time.time())
    return True


async def empty_books(paths: Paths) -> None:
    """Forget in the state file what belonged to a site that this node has left.

    Raises:
        StateError: the file cannot be used.
    """
    file = await StateFile.open(paths.database)
    try:
        await forget_site(file)
    finally:
        await file.close()


def label_of(host: str) -> str:
    """Return a host's name as a node's.

    Raises:
        RequestError: nothing of it can be one.
    """
    label = re.sub(r"[^a-z0-9]+", "-", host.partition(".")[0].lower())[:MAX_LABEL_CHARS].strip("-")
    if not label:
        raise RequestError(f"the host's name {host!r} cannot be a node's.", fix="name it with --node")
    return label


def next_port(address: str) -> str:
    """Return the address with the port after its own. Raises FederationInputError."""
    host, _, port = check_address(address).rpartition(":")
    return check_address(f"{host}:{int(port) + 1}")


def same_host(listen: str, address: str) -> str:
    """Return the host of the one with the port of the other."""
    return f"{listen.rpartition(':')[0]}:{address.rpartition(':')[2]}"


def place_of_registry(text: str) -> str:
    """Return a registry's place as it can be found from any directory."""
    return text if "://" in text else str(Path(text).absolute())


def own_address(other: str) -> str:
    """Return this machine's address on its way to another, with the usual port.

    Raises:
        RequestError: there is no way.
    """
    host, _, port = other.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
        family, kind, number, _, target = found[0]
        with socket.socket(family, kind, number) as probe:
            probe.connect(target)  # sends nothing: it asks for the route
            mine = str(probe.getsockname()[0]).partition("%")[0]
    except OSError as error:
        raise RequestError(
            f"there is no way from here to {other}: {error.strerror}.", fix="give this node's --address"
        ) from error
    return f"[{mine}]:{DEFAULT_PORT}" if ":" in mine else f"{mine}:{DEFAULT_PORT}"
