"""The highest that was seen of each signed file, so that nobody can show an older registry.

TUF protects against that with its cache; a cache that was emptied or restored protects nothing. These marks
are kept elsewhere, by the agent in its state. Rules, all pure:

- a role's version never falls; one version has one content;
- the signed time of issue never falls;
- no time before the last verified refresh is believed, so that a clock set back revives nothing;
- when the keys of a role change, its count begins anew: a stolen key could have counted to the end, and
  changing it must repair that. The root's count never begins anew.

The clock's own mark rises with verified refreshes alone, so a clock that jumps ahead cannot poison it further
than a registry lives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from federation.errors import RegistryRollbackError

CLOCK: Final = "clock"
_TIMESTAMP: Final = "timestamp@"


@dataclass(frozen=True, slots=True)
class Mark:
    """The highest of one role: ``digest`` in hex of its signed part, ``issued_at`` in Unix seconds or 0.

    ``role`` is the name of the line that ``line`` returns, and the key under which a store keeps it.
    """

    role: str
    version: int
    digest: str
    issued_at: int


class MarkStore(Protocol):
    """Where marks outlive the process."""

    def load(self) -> dict[str, Mark]:
        """Return all marks by role; none at first."""
        ...

    def save(self, marks: dict[str, Mark]) -> None:
        """Keep all of them, durably, in one step, in place of the former."""
        ...


class MemoryMarks:
    """Marks of one process: for looking at a registry once."""

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}

    def load(self) -> dict[str, Mark]:
        """Return all marks by role."""
        return dict(self._marks)

    def save(self, marks: dict[str, Mark]) -> None:
        """Keep all of them."""
        self._marks = dict(marks)


def line(role: str, keyids: Collection[str]) -> str:
    """Return the name under which a role with these keys is counted."""
    digest = hashlib.sha256("\n".join(sorted(keyids)).encode()).hexdigest()
    return f"{role}@{digest[:16]}"


def check(before: Mapping[str, Mark], after: Mapping[str, Mark]) -> None:
    """Refuse a registry that is behind what was seen.

    Raises:
        RegistryRollbackError: a version fell, one version has two contents, or the time of issue went back.
    """
    for role, new in after.items():
        old = before.get(role)
        name = role.partition("@")[0]
        if old is None:
            continue
        if new.version < old.version:
            raise _rollback(f"{name} has version {new.version}, and version {old.version} was seen here")
        if new.version == old.version and new.digest != old.digest:
            raise _rollback(f"{name} has another content than version {old.version} had before")
    newest = _issued(before)
    if any(role.startswith(_TIMESTAMP) and mark.issued_at < newest for role, mark in after.items()):
        raise _rollback("it was signed before the one that was seen here")


def advance(before: Mapping[str, Mark], after: Mapping[str, Mark], *, now_s: float) -> dict[str, Mark]:
    """Return the marks after a verified refresh at this time."""
    at = int(floor(before, now_s))
    return {**before, **after, CLOCK: Mark(CLOCK, at, "", at)}


def floor(marks: Mapping[str, Mark], now_s: float) -> float:
    """Return the time to judge by: now, but never before what was seen."""
    return max(now_s, refreshed_at(marks) or 0.0, _issued(marks))


def refreshed_at(marks: Mapping[str, Mark]) -> float | None:
    """Return when the last verified refresh was; ``None`` before the first."""
    clock = marks.get(CLOCK)
    return None if clock is None else float(clock.issued_at)


def _issued(marks: Mapping[str, Mark]) -> int:
    return max((mark.issued_at for role, mark in marks.items() if role.startswith(_TIMESTAMP)), default=0)


def _rollback(what: str) -> RegistryRollbackError:
    return RegistryRollbackError(
        f"the registry is older than the one known here: {what}.",
        fix="ask the registry's publisher; a mirror that is only late heals by itself",
    )
