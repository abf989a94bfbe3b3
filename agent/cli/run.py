"""``pyrdma-agent run`` and ``pyrdma-agent stop``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import click

from agent.cli.options import Paths, json_option, paths_options, timeout_option
from agent.limits import LONG_CALL_S
from agent.local.views import (
    AHEAD_PHASES,
    AcceptedView,
    GrantedView,
    LeaseView,
    NoteView,
    PhaseView,
    PlaceView,
    ProgressView,
    RunEvent,
    WaitingView,
)


@click.command(short_help="Start a model and print its endpoint and key.")
@click.argument("model")
@click.option("--site", default="", metavar="SITE", help="Run it on a device of this site.")
@click.option("--node", default="", metavar="NODE", help="Run it on this node of the site.")
@click.option("--account", default="", metavar="ACCOUNT", help="Who is charged.  [default: your own]")
@click.option("--purpose", default="", metavar="PURPOSE", help="What it is for, as the policy names it.")
@click.option("--instant", is_flag=True, help="It may be taken back at once: idle reserve is lent to such.")
@click.option("--duration", metavar="TIME", help="How long at most, such as 4h.  [default: as is lent]")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    envvar="PYRDMA_AGENT_TOKEN_FILE",
    show_envvar=True,
    help="Ask with a token, from a machine without an agent; stays until Ctrl-C.",
)
@timeout_option(LONG_CALL_S)
@json_option
@paths_options
def run(
    *,
    model: str,
    site: str,
    node: str,
    account: str,
    purpose: str,
    instant: bool,
    duration: str | None,
    token_file: Path | None,
    timeout_s: float,
    as_json: bool,
    paths: Paths,
) -> None:
    """Start MODEL (NAME, SITE/NAME or NAME@IMAGEID) from memory and print an OpenAI-compatible endpoint.

    In a site the gateway finds a donated device, this site's first, then another's; without one it runs here.
    Weights come from memory that holds them, else from the folder that they were published from; each piece
    is proven by its digest. Where every device is in use, the request waits, and the command says where in
    the queue, and why. It returns when the model answers; the lease stays until `pyrdma-agent stop`. Ctrl-C
    before that calls the start off.
    """
    import asyncio

    from agent.local.client import AgentClient
    from agent.local.people_views import Wanted
    from agent.text import parse_duration

    wanted = Wanted(model, site, node, account, purpose, instant, int(parse_duration(duration or "0s")))
    if token_file is not None:
        from agent.cli.visiting import visit

        asyncio.run(visit(token_file, wanted, timeout_s=timeout_s, as_json=as_json))
        return

    async def work() -> tuple[GrantedView, list[str]]:
        async with AgentClient(paths, change=True, person=True) as client:
            return await follow(client.run(wanted, timeout_s=timeout_s), model, quiet=as_json)

    granted, notes = asyncio.run(work())
    show_granted(granted, notes, as_json=as_json)
    if not as_json:
        from agent.cli.output import talk

        talk("The key is shown only now. The lease stays until you stop it.")
        talk(f"try:   curl -H 'Authorization: Bearer {granted.api_key}' {granted.endpoint}/models")
        talk(f"stop:  pyrdma-agent stop {granted.lease.id}")


async def follow(
    events: AsyncIterator[RunEvent], model: str, *, quiet: bool
) -> tuple[GrantedView, list[str]]:
    """Show a start's events as they come; return the lease and what was said on the way."""
    from agent.cli.progress import TransferBar

    notes: list[str] = []
    waiting: dict[str, PlaceView] = {}
    granted: GrantedView | None = None
    with TransferBar(f"warming {model}", quiet=quiet) as bar:
        async for event in events:
            match event:
                case NoteView(text):
                    notes.append(text)
                    bar.note(text)
                case ProgressView():
                    bar.show(event)
                case WaitingView(at, place):
                    if waiting.get(at) != place:
                        waiting[at] = place
                        bar.note(waiting_line(at, place))
                case PhaseView():
                    pass  # the timeline is printed as a whole afterwards
                case AcceptedView():
                    bar.note(f"lease {event.lease_id} on {event.site}/{event.node}")
                case GrantedView():
                    granted = event
    assert granted is not None, "the agent's last event is the lease"
    return granted, notes


def show_granted(granted: GrantedView, notes: list[str], *, as_json: bool) -> None:
    """Print a lease that answers."""
    from agent.cli.output import data, data_json, talk
    from agent.cli.schema import granted_document

    if as_json:
        data_json(granted_document(granted, notes))
        return
    lease = granted.lease
    talk(_how(granted))
    data(f"endpoint  {granted.endpoint}")
    data(f"api key   {granted.api_key}")
    data(f"lease     {lease.id}")
    if lease.donor:
        data(f"runs on   {lease.donor}")
    if lease.account:
        data(f"account   {lease.account}")


@click.command(short_help="End a lease.")
@click.argument("lease")
@json_option
@paths_options
def stop(lease: str, *, as_json: bool, paths: Paths) -> None:
    """End LEASE: its endpoint closes, its runner ends, the image stays in memory."""
    import asyncio

    from agent.cli.output import data, data_json
    from agent.cli.schema import stopped_document
    from agent.local.client import AgentClient

    async def work() -> LeaseView:
        async with AgentClient(paths, change=True, person=True) as client:
            return await client.stop(lease)

    ended = asyncio.run(work())
    if as_json:
        data_json(stopped_document(ended))
    else:
        data(f"lease {ended.id} of {ended.model} has ended: {ended.reason}.")


def waiting_line(site: str, place: PlaceView) -> str:
    """Return one line about a request's place in a donor's queue."""
    from agent.text import format_duration

    why = f": {place.reasons[0].sentence}" if place.reasons else "."
    eta = ""
    if place.eta_s is not None:
        eta = (
            f" (in about {format_duration(place.eta_s[0])}, 9 of 10 within {format_duration(place.eta_s[1])})"
        )
    return f"waiting at {site}, place {place.position} of {place.waiting}{eta}{why}"


def _how(granted: GrantedView) -> str:
    from agent.text import format_size

    start = granted.start
    if start.lane == "resident":
        way = "was in memory already"
    else:
        rate = format_size(int(start.bytes / start.pull_s)) if start.pull_s else "-"
        way = f"{format_size(start.bytes)} over {start.lane} in {start.pull_s:.2f} s ({rate}/s), verified"
    ahead, now = _listed(start.phases, ahead=True), _listed(start.phases, ahead=False)
    return f"{granted.lease.model}: {way}; answers after {start.ready_s:.2f} s ({now})" + (
        f"; done ahead by the spare: {ahead}" if ahead else ""
    )


def _listed(phases: tuple[PhaseView, ...], *, ahead: bool) -> str:
    return ", ".join(
        f"{phase.name} {phase.seconds:.3f} s" for phase in phases if (phase.name in AHEAD_PHASES) is ahead
    )
