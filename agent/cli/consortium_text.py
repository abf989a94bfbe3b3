"""What the commands of ``consortium`` say: a site's request, a registry's members."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from agent.cli.output import data, data_json, table, talk
from agent.cli.schema import SCHEMA, Document
from agent.text import format_size
from federation.registry.documents import SiteDocument
from federation.registry.membership import Membership, PolicyText
from federation.registry.request import authority_fingerprint, receipts_fingerprint


def registry_document(membership: Membership) -> Document:
    """Return what ``consortium show --json`` prints."""
    return {"schema": SCHEMA, **asdict(replace(membership, policies=())), "policies": _versions(membership)}


def policies_document(membership: Membership, *, now_s: float) -> Document:
    """Return what ``consortium policy show --json`` prints."""
    now = in_force(membership, now_s)
    return {
        "schema": SCHEMA,
        "consortium": membership.consortium,
        "in_force": None if now is None else now.version,
        "policies": _versions(membership),
        "auditors": [asdict(one) for one in membership.auditors],
        "faults": {name: fault for name, fault in membership.faults.items() if "/" in name},
    }


def in_force(membership: Membership, now_s: float) -> PolicyText | None:
    """Return the version that is in force at a time; ``None`` before the first."""
    begun = [one for one in membership.policies if one.effective_at_s <= now_s]
    return begun[-1] if begun else None


def list_policies(membership: Membership, *, now_s: float) -> None:
    """Print the versions and which is in force; say what is left out."""
    now = in_force(membership, now_s)
    rows = []
    for one in membership.policies:
        state = "in force" if one == now else "to come" if one.effective_at_s > now_s else "past"
        rows.append((str(one.version), state, _at(one.effective_at_s), one.digest[:12], str(len(one.data))))
    table(("VERSION", "STATE", "FROM", "DIGEST", "BYTES"), rows)
    for auditor in membership.auditors:
        data(f"auditor {auditor.name}")
    if not membership.policies:
        talk(f"{membership.consortium} has published no policy.")
    _say_faults(membership)


def said_policy(version: int, effective_at_s: int, *, published: bool, registry: Path, as_json: bool) -> None:
    """Print the version that was published; say from when on it is in force."""
    if as_json:
        fields = {"version": version, "effective_at": effective_at_s, "published": published}
        data_json({"schema": SCHEMA, **fields})
    else:
        data(str(version))
    _say_published(published=published, registry=registry)
    talk(f"version {version} is in force from {_at(effective_at_s)} on.")


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
    if membership.policies:
        data("policies  " + ", ".join(str(one.version) for one in membership.policies))
    _say_faults(membership)


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
    _say_published(published=published, registry=registry)


def _say_published(*, published: bool, registry: Path) -> None:
    if published:
        talk(f"{registry} is published: copy it to its web server, timestamp.json last.")
    else:
        talk("It is signed, but not published: the online key is not here.")
        talk(f"next, where it is: pyrdma-agent consortium publish --registry {registry} --keys DIR")


def _say_faults(membership: Membership) -> None:
    for name, fault in sorted(membership.faults.items()):
        talk(f"{name}: {fault}")


def _versions(membership: Membership) -> list[dict[str, object]]:
    return [
        {
            "version": one.version,
            "effective_at": one.effective_at_s,
            "digest": one.digest,
            "bytes": len(one.data),
        }
        for one in membership.policies
    ]


def _at(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M %Z}"
