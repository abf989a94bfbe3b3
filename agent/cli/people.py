"""``pyrdma-agent whoami``, ``pyrdma-agent usage`` and ``pyrdma-agent token``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.options import Paths, json_option, paths_options

if TYPE_CHECKING:
    from agent.local.people_views import AccountUsageView, NewTokenView, TokenView, UsageView, WhoAmIView


@click.command(short_help="Show who you are here, and your accounts.")
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="Ask with a token, from a machine without an agent."
)
@json_option
@paths_options
def whoami(*, token_file: Path | None, as_json: bool, paths: Paths) -> None:
    """Show who you are for this node's agent, and which accounts you may run models under."""
    import asyncio

    from agent.cli.output import data, data_json, talk
    from agent.cli.people_json import whoami_document
    from agent.local.client import AgentClient

    async def ask() -> WhoAmIView:
        if token_file is not None:
            from agent.cli.visiting import ask_who

            return await ask_who(token_file)
        async with AgentClient(paths, person=True) as client:
            return await client.whoami()

    view = asyncio.run(ask())
    if as_json:
        data_json(whoami_document(view))
        return
    named = f"{view.name} ({view.who})" if view.name else view.who
    data(f"you       {named}{', the agent runs as you' if view.admin else ''}")
    data(f"site      {view.site or 'none'}")
    data(f"account   {view.account or 'none'}")
    others = [one for one in view.accounts if one != view.account]
    if others:
        data(f"also      {', '.join(others)}")
    if view.classes:
        data(f"classes   {', '.join(view.classes)}")
    if view.notice:
        talk(f"note: {view.notice}")
    if not view.account:
        talk("You have no account: ask the operator for a line in the people file.")


@click.command(short_help="Show what your accounts have used.")
@click.option(
    "--account", "accounts", multiple=True, metavar="ACCOUNT", help="One of yours; may be repeated."
)
@json_option
@paths_options
def usage(accounts: tuple[str, ...], *, as_json: bool, paths: Paths) -> None:
    """Show what your accounts have used, are due and hold, with their newest receipts.

    Use is in standard-GPU-hours; the column USED forgets the past as the order of requests does.
    """
    import asyncio

    from agent.cli.output import data_json, table, talk
    from agent.cli.people_json import usage_document
    from agent.local.client import AgentClient

    async def ask() -> UsageView:
        async with AgentClient(paths, person=True) as client:
            return await client.usage(accounts)

    view = asyncio.run(ask())
    if as_json:
        data_json(usage_document(view))
        return
    if not view.accounts:
        talk("You have no account: ask the operator for a line in the people file.")
        return
    table(("ACCOUNT", "USED", "IN ALL", "DUE", "DELIVERED", "LEASES", "CLASSES"), [*map(_row, view.accounts)])
    receipts = [line for one in view.accounts for line in one.receipts]
    if receipts:
        click.echo()
        rows = [
            (one.donor, one.lease_id, str(one.seq), _hours(one.charge_msgs), one.state) for one in receipts
        ]
        table(("DONOR", "LEASE", "RECEIPT", "CHARGE", "STATE"), rows)
    talk(f"from: {view.source}")


@click.group(short_help="Keys for laptops without an agent.")
def token() -> None:
    """Keys for laptops without an agent. Run these on the gateway, as the agent's own user."""


@token.command(short_help="Print a token for one person's laptop.")
@click.argument("name")
@click.option("--account", default="", metavar="ACCOUNT", help="Who is charged.  [default: the site]")
@click.option("--expires", default="30d", show_default=True, metavar="TIME", help="At most 366d.")
@json_option
@paths_options
def create(name: str, account: str, expires: str, *, as_json: bool, paths: Paths) -> None:
    """Print a token called NAME, on stdout and only now: whoever has it can run models under ACCOUNT."""
    import asyncio
    from datetime import datetime

    from agent.cli.output import data_json, talk
    from agent.cli.people_json import token_document
    from agent.local.client import AgentClient
    from agent.text import parse_duration

    lifetime_s = parse_duration(expires)

    async def ask() -> NewTokenView:
        async with AgentClient(paths, change=True) as client:
            return await client.create_token(name, account, lifetime_s)

    made = asyncio.run(ask())
    if as_json:
        data_json(token_document(made, name))
        return
    click.echo(made.text)  # as a whole, however long
    until = datetime.fromtimestamp(made.expires_at).astimezone()
    talk(f"The token {name} is good until {until:%Y-%m-%d %H:%M:%S %Z}. It is shown only now.")
    talk("next, on the laptop: save it with mode 0600, then pyrdma-agent run MODEL --token-file FILE")


@token.command("list", short_help="List the tokens that may be used.")
@json_option
@paths_options
def list_(*, as_json: bool, paths: Paths) -> None:
    """List the tokens that may be used, and when each was used last."""
    import asyncio

    from agent.local.client import AgentClient

    async def ask() -> tuple[TokenView, ...]:
        async with AgentClient(paths, change=True) as client:
            return await client.tokens()

    _show(asyncio.run(ask()), as_json=as_json)


@token.command(short_help="End a token, and what runs under it.")
@click.argument("name")
@json_option
@paths_options
def revoke(name: str, *, as_json: bool, paths: Paths) -> None:
    """End the token NAME at once: its sessions end, and leases that were started with it."""
    import asyncio

    from agent.cli.output import talk
    from agent.local.client import AgentClient

    async def ask() -> tuple[TokenView, ...]:
        async with AgentClient(paths, change=True) as client:
            return await client.revoke_token(name)

    left = asyncio.run(ask())
    talk(f"The token {name} is no longer good.")
    _show(left, as_json=as_json)


def _show(tokens: tuple[TokenView, ...], *, as_json: bool) -> None:
    from datetime import datetime

    from agent.cli.output import data_json, table, talk
    from agent.cli.people_json import tokens_document

    def day(seconds: float | None) -> str:
        return (
            "never" if seconds is None else f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"
        )

    if as_json:
        data_json(tokens_document(tokens))
    elif not tokens:
        talk("No tokens. Make one with: pyrdma-agent token create NAME")
    else:
        rows = [(one.name, one.account, day(one.expires_at), day(one.used_at)) for one in tokens]
        table(("TOKEN", "ACCOUNT", "UNTIL", "USED"), rows)


def _row(one: AccountUsageView) -> tuple[str, ...]:
    return (
        one.account,
        _hours(one.decayed_msgs),
        _hours(one.charged_msgs),
        f"{one.due_permille / 10:.1f} %",
        f"{one.delivered_permille / 10:.1f} %",
        str(one.leases),
        ", ".join(one.classes) or "-",
    )


def _hours(msgs: int) -> str:
    return f"{msgs / 3_600_000:.2f}"
