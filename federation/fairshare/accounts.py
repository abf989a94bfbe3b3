"""Accounts by their paths: ``/institution``, ``/institution/group`` or ``/institution/group/project``."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from federation.errors import FederationInputError
from federation.identity.names import check_label

MAX_DEPTH: Final = 3
"""Institution, group, project."""


@lru_cache(maxsize=16384)
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


@lru_cache(maxsize=16384)
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


def seat(path: str) -> str:
    """Return the node of an account's own use and requests, beside those of the accounts below it."""
    return path + "/"


@lru_cache(maxsize=16384)
def nodes_of(path: str) -> tuple[str, ...]:
    """Return the nodes that an account's use counts in: from the institution to the account, and its seat."""
    return (*ancestors(path), path + "/")


def parent_of(node: str) -> str:
    """Return the node above another; above institutions is the empty root."""
    return node.rpartition("/")[0]
