"""The JSON of ``whoami``, ``usage`` and ``token``; the rules are those of ``agent.cli.schema``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from agent.cli.schema import SCHEMA, Document
from agent.local.people_views import NewTokenView, TokenView, UsageView, WhoAmIView


def whoami_document(view: WhoAmIView) -> Document:
    """``whoami``."""
    return {"schema": SCHEMA, **asdict(view)}


def usage_document(view: UsageView) -> Document:
    """``usage``."""
    return {"schema": SCHEMA, **asdict(view)}


def token_document(view: NewTokenView, name: str) -> Document:
    """``token create``."""
    return {"schema": SCHEMA, "name": name, "token": view.text, "expires_at": view.expires_at}


def tokens_document(views: Iterable[TokenView]) -> Document:
    """``token list`` and ``token revoke``."""
    return {"schema": SCHEMA, "tokens": [asdict(view) for view in views]}
