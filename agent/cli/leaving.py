"""How ``leave`` is done, also where the site's files are damaged: it is the way out of that."""

from __future__ import annotations

import asyncio

from agent.cli.confirm import confirm_by_name
from agent.cli.output import talk
from agent.daemon.lock import state_locked
from agent.errors import Reported, RequestError, SocketInUseError, StateError
from agent.local.client import AgentClient
from agent.paths import Paths
from agent.rpc.leasing import GatewayClient
from agent.rpc.network import Channels
from agent.rpc.pyrdma_pb2_grpc import NodeStub
from agent.site.draft import forget_draft
from agent.site.home import SiteHome
from agent.site.keyring import Keyring
from agent.site.trust import Trust


def site_of(home: SiteHome) -> tuple[str, str]:
    """Return the names of the site and of this node: empty without one, ``site`` where it cannot be read."""
    if not home.exists:
        return "", ""
    try:
        config = home.load()
    except StateError:
        return "site", ""
    return config.site, config.node


def put_out(node: str, site: str, confirm: str | None, paths: Paths) -> str:
    """Have the running gateway put a node out; return its sentence.

    Raises:
        Error, FederationError: it was not confirmed, or the gateway does not.
    """
    if not site:
        raise RequestError("this node is of no site.", fix="run this on the site's gateway")
    confirm_by_name(f"{node} is put out of {site}.", site, confirm)

    async def ask() -> str:
        async with AgentClient(paths, change=True) as client:
            return await client.leave_site(node)

    return asyncio.run(ask())


def leave_here(home: SiteHome, site: str, confirm: str | None, paths: Paths) -> str:
    """Remove this node's part in its site; return a sentence.

    Raises:
        SocketInUseError: its agent runs.
        RequestError: it was not confirmed.
        StateError: the files cannot be removed.
    """
    if not site:
        return "This node is of no site; nothing was changed."
    try:
        with state_locked(paths):
            confirm_by_name(_loss(home), site, confirm)
            try:
                asyncio.run(_tell_gateway(home))
            except Reported as error:
                talk(f"The gateway was not told: {error.message}")
                talk("next, on the gateway: pyrdma-agent leave --node NAME, with this node's name")
            home.remove()
            forget_draft(paths.join_dir)
    except SocketInUseError as error:
        raise SocketInUseError(error.message, fix="stop that agent, then leave") from error
    return f"This node has left {site}."


def _loss(home: SiteHome) -> str:
    try:
        config = home.load()
    except StateError as error:
        return f"The site's files are removed; they cannot be used as they are: {error.message}"
    if config.role == "gateway":
        return (
            f"The CA of {config.site} and its key are removed: no node of it gets a certificate again, "
            "and the consortium would have to admit a new site."
        )
    return f"{config.node} leaves {config.site}: its key and certificate are removed."


async def _tell_gateway(home: SiteHome) -> None:
    config = home.load()
    if config.role == "gateway":
        return
    trust = Trust(config, home.authority_pem, lambda _: False)
    channels = Channels(Keyring(home, trust).current)
    try:
        channel = channels.to(trust.own_gateway())
        await GatewayClient(config.gateway_node, lambda: NodeStub(channel)).leave()  # type: ignore[no-untyped-call]
    finally:
        await channels.close()
