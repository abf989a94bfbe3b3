"""``pyrdma-agent serve``."""

from __future__ import annotations

import click

from agent.cli.options import Paths, paths_options
from agent.limits import (
    GRACE_S,
    LEASE_TTL_S,
    MAX_CPU_DEVICES,
    MAX_GRACE_S,
    MAX_LEASE_TTL_S,
    MAX_SPARES,
    MIN_LEASE_TTL_S,
    QUIET_S,
)


@click.command(short_help="Run the agent of this node.")
@click.option("--name", help="This node's name for others.  [default: the host's name]")
@click.option("--memory", metavar="SIZE", help="Memory to donate, such as 8GiB.  [default: a quarter]")
@click.option(
    "--interface",
    "interfaces",
    multiple=True,
    metavar="NAME",
    default=("lo",),
    show_default=True,
    help="A protected network interface that UCX may listen on; whoever reaches it must be trusted.",
)
@click.option(
    "--peer", "peers", multiple=True, metavar="ADDRESS", help="Another agent: unix:PATH of its node.sock."
)
@click.option(
    "--spares",
    type=click.IntRange(0, MAX_SPARES),
    default=1,
    show_default=True,
    help="Warm runners kept ready; each holds some hundred MiB and saves seconds at a start.",
)
@click.option(
    "--devices",
    type=click.IntRange(0, MAX_CPU_DEVICES),
    default=0,
    show_default=True,
    help="Lend the processor with its memory as so many devices; 0: the GPUs, without any as one.",
)
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(0, MAX_GRACE_S),
    default=GRACE_S,
    show_default=True,
    metavar="SECONDS",
    help="Outside a site: what a model that runs here gets to finish when you take its device back.",
)
@click.option(
    "--quiet",
    "quiet_s",
    type=click.FloatRange(min=0),
    default=QUIET_S,
    show_default=True,
    metavar="SECONDS",
    help="A device that is lent only while idle is lent after so long without local use.",
)
@click.option("--donate/--no-donate", default=True, show_default=True, help="Lend memory and devices.")
@click.option(
    "--lease-ttl",
    "lease_ttl_s",
    type=click.FloatRange(MIN_LEASE_TTL_S, MAX_LEASE_TTL_S),
    default=LEASE_TTL_S,
    show_default=True,
    metavar="SECONDS",
    help="At a gateway: how long a lease lives without a word of its borrower.",
)
@click.option(
    "--mdns",
    multiple=True,
    metavar="INTERFACE",
    help="Announce this node, and look for its gateway, by multicast DNS on this interface.",
)
@click.option(
    "--visitors",
    default="",
    metavar="HOST:PORT",
    help="At a gateway: where laptops with a token reach it.  [default: it takes none]",
)
@click.option(
    "--page",
    default="",
    metavar="HOST:PORT",
    help="At a gateway: serve the page of its queue there, for anybody.  [default: there is none]",
)
@paths_options
@click.pass_context
def serve(
    context: click.Context,
    *,
    name: str | None,
    memory: str | None,
    interfaces: tuple[str, ...],
    peers: tuple[str, ...],
    spares: int,
    devices: int,
    grace_s: float,
    quiet_s: float,
    donate: bool,
    lease_ttl_s: float,
    mdns: tuple[str, ...],
    visitors: str,
    page: str,
    paths: Paths,
) -> None:
    """Run the agent of this node in the foreground until SIGTERM or Ctrl-C."""
    import asyncio
    import os
    import socket

    from agent.daemon.config import ServeConfig
    from agent.daemon.serve import serve as serve_node
    from agent.errors import RequestError
    from agent.launch import RunnerLauncher
    from agent.limits import MAX_PEERS
    from agent.logs import log_to
    from agent.resolve import check_name
    from agent.rpc.peer import PeerClient, check_peer_address
    from agent.text import parse_size
    from federation.identity.names import check_address
    from pyrdma.cache.client import CacheClient, CacheConfig

    if len(peers) > MAX_PEERS:
        raise RequestError(f"more than {MAX_PEERS} peers were given.")
    for address in peers:
        check_peer_address(address)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    config = ServeConfig(
        paths=paths,
        name=check_name(name or socket.gethostname()),
        spares=spares,
        donates=donate,
        lease_ttl_s=lease_ttl_s,
        mdns=mdns,
        devices=devices,
        grace_s=grace_s,
        quiet_s=quiet_s,
        visitors=check_address(visitors) if visitors else "",
        page=check_address(page) if page else "",
    )
    cache = CacheConfig(memory_bytes=parse_size(memory) if memory else total // 4, interfaces=interfaces)
    log_to(debug=bool(context.obj))

    async def main() -> None:
        await serve_node(
            config,
            start_cache=lambda: CacheClient.start(cache),
            launcher=RunnerLauncher(hidden=(paths.state_dir, paths.run_dir)),
            # Inside the loop: a channel belongs to the loop that made it.
            peers=[PeerClient(address) for address in dict.fromkeys(peers)],
        )

    asyncio.run(main())
