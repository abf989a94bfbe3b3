"""What the commands of ``consortium`` say: a site's request, a registry's members."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from agent.cli.output import data, data_json, table, talk
from agent.cli.schema import SCHEMA, Document
from agent.text import format_size
from federation.registry.documents import SiteDocument
from federation.registry.membership import Membership
from federation.registry.request import authority_fingerprint, receipts_fingerprint


def registry_document(membership: Membership) -> Document:
    """Return what ``consortium show --json`` prints."""
    return {"schema": SCHEMA, **asdict(membership)}


def made_document(name: str, root_pin: bytes, *, registry: Path, keys: Path) -> Document:
    """Return what ``consortium init --json`` prints."""
    return {
        "schema": SCHEMA,
        "consortium": name,
        "root_pin": root_pin.hex(),
        "registry": str(registry),
        "keys": str(keys),
    }


def list_members(membership: Membership) -> None:
    """Print the members and their models; say what is left out."""
    until = datetime.fromtimestamp(membership.expires_at).astimezone()
    data(f"{membership.consortium}  version {membership.version}, valid until {until:%Y-%m-%d %H:%M %Z}")
    rows = [
        (site.site, site.trust_domain, site.region or "-", ", ".join(one.address for one in site.gateways))
        for site in membership.sites
    ]
    table(("SITE", "TRUST DOMAIN", "REGION", "GATEWAYS"), rows)
    if membership.models:
        models = sorted(membership.models.items())
        table(
            ("MODEL", "IMAGE", "SIZE"),
            [(name, one.image_id[:12], format_size(one.total_bytes)) for name, one in models],
        )
    for name, fault in sorted(membership.faults.items()):
        talk(f"{name}: {fault}")


def describe(asked: SiteDocument, present: SiteDocument | None) -> None:
    """Say what a site asks for, and what of it is new."""
    talk(f"site          {asked.site}" + (" (is a member)" if present else ""))
    talk(f"trust domain  {asked.trust_domain}")
    talk(f"region        {asked.region or '-'}")
    for gateway in asked.gateways:
        talk(f"gateway       {gateway.node} at {gateway.address}")
    for pem in asked.authorities:
        known = present is not None and pem in present.authorities
        talk(f"fingerprint   {authority_fingerprint(pem)}" + (" (as before)" if known else ""))
    if asked.receipts_key:
        known = present is not None and asked.receipts_key == present.receipts_key
        talk(f"receipts key  {receipts_fingerprint(asked.receipts_key)}" + (" (as before)" if known else ""))
    else:
        talk("receipts key  none: the site can neither lend nor borrow under a policy")


def say_changed(site: str, *, published: bool, registry: Path, as_json: bool) -> None:
    """Print the site that was changed; say whether members can see it, and what is left to do."""
    if as_json:
        data_json({"schema": SCHEMA, "site": site, "published": published})
    elif site:
        data(site)
    if published:
        talk(f"{registry} is published: copy it to its web server, timestamp.json last.")
    else:
        talk("It is signed, but not published: the online key is not here.")
        talk(f"next, where it is: pyrdma-agent consortium publish --registry {registry} --keys DIR")
