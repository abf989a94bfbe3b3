"""The agent's process: directories, node, sockets and ports, and an orderly end at SIGTERM or SIGINT.

SIGHUP has files read again, unless the terminal that the agent was started on is gone: that ends it. A second
signal to end it ends the children at once. Nothing that runs here is left behind: each child also ends by
itself when its channel to this process does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from agent.daemon.config import ServeConfig
from agent.daemon.host import Host
from agent.daemon.lending import NothingLent
from agent.daemon.lock import locked
from agent.daemon.node import Node
from agent.daemon.parts import Launcher, Lender, Peer, StartCache
from agent.daemon.rereading import Read, Rereading
from agent.daemon.serve_site import SitePart
from agent.error_table import ExitCode
from agent.errors import RequestError
from agent.limits import SERVER_GRACE_S
from agent.people.door import Door
from agent.people.machine import describe_user
from agent.people.passes import Passes
from agent.people.roster import Roster
from agent.rpc.node import LendingService
from agent.rpc.operator import Access, Operator
from agent.rpc.pyrdma_pb2_grpc import add_NodeServicer_to_server, add_OperatorServicer_to_server
from agent.rpc.server import bind, make_server
from agent.site.home import SiteHome
from agent.state import StateFile, Store
from agent.state.donations import Donations

_log = logging.getLogger(__name__)
_STDERR = 2


async def serve(
    config: ServeConfig, *, start_cache: StartCache, launcher: Launcher, peers: Sequence[Peer]
) -> None:
    """Run one agent until a signal ends it.

    Raises:
        SocketInUseError: another agent runs on these directories, or has the port.
        StateError, NodeError, LocalError: this node cannot run one.
        RequestError: a node that neither donates nor belongs to a site has nothing to do.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    rereading, on_terminal = Rereading(), os.isatty(_STDERR)

    def hang_up() -> None:
        gone = on_terminal and not os.isatty(_STDERR)
        stop.set() if gone else rereading.want()

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    with locked(config.paths):
        async with AsyncExitStack() as ending:
            rereading.start(await _start(config, start_cache, launcher, peers, ending))
            ending.push_async_callback(rereading.close)
            _log.info("agent %s is ready on %s", config.name, config.paths.run_dir)
            await stop.wait()
            _log.info("stopping; a second signal ends the children at once")
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, _leave_at_once)
    _log.info("stopped")


async def _start(
    config: ServeConfig,
    start_cache: StartCache,
    launcher: Launcher,
    peers: Sequence[Peer],
    ending: AsyncExitStack,
) -> Sequence[Read]:
    """Start the parts in order; ``ending`` undoes them in the reverse one. Return what reads files again."""
    home = SiteHome(config.paths.site_dir)
    if not config.donates and not home.exists:
        raise RequestError(
            "a node that donates nothing and belongs to no site has nothing to do.",
            fix="join a site first: pyrdma-agent join --invite-file FILE; or leave --no-donate away",
        )
    owner = describe_user(os.geteuid(), os.getegid(), os.geteuid())
    people = Roster(config.paths.people_file, home.load().site if home.exists else "", owner)
    people.load()
    file = await StateFile.open(config.paths.database)
    ending.push_async_callback(file.close)
    store = Store(file)
    borrowed = [one for one in await store.leases(include_ended=False) if one.donor]
    left = await store.end_open_leases("the agent ended without stopping it", time.time())
    if left:
        _log.warning("%d leases of an earlier agent are closed in the books", left)
    for peer in peers:
        ending.push_async_callback(peer.close)
    site = SitePart(config, home, file, store) if home.exists else None
    here, forwards = (site.here, site.is_gateway) if site is not None else ("", False)

    def lenders() -> tuple[Lender, ...]:
        return (*peers, *(site.lenders() if site is not None else ()))

    host = None
    if config.donates:
        host = await Host.start(
            config,
            store,
            donations=Donations(file),
            start_cache=start_cache,
            launcher=launcher,
            here=here,
            forwards=forwards,
            lenders=lenders,
        )
        ending.push_async_callback(_quietly, host)
    node = Node(config, file, store, host, peers=peers, people=people)
    if site is not None:
        await site.start(node, host, borrowed, ending)
    await _open_sockets(config, node, ending)
    return (people.reread,) if site is None else (people.reread, site.reread)


async def _open_sockets(config: ServeConfig, node: Node, ending: AsyncExitStack) -> None:
    paths = config.paths
    passes = Passes()
    door = Door(paths.door_socket, passes, partial(describe_user, owner_uid=os.geteuid()))
    await door.open()
    ending.push_async_callback(door.close)
    for path, access in (
        (paths.admin_socket, Access.ADMIN),
        (paths.user_socket, Access.USER),
        (paths.view_socket, Access.VIEW),
    ):
        server = make_server()
        add_OperatorServicer_to_server(Operator(node, access, passes), server)  # type: ignore[no-untyped-call]
        bind(server, path, 0o600 if access is Access.ADMIN else 0o660)
        await server.start()
        ending.push_async_callback(server.stop, SERVER_GRACE_S)
    server = make_server()
    lends = node.host.lending if node.host is not None else NothingLent(config.name)
    add_NodeServicer_to_server(LendingService(lends), server)  # type: ignore[no-untyped-call]
    bind(server, paths.node_socket, 0o660)
    await server.start()
    ending.push_async_callback(server.stop, SERVER_GRACE_S)
    if node.host is not None:
        node.host.images.open()
        ending.push_async_callback(node.host.images.close)


def _leave_at_once() -> None:
    # An orderly end is under way and waits for somebody; sys.exit() here would wait for the same.
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)
    os._exit(ExitCode.FAILED)


async def _quietly(host: Host) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await host.close()
