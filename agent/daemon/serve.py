"""The agent's process: directories, node, sockets, and an orderly end at SIGTERM or SIGINT.

A second signal ends the children at once. Nothing that runs here is left behind: each child also ends by
itself when its channel to this process does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from agent.daemon.config import ServeConfig
from agent.daemon.lock import locked
from agent.daemon.node import Node
from agent.daemon.parts import Launcher, Peer, StartCache
from agent.error_table import ExitCode
from agent.limits import SERVER_GRACE_S
from agent.rpc.node import NodeService
from agent.rpc.operator import Operator
from agent.rpc.pyrdma_pb2_grpc import add_NodeServicer_to_server, add_OperatorServicer_to_server
from agent.rpc.server import bind, make_server

_log = logging.getLogger(__name__)


async def serve(
    config: ServeConfig, *, start_cache: StartCache, launcher: Launcher, peers: Sequence[Peer]
) -> None:
    """Run one agent until a signal ends it.

    Raises:
        SocketInUseError: another agent runs on these directories.
        StateError, NodeError, LocalError: this node cannot run one.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with locked(config.paths):
        async with AsyncExitStack() as ending:
            node = await Node.start(config, start_cache=start_cache, launcher=launcher, peers=peers)
            ending.push_async_callback(_close, node)
            await _open_sockets(config, node, ending)
            _log.info("agent %s is ready on %s", config.name, config.paths.run_dir)
            await stop.wait()
            _log.info("stopping; a second signal ends the children at once")
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, _leave_at_once)
    _log.info("stopped")


async def _open_sockets(config: ServeConfig, node: Node, ending: AsyncExitStack) -> None:
    paths = config.paths
    operator = [(paths.admin_socket, 0o600, True), (paths.view_socket, 0o660, False)]
    for path, mode, may_change in operator:
        server = make_server()
        add_OperatorServicer_to_server(Operator(node, may_change=may_change), server)  # type: ignore[no-untyped-call]
        bind(server, path, mode)
        await server.start()
        ending.push_async_callback(server.stop, SERVER_GRACE_S)
    server = make_server()
    add_NodeServicer_to_server(NodeService(node.lending), server)  # type: ignore[no-untyped-call]
    bind(server, paths.node_socket, 0o660)
    await server.start()
    ending.push_async_callback(server.stop, SERVER_GRACE_S)
    node.images.open()
    ending.push_async_callback(node.images.close)


def _leave_at_once() -> None:
    # An orderly end is under way and waits for somebody; sys.exit() here would wait for the same.
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)
    os._exit(ExitCode.FAILED)


async def _close(node: Node) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await node.close()
