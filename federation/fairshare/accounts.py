"""Accounts by their paths: ``/institution``, ``/institution/group`` or ``/institution/group/project``."""

from __future__ import annotations

from typing import Final

from federation.errors import FederationInputError
from federation.identity.names import check_label

MAX_DEPTH: Final = 3
"""Institution, group, project."""


def check_account(text: str) -> str:
    """Return an account's path.

    Raises:
        FederationInputError: it is none.
    """
    root, *labels = text.split("/", MAX_DEPTH + 1)
    if root or not 1 <= len(labels) <= MAX_DEPTH:
        raise FederationInputError(
            "an account is a path of one to three names, each after a slash.",
            fix="write /institution, /institution/group or /institution/group/project",
        )
    for label in labels:
        check_label(label, "account")
    return text


def ancestors(path: str) -> tuple[str, ...]:
    """Return the paths from the institution down to the account itself."""
    labels = path.split("/")[1:]
    return tuple("/" + "/".join(labels[: depth + 1]) for depth in range(len(labels)))


def institution(path: str) -> str:
    """Return the first name of an account's path."""
    return path.split("/", 2)[1]


def is_within(path: str, prefix: str) -> bool:
    """Say whether an account is another one, or below it."""
    return path == prefix or path.startswith(prefix + "/")
