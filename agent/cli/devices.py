"""The commands of a node's owner about its devices: lend them, in which way, and take them back."""

from __future__ import annotations

import click

from agent.cli.options import Paths, json_option, paths_options, timeout_option
from agent.devices.wishes import Claim, DeviceChange
from agent.limits import MAX_DEVICES, MAX_GRACE_S
from agent.local.device_views import HandedOverView, OwnDeviceView, TakingView

_POLL_S = 0.2
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would happen, and do nothing.")
_confirm = click.option("--confirm", metavar="NAME", help="Answer the question for this name, in scripts.")
_names = click.argument("devices", nargs=-1, metavar="[DEVICE]...")


@click.command(short_help="List the devices of this node.")
@json_option
@paths_options
def devices(*, as_json: bool, paths: Paths) -> None:
    """List this node's devices: who has each, and in which way it is lent."""
    import asyncio

    from agent.cli.output import data_json, talk
    from agent.cli.schema import devices_document
    from agent.local.client import AgentClient

    async def ask() -> tuple[OwnDeviceView, ...]:
        async with AgentClient(paths) as client:
            return await client.devices()

    views = asyncio.run(ask())
    if as_json:
        data_json(devices_document(views))
    elif not views:
        talk("This node lends no devices.")
    else:
        _show(views)


@click.command(short_help="Lend devices, and say in which way.")
@_names
@click.option("--only-idle/--always", "only_idle", default=None, help="Lend while no local process uses it.")
@click.option(
    "--hours",
    multiple=True,
    metavar="SPAN",
    help="Lend in these hours of this machine's time, such as 'mon-fri 20:00-06:00'; may be repeated.",
)
@click.option("--all-hours", is_flag=True, help="Lend at all hours again.")
@click.option(
    "--headroom", metavar="SIZE", help="Memory of each device that guests do not get, such as 2GiB."
)
@_dry_run
@json_option
@paths_options
def donate(
    devices: tuple[str, ...],
    *,
    only_idle: bool | None,
    hours: tuple[str, ...],
    all_hours: bool,
    headroom: str | None,
    dry_run: bool,
    as_json: bool,
    paths: Paths,
) -> None:
    """Lend DEVICES (default: all of this node) from now on, and after the agent's next start.

    What is not said stays as it was. A device that was withdrawn, taken back or drained is lent again.
    """
    from agent.text import parse_size

    if hours and all_hours:
        raise click.UsageError("--hours and --all-hours exclude each other")
    wish = DeviceChange(
        "donate",
        devices,
        dry_run=dry_run,
        only_idle=only_idle,
        hours=() if all_hours else hours or None,
        headroom_bytes=parse_size(headroom) if headroom else None,
    )
    _change(paths, wish, as_json=as_json)


@click.command(short_help="Lend devices no more.")
@_names
@_dry_run
@_confirm
@json_option
@paths_options
def withdraw(
    devices: tuple[str, ...], *, dry_run: bool, confirm: str | None, as_json: bool, paths: Paths
) -> None:
    """Take DEVICES (default: all) out of the donation, until `pyrdma-agent donate`.

    Guests get their notice and their grace, and are ended then. It returns at once.
    """
    _change(paths, DeviceChange("withdraw", devices, dry_run=dry_run), confirm=confirm, as_json=as_json)


@click.command(short_help="Start nothing more on devices; what runs goes on.")
@_names
@_dry_run
@json_option
@paths_options
def drain(devices: tuple[str, ...], *, dry_run: bool, as_json: bool, paths: Paths) -> None:
    """Start nothing more on DEVICES (default: all), until `undrain`; leases on them go on to their end."""
    _change(paths, DeviceChange("drain", devices, dry_run=dry_run), as_json=as_json)


@click.command(short_help="Let leases start on devices again.")
@_names
@_dry_run
@json_option
@paths_options
def undrain(devices: tuple[str, ...], *, dry_run: bool, as_json: bool, paths: Paths) -> None:
    """Let leases start on DEVICES (default: all) again."""
    _change(paths, DeviceChange("undrain", devices, dry_run=dry_run), as_json=as_json)


@click.command(short_help="Take devices back for yourself.")
@_names
@click.option(
    "--devices", "count", type=click.IntRange(1, MAX_DEVICES), help="So many, those that cost least."
)
@_dry_run
@_confirm
@timeout_option(MAX_GRACE_S + 60)
@json_option
@paths_options
def reclaim(
    devices: tuple[str, ...],
    *,
    count: int | None,
    dry_run: bool,
    confirm: str | None,
    timeout_s: float,
    as_json: bool,
    paths: Paths,
) -> None:
    """Take DEVICES (default: all) back for yourself, and wait until their memory is free.

    They stay in the donation and are yours until `pyrdma-agent donate`. Guests get notice and their grace.
    For one command, `pyrdma-agent mine -- COMMAND` gives them back by itself.
    """
    if devices and count:
        raise click.UsageError("name devices or their number")
    wish = DeviceChange("reclaim", devices, count=count or 0, dry_run=dry_run)
    _change(paths, wish, confirm=confirm, as_json=as_json, wait_s=timeout_s)


