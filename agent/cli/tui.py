"""``pyrdma-agent tui``."""

from __future__ import annotations

import os
import sys

import click

from agent.cli.options import Paths, paths_options


@click.command(short_help="Watch institutions, nodes and transfers on one screen.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.5, 60.0),
    default=1.5,
    show_default=True,
    metavar="SECONDS",
    help="Pause between two questions to the agent.",
)
@paths_options
def tui(*, interval_s: float, paths: Paths) -> int:
    """Watch institutions, nodes and transfers; nothing in it changes anything."""
    import asyncio

    from agent.errors import RequestError

    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise RequestError(
            "the terminal UI needs a terminal for its input and output.",
            fix="without one, ask for data: pyrdma-agent status --json",
        )
    # gRPC's core writes to the terminal itself when an agent goes away: the picture would be torn.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from agent.local.client import AgentClient
    from tui.source import ask

    async def watch() -> int:
        async with AgentClient(paths) as client:
            first = await ask(client)
        from tui.app import OperatorApp

        app = OperatorApp(first, lambda: AgentClient(paths), interval_s=interval_s)
        await app.run_async()
        return app.return_code or 0

    return asyncio.run(watch())
