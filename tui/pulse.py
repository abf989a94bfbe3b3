"""Pulse as data: a line per institution, a line per node of our own, and what to do where there is neither.

A pure function of the picture. Ages grow with the picture's own age, so an agent that died shows everything
getting older, and nothing as ready for ever.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from agent.local.federation_views import DeviceView, NodeView, SiteView
from tui.limits import STALE_S
from tui.look import Look, Tone, look_of
from tui.picture import Picture
from tui.rows import Cell, Column, Line, Row, cell, keyed, state_cell
from tui.words import gigabytes, short_age, size, sparkline, until

SITE_COLUMNS: Final = (
    Column("state", "STATE", 10),
    Column("name", "INSTITUTION", 18, grow=12),
    Column("lent", "LENT", 5, right=True),
    Column("used", "USED", 5, right=True),
    Column("idle", "IDLE", 5, right=True),
    Column("nodes", "NODES", 6, right=True),
    Column("images", "IMAGES", 7, right=True),
    Column("rate", "GB/s", 6, right=True),
    Column("trend", "TREND", 12, grow=19),
    Column("age", "AGE", 5, right=True),
)
NODE_COLUMNS: Final = (
    Column("state", "STATE", 11),
    Column("name", "NODE", 17, grow=14),
    Column("role", "ROLE", 8),
    Column("devices", "DEVICES", 25, grow=26),
    Column("images", "IMAGES", 7, right=True),
    Column("rate", "GB/s", 6, right=True),
    Column("age", "AGE", 5, right=True),
)
_TREND: Final = [column.key for column in SITE_COLUMNS].index("trend")

OUTSIDE: Final = (
    "This node belongs to no institution yet; what it holds stands above.",
    "",
    "Its first node makes an institution:",
    "    pyrdma-agent init --site NAME --trust-domain DOMAIN --address HOST:PORT",
    "Any other one joins with an invite from there:",
    "    pyrdma-agent join --invite-file FILE",
)
NO_SITES: Final = (
    "No institution is known yet: the registry has not been read.",
    "",
    "What this node knows of its site, and why not more:",
    "    pyrdma-agent nodes",
)


def header(picture: Picture) -> tuple[Line, ...]:
    """Return where we are, what the registry is worth, and how this node does."""
    return _place(picture), _registry(picture), _node(picture)


def empty_words(picture: Picture) -> tuple[str, ...]:
    """Return what to do where there is no institution to show; nothing where there is one."""
    if not picture.answer.federation.site:
        return OUTSIDE
    return () if picture.answer.federation.sites else NO_SITES


def sites_by_key(picture: Picture) -> dict[str, SiteView]:
    """Return the institutions as they are listed: our own first, the others by name."""
    ordered = sorted(picture.answer.federation.sites, key=lambda site: (not site.local, site.name.casefold()))
    return keyed(ordered, lambda site: site.name)


def nodes_by_key(picture: Picture) -> dict[str, NodeView]:
    """Return the nodes of our site: the gateway first, the others by name."""
    nodes = picture.answer.federation.nodes
    ordered = sorted(nodes, key=lambda node: (node.role != "gateway", node.name.casefold()))
    return keyed(ordered, lambda node: node.name)


def site_rows(picture: Picture, *, trend_cells: int) -> tuple[Row, ...]:
    """Return a row per institution; all sparklines share one scale, so that rows can be compared."""
    sites = sites_by_key(picture)
    rates = picture.history.rates
    peak = max((max(rates.get(site.name, (0.0,))) for site in sites.values()), default=0.0)
    return tuple(
        Row(
            key,
            (
                state_cell(look_at(site.state, age_of(site, picture))),
                cell(
                    f"* {site.name}" if site.local else f"  {site.name}",
                    Tone.STRONG if site.local else Tone.PLAIN,
                ),
                cell(site.devices),
                cell(site.leased),
                cell(site.idle),
                cell(site.nodes),
                cell(site.images),
                cell(gigabytes(site.transfer_bytes_per_s)),
                Cell(sparkline(rates.get(site.name, ()), trend_cells, peak=peak), Tone.GOOD),
                cell(short_age(age_of(site, picture)), Tone.FAINT),
            ),
            words=cell(site.trust_domain).text,
        )
        for key, site in sites.items()
    )


def node_rows(picture: Picture) -> tuple[Row, ...]:
    """Return a row per node of our own site."""
    return tuple(
        Row(
            key,
            (
                state_cell(look_at(node.state, age_of(node, picture))),
                cell(node.name, Tone.STRONG if node.name == picture.answer.federation.node else Tone.PLAIN),
                cell(node.role),
                cell(_devices(node.devices)),
                cell(node.images),
                cell(gigabytes(node.transfer_bytes_per_s)),
                cell(short_age(age_of(node, picture)), Tone.FAINT),
            ),
        )
        for key, node in nodes_by_key(picture).items()
    )


def trend_cells(widths: tuple[int, ...]) -> int:
    """Return how many samples the sparkline's column has room for."""
    return max(0, widths[_TREND] - 1)


def age_of(view: SiteView | NodeView, picture: Picture) -> float | None:
    """Return how long ago it was heard of, the picture's own age included."""
    return None if view.age_s is None else view.age_s + picture.age_s


def look_at(state: str, age_s: float | None) -> Look:
    """Return the look of a state; what is ready but was long not heard of is stale."""
    return look_of("stale" if state == "ready" and age_s is not None and age_s > STALE_S else state)


def _place(picture: Picture) -> Line:
    view = picture.answer.federation
    if not view.site:
        return cell(picture.answer.status.name, Tone.STRONG), Cell("  in no institution", Tone.FAINT)
    return (
        cell(view.node, Tone.STRONG),
        cell(f", {view.role} of "),
        cell(view.site, Tone.STRONG),
        cell(f" in {view.registry.consortium}" if view.registry.consortium else ", in no consortium"),
    )


def _registry(picture: Picture) -> Line:
    registry = picture.answer.federation.registry
    line = [Cell("registry "), state_cell(look_of(registry.state))]
    if registry.state != "none":
        line.append(cell(f", {registry.sites} institutions"))
    elif registry.detail:
        line.append(cell(f", {registry.detail}", Tone.FAINT))
    if registry.expires_at is not None:
        line.append(Cell(f", {until(registry.expires_at, picture.now)}"))
    return tuple(line)


def _node(picture: Picture) -> Line:
    status, leases = picture.answer.status, len(picture.answer.leases)
    cache = status.cache
    memory = (
        Cell(f"weight cache {size(cache.used_bytes)} of {size(cache.budget_bytes)}")
        if cache.up
        else Cell("weight cache ■ down, it is being started again", Tone.BAD)
    )
    spares = cell(f", spares {status.spares.ready} of {status.spares.wanted}")
    return memory, spares, Cell(f", {leases} {'lease' if leases == 1 else 'leases'}")


def _devices(devices: tuple[DeviceView, ...]) -> str:
    lent = [device for device in devices if device.state != "off"]
    used = sum(device.state == "leased" for device in lent)
    if not devices:
        return "none"
    if not lent:
        return f"{len(devices)} off, none lent"
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(one.kind for one in lent).most_common())
    return f"{used} of {len(lent)} used ({kinds})"
