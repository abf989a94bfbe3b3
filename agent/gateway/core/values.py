"""Frozen values with some of their fields changed, faster than ``dataclasses.replace``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

V = TypeVar("V")


def altered(value: V, **changes: object) -> V:
    """Return a value with other fields, as ``replace`` does it; its fields all go in by place."""
    kind: Any = type(value)
    read, places = _read(kind)
    parts = list(read(value))
    for name, part in changes.items():
        parts[places[name]] = part
    changed: V = kind(*parts)
    return changed


@cache
def _read(kind: type) -> tuple[Callable[[object], tuple[Any, ...]], dict[str, int]]:
    names = [one.name for one in fields(kind) if one.init]
    return attrgetter(*names), {name: at for at, name in enumerate(names)}