@click.command(
    short_help="Run a command of yours on a device that is taken back for it.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option("--device", "names", multiple=True, metavar="DEVICE", help="This one; may be repeated.")
@click.option(
    "--devices",
    "count",
    type=click.IntRange(1, MAX_DEVICES),
    help="So many, those that cost guests least.  [default: 1]",
)
@timeout_option(MAX_GRACE_S + 60)
@paths_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARG]...")
def mine(
    command: tuple[str, ...], *, names: tuple[str, ...], count: int | None, timeout_s: float, paths: Paths
) -> None:
    """Take a device back, wait until its memory is free, run COMMAND, and lend it again afterwards.

    COMMAND takes the place of this process: its signals and its exit code are its own. It finds the devices
    in PYRDMA_DEVICES, and GPUs in CUDA_VISIBLE_DEVICES. However it ends, the device is lent again; what it
    leaves running in the background does not hold the device.
    """
    import asyncio
    import os
    import shlex
    import shutil

    from agent.cli.output import talk
    from agent.devices.processes import started_ticks
    from agent.errors import RequestError
    from agent.local.client import AgentClient
    from agent.text import printable

    if names and count:
        raise click.UsageError("name devices or their number")
    program = shutil.which(command[0])
    if program is None:
        raise RequestError(f"there is no program {command[0]!r} here; no device was taken back.")
    started = started_ticks(os.getpid())
    assert started is not None, "this process runs"
    wish = Claim(names, count or 1, os.getpid(), started, printable(shlex.join(command), 80))

    async def take() -> HandedOverView:
        over: HandedOverView | None = None
        async with AgentClient(paths, change=True) as client:
            async for event in client.claim_devices(wish, timeout_s=timeout_s):
                match event:
                    case TakingView(taken):
                        talk(_taking(taken))
                    case HandedOverView():
                        over = event
        assert over is not None, "the agent's last event is the hand-over"
        return over

    over = asyncio.run(take())
    talk(f"{', '.join(over.devices)} yours after {over.seconds:.1f} s")
    if over.doubt:
        talk(f"warning: {over.doubt}")
    environment = {**os.environ, "PYRDMA_DEVICES": ",".join(over.devices)}
    if over.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(over.gpus)
    os.execve(program, command, environment)  # noqa: S606 - without a shell, on purpose


def _change(
    paths: Paths,
    wish: DeviceChange,
    *,
    as_json: bool,
    confirm: str | None = None,
    wait_s: float | None = None,
) -> None:
    """Carry a change out, after a question if guests lose by it; print the devices as they are then."""
    import asyncio
    from dataclasses import replace

    from agent.cli.confirm import confirm_by_name
    from agent.cli.output import data_json, talk
    from agent.cli.schema import devices_document
    from agent.errors import OwnedError
    from agent.local.client import AgentClient

    async def ask(what: DeviceChange) -> tuple[OwnDeviceView, ...]:
        async with AgentClient(paths, change=True) as client:
            changed = await client.change_devices(what)
            if wait_s is not None and not what.dry_run:
                taken = {one.id for one in changed}
                async with asyncio.timeout(wait_s):
                    while any(one.state != "owned" for one in changed):
                        await asyncio.sleep(_POLL_S)
                        changed = tuple(one for one in await client.devices() if one.id in taken)
                        if lent := [one.id for one in changed if one.state == "lent"]:
                            raise OwnedError(
                                f"{', '.join(lent)} was lent again meanwhile.",
                                fix="see who has it with: pyrdma-agent devices",
                            )
            return changed

    takes = wish.change in ("withdraw", "reclaim") and not wish.dry_run
    if takes:
        before = asyncio.run(ask(replace(wish, dry_run=True)))
        names = ",".join(one.id for one in before)
        if loss := _loss(before):
            confirm_by_name(loss, names, confirm)
        wish = replace(wish, devices=tuple(one.id for one in before), count=0)
    try:
        views = asyncio.run(ask(wish))
    except TimeoutError as error:
        from agent.errors import DeadlineError

        raise DeadlineError(
            f"the devices were not free within {wait_s:.0f} s; the agent goes on.",
            fix="see how far it is with: pyrdma-agent devices",
        ) from error
    if wish.dry_run:
        talk(_loss(views) or "No lease would be touched.")
    if as_json:
        data_json(devices_document(views, dry_run=wish.dry_run))
    else:
        _show(views)
    if takes:
        talk("Lend again with: pyrdma-agent donate")


def _loss(views: tuple[OwnDeviceView, ...]) -> str:
    """Say what guests lose; nothing when there are none."""
    guests = {guest.lease_id: guest for view in views for guest in view.guests}
    if not guests:
        return ""
    hours = sum(guest.held_s for view in views for guest in view.guests) / 3600
    whose = sorted({guest.borrower or "this node" for guest in guests.values()})
    grace_s = max(guest.grace_s for guest in guests.values())
    return (
        f"This ends {len(guests)} leases of {', '.join(whose)} after {grace_s:.0f} s of grace,"
        f" {hours:.1f} device-hours into their work."
    )


def _taking(views: tuple[OwnDeviceView, ...]) -> str:
    names = ", ".join(one.id for one in views)
    return f"taking back {names}. {_loss(views)}".strip()


def _show(views: tuple[OwnDeviceView, ...]) -> None:
    from agent.cli.output import table
    from agent.text import format_size

    rows = [
        (
            one.id,
            one.device_class,
            format_size(one.memory_bytes),
            _state(one),
            ", ".join(f"{guest.lease_id} ({guest.borrower or 'here'})" for guest in one.guests) or "-",
            _terms(one),
            "; ".join(filter(None, (*one.wanted, one.doubt))) or "-",
        )
        for one in views
    ]
    table(("DEVICE", "CLASS", "LENT MEMORY", "STATE", "GUESTS", "LENT", "WHY"), rows)


def _state(view: OwnDeviceView) -> str:
    if view.state == "lent":
        return "draining" if view.draining else "lent"
    return f"reclaiming, {view.left_s:.0f} s left" if view.state == "reclaiming" else view.state


def _terms(view: OwnDeviceView) -> str:
    if not view.donated:
        return "not"
    words = ["while idle"] if view.only_idle else []
    words += [", ".join(view.hours)] if view.hours else []
    return ", ".join(words) or "always"
