"""The pages of Pulse: everything known about an institution or a node; pure functions of the picture."""

from __future__ import annotations

from collections.abc import Iterable

from agent.local.federation_views import DeviceView
from agent.local.views import LeaseView
from tui.limits import MAX_DEVICES_LISTED
from tui.look import Tone, look_of
from tui.picture import Picture
from tui.pulse import age_of, look_at, nodes_by_key, sites_by_key
from tui.rows import Cell, Line, Page, cell, sentence, state_cell
from tui.words import duration, gigabytes, moment, size


def site_page(picture: Picture, key: str) -> Page | None:
    """Return everything known about an institution."""
    site = sites_by_key(picture).get(key)
    if site is None:
        return None
    age_s = age_of(site, picture)
    peak = max(picture.history.rates.get(site.name, (0.0,)))
    lines: list[tuple[str, Line]] = [
        ("state", (state_cell(look_at(site.state, age_s)),)),
        *([("", (sentence(site.fault, Tone.BAD),))] if site.fault else []),
        ("last heard", (Cell("never" if age_s is None else f"{duration(age_s)} ago"),)),
        ("trust domain", (cell(site.trust_domain or "-"),)),
        ("gateway", (cell(site.address or "-"),)),
        ("devices", (cell(f"{site.devices} lent: {site.leased} in use, {site.idle} idle"),)),
        ("nodes", (cell(site.nodes),)),
        ("images", (cell(site.images),)),
        ("sends", (cell(f"{gigabytes(site.transfer_bytes_per_s)} GB/s, lately at most {gigabytes(peak)}"),)),
    ]
    return Page(cell(site.name + (" (our own)" if site.local else "")), tuple(lines))


def node_page(picture: Picture, key: str) -> Page | None:
    """Return everything known about a node: its devices, and its leases where it is this one."""
    node = nodes_by_key(picture).get(key)
    if node is None:
        return None
    age_s = age_of(node, picture)
    lines: list[tuple[str, Line]] = [
        ("state", (state_cell(look_at(node.state, age_s)),)),
        ("last heard", (Cell("never" if age_s is None else f"{duration(age_s)} ago"),)),
        ("role", (cell(node.role),)),
        ("address", (cell(node.address or "-"),)),
        ("images", (cell(node.images),)),
        ("sends", (cell(f"{gigabytes(node.transfer_bytes_per_s)} GB/s"),)),
        *_labelled("devices", (_device(device) for device in node.devices[:MAX_DEVICES_LISTED])),
    ]
    ours = node.name == picture.answer.federation.node
    if ours:
        lines += _labelled("leases", (_lease(lease, picture.now) for lease in picture.answer.leases))
    return Page(cell(node.name + (" (this node)" if ours else "")), tuple(lines))


def _device(device: DeviceView) -> Line:
    line = [
        state_cell(look_of(device.state)),
        cell(f"  {device.id}  {device.kind}  {size(device.memory_bytes)}"),
    ]
    if device.state == "leased":
        line.append(cell(f"  lease {device.lease or '?'} to {device.borrower or '?'}"))
    return tuple(line)


def _lease(lease: LeaseView, now: float) -> Line:
    age_s = now - lease.created_at
    where = f", runs at {lease.donor}" if lease.donor else ""
    where += f", used by {lease.borrower}" if lease.borrower else ""
    return (
        state_cell(look_of(lease.state)),
        cell(f"  {lease.model}  {lease.id}  since {moment(lease.created_at)} ({duration(age_s)}){where}"),
    )


def _labelled(label: str, lines: Iterable[Line]) -> list[tuple[str, Line]]:
    listed = list(lines) or [(Cell("none", Tone.FAINT),)]
    return [(label if not at else "", line) for at, line in enumerate(listed)]
