"""``pyrdma-agent invite``."""

from __future__ import annotations

import click

from agent.cli.options import Paths, json_option, paths_options
from agent.local.federation_views import InviteView


@click.group(short_help="Let nodes into this site.")
def invite() -> None:
    """Let nodes into this site."""


@invite.command(short_help="Print an invite for one node.")
@click.option("--node", required=True, help="The name that the node will have.")
@click.option("--expires", default="30m", show_default=True, metavar="TIME", help="At most 24h.")
@click.option(
    "--cidr", default="", metavar="NETWORK", help="Where the join must come from, such as 10.1.0.0/16."
)
@json_option
@paths_options
def create(*, node: str, expires: str, cidr: str, as_json: bool, paths: Paths) -> None:
    """Print an invite, on stdout and only now: whoever has it can join as NODE, once, while it lasts.

    Run it on the gateway, whose agent must run, as the agent's own user.
    """
    import asyncio
    from datetime import datetime

    from agent.cli.output import data_json, talk
    from agent.cli.schema import invite_document
    from agent.local.client import AgentClient
    from agent.text import parse_duration

    lifetime_s = parse_duration(expires)

    async def ask() -> InviteView:
        async with AgentClient(paths, change=True) as client:
            return await client.create_invite(node, lifetime_s, cidr)

    made = asyncio.run(ask())
    if as_json:
        data_json(invite_document(made, node))
        return
    click.echo(made.text)  # as a whole, however long
    until = datetime.fromtimestamp(made.expires_at).astimezone()
    talk(f"The invite is for {node}, for one join, until {until:%Y-%m-%d %H:%M:%S %Z}. It is shown only now.")
    talk(f"next, on {node}: pyrdma-agent join --invite-file FILE (or -, to read it from stdin)")
