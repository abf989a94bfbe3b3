"""``pyrdma-agent nodes``."""

from __future__ import annotations

import click

from agent.cli.options import Paths, json_option, paths_options
from agent.cli.policy_state import policy_line
from agent.local.federation_views import FederationView, NodeView, SiteView


@click.command(short_help="List the sites of the consortium and the nodes of this one.")
@click.option("--refresh", is_flag=True, help="Read the registry and ask every site now.")
@json_option
@paths_options
def nodes(*, refresh: bool, as_json: bool, paths: Paths) -> None:
    """List the sites of the consortium and the nodes of this one, with their devices."""
    import asyncio

    from agent.cli.output import data, data_json, table, talk
    from agent.cli.schema import federation_document
    from agent.local.client import AgentClient

    async def ask() -> FederationView:
        async with AgentClient(paths, change=refresh) as client:
            return await (client.refresh() if refresh else client.federation())

    view = asyncio.run(ask())
    if as_json:
        data_json(federation_document(view))
        return
    if not view.site:
        talk(f"{view.node} belongs to no site.")
        talk("next: pyrdma-agent init --site NAME, or: pyrdma-agent join --invite-file FILE")
        return
    registry = view.registry
    data(f"{view.node} is {'the gateway' if view.role == 'gateway' else 'a node'} of {view.site}")
    data(f"registry  {registry.consortium or '-'}: {registry.state}{_because(registry.detail)}")
    data(f"policy    {policy_line(view.policy)}")
    table(
        ("SITE", "STATE", "DEVICES", "LEASED", "NODES", "IMAGES", "HEARD", "GATEWAY"), map_sites(view.sites)
    )
    table(("NODE", "ROLE", "STATE", "DEVICES", "LEASED", "IMAGES", "HEARD", "ADDRESS"), map_nodes(view.nodes))
    for site in view.sites:
        if site.fault:
            talk(f"{site.name}: {site.fault}")
        if site.egress_left_permille is not None:
            left = site.egress_left_permille / 10
            talk(f"{site.name}: {left:.0f} % left of the images that it may send today")
        if site.carbon_g_per_kwh is not None:
            talk(f"{site.name}: {site.carbon_g_per_kwh} g of CO2 per kWh in this hour")
    for fault in view.policy.faults:
        talk(f"policy: {fault}")


def map_sites(sites: tuple[SiteView, ...]) -> list[tuple[str, ...]]:
    """Return a row for each site."""
    return [
        (
            f"{site.name}{' (own)' if site.local else ''}",
            site.state,
            str(site.devices),
            str(site.leased),
            str(site.nodes),
            str(site.images),
            _age(site.age_s),
            site.address,
        )
        for site in sites
    ]


def map_nodes(nodes: tuple[NodeView, ...]) -> list[tuple[str, ...]]:
    """Return a row for each node."""
    return [
        (
            node.name,
            node.role,
            node.state,
            str(len(node.devices)),
            str(sum(device.state == "leased" for device in node.devices)),
            str(node.images),
            _age(node.age_s),
            node.address,
        )
        for node in nodes
    ]


def _age(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.0f} s ago"


def _because(detail: str) -> str:
    return f" ({detail})" if detail else ""
