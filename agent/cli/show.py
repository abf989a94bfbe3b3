"""The commands that only look: ``status``, ``models``, ``leases``, ``transfers``."""

from __future__ import annotations

import time

import click

from agent.cli.options import Paths, json_option, paths_options
from agent.local.views import LeaseView, ModelView, StatusView, TransferView


@click.command(short_help="Show this node: memory, runners, peers.")
@json_option
@paths_options
def status(*, as_json: bool, paths: Paths) -> None:
    """Show this node's agent, weight cache, spare runners and peers."""
    import asyncio

    from agent.cli.output import data, data_json, talk
    from agent.cli.policy_state import policy_line
    from agent.cli.schema import status_document
    from agent.local.client import AgentClient
    from agent.text import format_duration, format_size

    async def ask() -> StatusView:
        async with AgentClient(paths) as client:
            return await client.status()

    view = asyncio.run(ask())
    if as_json:
        data_json(status_document(view))
        return
    cache, spares = view.cache, view.spares
    up = format_duration(view.uptime_s)
    data(f"agent   {view.name} {view.version}, pid {view.pid}, up {up}, {view.leases} leases")
    if cache.up:
        used, budget = format_size(cache.used_bytes), format_size(cache.budget_bytes)
        workers = ", ".join(f"{worker.lane} (pid {worker.pid})" for worker in cache.workers) or "none yet"
        data(f"cache   {used} of {budget} used, pid {cache.pid}, lane workers: {workers}")
    elif view.donates:
        data("cache   down, it is being started again")
    else:
        data("cache   none, this node donates nothing")
    if cache.restarts or cache.last_fault:
        data(f"        started again {cache.restarts} times; last fault: {cache.last_fault}")
    if view.donates:
        fault = f"; {spares.last_fault}" if spares.last_fault else ""
        data(f"spares  {spares.ready} of {spares.wanted} ready{fault}")
    for peer in view.peers:
        data(f"peer    {peer.name or '?'} at {peer.address}: {'reachable' if peer.reachable else peer.fault}")
    if view.policy is not None:
        data(f"policy  {policy_line(view.policy)}")
        for fault in view.policy.faults:
            talk(f"policy: {fault}")
    if view.state_fault:
        data(f"state   {view.state_fault}")


@click.command(short_help="List the models that this node knows.")
@json_option
@paths_options
def models(*, as_json: bool, paths: Paths) -> None:
    """List the models known on this node and how much of each is in memory."""
    import asyncio

    from agent.cli.output import data_json, table, talk
    from agent.cli.schema import models_document
    from agent.local.client import AgentClient
    from agent.text import format_size

    async def ask() -> tuple[ModelView, ...]:
        async with AgentClient(paths) as client:
            return await client.models()

    views = asyncio.run(ask())
    if as_json:
        data_json(models_document(views))
    elif not views:
        talk("No models yet. Add one with: pyrdma-agent publish FOLDER --name NAME")
    else:
        rows = [
            (
                view.name,
                view.image_id[:12],
                format_size(view.total_bytes),
                f"{view.verified_pieces}/{view.pieces} pieces",
                str(view.attached),
                view.folder or view.origin,
            )
            for view in views
        ]
        table(("NAME", "IMAGE", "SIZE", "IN MEMORY", "IN USE", "FROM"), rows)


@click.command(short_help="List leases.")
@click.option("--all", "include_ended", is_flag=True, help="Ended ones as well.")
@json_option
@paths_options
def leases(*, include_ended: bool, as_json: bool, paths: Paths) -> None:
    """List the leases of this node, newest first."""
    import asyncio

    from agent.cli.output import data_json, table, talk
    from agent.cli.schema import leases_document
    from agent.local.client import AgentClient
    from agent.text import format_duration

    async def ask() -> tuple[LeaseView, ...]:
        async with AgentClient(paths) as client:
            return await client.leases(include_ended=include_ended)

    views = asyncio.run(ask())
    if as_json:
        data_json(leases_document(views))
    elif not views:
        talk("No leases. Start a model with: pyrdma-agent run MODEL")
    else:
        now = time.time()
        rows = [
            (
                view.id,
                view.model,
                view.state,
                format_duration((view.ended_at or now) - view.created_at),
                f"http://127.0.0.1:{view.port}/v1" if view.port and view.ended_at is None else "-",
                view.donor or "here",
                view.borrower or "here",
                view.account or "-",
                view.reason,
            )
            for view in views
        ]
        table(("LEASE", "MODEL", "STATE", "FOR", "ENDPOINT", "RUNS", "USED", "ACCOUNT", "REASON"), rows)


@click.command(short_help="List publications and pulls.")
@json_option
@paths_options
def transfers(*, as_json: bool, paths: Paths) -> None:
    """List the publications and pulls since the agent started: running ones first, then the latest."""
    import asyncio

    from agent.cli.output import data_json, table, talk
    from agent.cli.schema import transfers_document
    from agent.local.client import AgentClient
    from agent.text import format_size

    async def ask() -> tuple[TransferView, ...]:
        async with AgentClient(paths) as client:
            return await client.transfers()

    views = asyncio.run(ask())
    if as_json:
        data_json(transfers_document(views))
    elif not views:
        talk("No transfers since the agent started.")
    else:
        rows = [
            (
                view.model,
                view.kind,
                view.state,
                f"{format_size(view.progress.done_bytes)} of {format_size(view.progress.total_bytes)}",
                f"{format_size(int(view.progress.done_bytes / view.seconds))}/s" if view.seconds else "-",
                view.progress.lane or "-",
                view.reason or "; ".join(f"{one.name}: {one.state}" for one in view.progress.sources),
            )
            for view in views
        ]
        table(("MODEL", "KIND", "STATE", "DONE", "RATE", "LANE", "DETAIL"), rows)
