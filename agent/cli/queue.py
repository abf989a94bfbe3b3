"""``pyrdma-agent queue``: what waits at this site, where, why, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agent.cli.options import Paths, json_option, paths_options

if TYPE_CHECKING:
    from agent.local.queue_views import QueueView, WaitCellView


@click.command(short_help="Show what waits at this site, and why.")
@json_option
@paths_options
def queue(*, as_json: bool, paths: Paths) -> None:
    """Show the requests that wait for this site's devices: their places, reasons and estimates.

    Below them is what the site publishes: waits of the last 7 days, how fast owners had their devices back,
    shares due and delivered. Groups of fewer than 5 requests show no figures.
    """
    import asyncio

    from agent.cli.output import data_json
    from agent.local.client import AgentClient
    from agent.openness.document import queue_document

    async def ask() -> QueueView:
        async with AgentClient(paths) as client:
            return await client.queue()

    view = asyncio.run(ask())
    if as_json:
        data_json(queue_document(view))
    else:
        _show(view)


def _show(view: QueueView) -> None:
    from agent.cli.output import data, table, talk
    from agent.text import format_duration

    if view.consortium:
        age = "" if view.books_age_s is None else f", books up to {format_duration(view.books_age_s)} old"
        stale = ": too old, the last split is served" if view.stale else ""
        data(f"policy  {view.consortium} version {view.policy_version}{age}{stale}")
    else:
        data("policy  none: whoever asks first goes first")
    for one in view.devices:
        owned = f", {one.owned} used by their owner" if one.owned else ""
        data(f"devices {one.device_class}: {one.used} of {one.lent} lent ones in use{owned}")
    if view.requests:
        rows = [
            (
                str(one.place.position),
                one.account,
                one.borrower,
                one.model,
                format_duration(one.waited_s),
                "-" if one.place.eta_s is None else " to ".join(map(format_duration, one.place.eta_s)),
                one.place.reasons[0].sentence if one.place.reasons else "",
                one.place.reasons[0].change if one.place.reasons else "",
            )
            for one in view.requests
        ]
        table(("PLACE", "ACCOUNT", "FOR", "MODEL", "WAITS", "ETA", "WHY", "WHAT WOULD CHANGE IT"), rows)
    else:
        talk("Nothing waits here.")
    cells = (*view.waits, *view.reserved_waits)
    if cells:
        table(
            ("WAITED, 7 DAYS", "DEVICE CLASS", "REQUESTS", "HALF WITHIN", "9 OF 10 WITHIN"),
            [_cell(one) for one in cells],
        )
    if view.reclaims.p50_s is not None and view.reclaims.longest_s is not None:
        half, longest = format_duration(view.reclaims.p50_s), format_duration(view.reclaims.longest_s)
        data(f"owners had {view.reclaims.reclaims} devices back, half within {half}, all within {longest}")
    if view.shares:
        shares = [
            (one.institution, f"{one.due_permille / 10:.1f} %", f"{one.delivered_permille / 10:.1f} %")
            for one in view.shares
        ]
        table(("INSTITUTION", "DUE", "DELIVERED"), shares)


def _cell(cell: WaitCellView) -> tuple[str, ...]:
    from agent.text import format_duration

    if cell.requests is None or cell.p50_s is None or cell.p90_s is None:
        return (cell.group, cell.device_class, "fewer than 5", "-", "-")
    return (
        cell.group,
        cell.device_class,
        str(cell.requests),
        format_duration(cell.p50_s),
        format_duration(cell.p90_s),
    )
