"""The registry's high-water marks in the state file: where no emptied cache and no older copy of it reaches.

The registry's client works in a thread of its own, hence methods that wait; they are not for the event loop.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from agent.state.file import StateFile, put
from federation.registry.marks import Mark

if TYPE_CHECKING:
    from sqlite_utils import Database


class RegistryMarks:
    """A ``federation.registry.marks.MarkStore``; raises ``StateError`` when the file fails."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    def load(self) -> dict[str, Mark]:
        """Return all marks by role; none at first."""
        rows = self._file.read_now(lambda db: list(db.table("registry_marks").rows))
        return {row["role"]: Mark(**row) for row in rows}

    def save(self, marks: dict[str, Mark]) -> None:
        """Keep all of them, durably, in one step, in place of the former."""

        def change(db: Database) -> None:
            db.execute("DELETE FROM registry_marks")
            for mark in marks.values():
                put(db, "registry_marks", "role", asdict(mark))

        self._file.write_now(change)
