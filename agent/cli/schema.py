"""The JSON that ``--json`` prints: ``{"schema": 1, ...}``, one function a command.

Within schema 1 keys are added, never renamed or removed; golden files in the tests hold that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from agent.local.device_views import OwnDeviceView
from agent.local.federation_views import FederationView, InviteView
from agent.local.views import GrantedView, LeaseView, ModelView, PublishedView, StatusView, TransferView

if TYPE_CHECKING:
    from agent.site.config import SiteConfig

SCHEMA: Final = 1
Document = dict[str, Any]


def status_document(view: StatusView) -> Document:
    """``status``."""
    return {"schema": SCHEMA, **asdict(view)}


def models_document(views: Iterable[ModelView]) -> Document:
    """``models``."""
    return {"schema": SCHEMA, "models": [asdict(view) for view in views]}


def leases_document(views: Iterable[LeaseView]) -> Document:
    """``leases``."""
    return {"schema": SCHEMA, "leases": [asdict(view) for view in views]}


def transfers_document(views: Iterable[TransferView]) -> Document:
    """``transfers``."""
    return {"schema": SCHEMA, "transfers": [asdict(view) for view in views]}


def federation_document(view: FederationView) -> Document:
    """``nodes``."""
    return {"schema": SCHEMA, **asdict(view)}


def devices_document(views: Iterable[OwnDeviceView], *, dry_run: bool = False) -> Document:
    """``devices`` and the commands that change them; ``dry_run``: they would be about these."""
    return {"schema": SCHEMA, "devices": [asdict(view) for view in views], "dry_run": dry_run}


def published_document(view: PublishedView, notes: Sequence[str]) -> Document:
    """``publish``."""
    return {"schema": SCHEMA, **asdict(view), "notes": list(notes)}


def granted_document(view: GrantedView, notes: Sequence[str]) -> Document:
    """``run``; phases become ``{"map_s": 0.004, ...}``."""
    start = asdict(view.start) | {"phases": {f"{one.name}_s": one.seconds for one in view.start.phases}}
    return {
        "schema": SCHEMA,
        "lease": asdict(view.lease),
        "endpoint": view.endpoint,
        "api_key": view.api_key,
        "start": start,
        "notes": list(notes),
    }


def stopped_document(view: LeaseView) -> Document:
    """``stop``."""
    return {"schema": SCHEMA, "lease": asdict(view)}


def site_document(config: SiteConfig, *, changed: bool, fingerprint: str, request: str = "") -> Document:
    """``init`` and ``join``: this node's place, and whether it is new; ``request`` is what ``init`` wrote."""
    return {
        "schema": SCHEMA,
        "site": config.site,
        "node": config.node,
        "role": config.role,
        "address": config.address,
        "gateway": config.gateway_node,
        "changed": changed,
        "fingerprint": fingerprint,
        "request": request,
    }


def invite_document(view: InviteView, node: str) -> Document:
    """``invite create``."""
    return {"schema": SCHEMA, "node": node, "invite": view.text, "expires_at": view.expires_at}


def left_document(site: str, node: str, sentence: str) -> Document:
    """``leave``; the site and the node are empty when there was none to leave."""
    return {"schema": SCHEMA, "site": site, "node": node, "sentence": sentence}
