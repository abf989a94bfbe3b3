"""Numbered changes of the state file's form; each runs once, in one transaction with its number.

A migration that is released is never edited. ``user_version`` holds the number of the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from agent.errors import StateError
from agent.state.sqlite import APPLICATION_ID

if TYPE_CHECKING:
    from sqlite_utils import Database


def _first(db: Database) -> None:
    db.table("manifests").create({"image_id": bytes, "bytes": bytes}, pk="image_id", not_null={"bytes"})
    db.table("names").create(
        {"name": str, "image_id": bytes, "folder": str, "bound_at": float},
        pk="name",
        not_null={"image_id", "folder", "bound_at"},
        foreign_keys=[("image_id", "manifests", "image_id")],
    )
    db.table("leases").create(
        {
            "id": str,
            "model": str,
            "image_id": bytes,
            "state": str,
            "created_at": float,
            "ended_at": float,
            "reason": str,
            "port": int,
            "key_digest": bytes,
        },
        pk="id",
        not_null={"model", "image_id", "state", "created_at", "reason", "key_digest"},
    )
    db.table("leases").create_index(["ended_at"])


MIGRATIONS: Final[tuple[Callable[[Database], None], ...]] = (_first,)


def migrate(db: Database, path: str) -> None:
    """Bring the file to the newest form.

    Raises:
        StateError: a newer agent wrote it.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StateError(
            f"the state file {path} was written by a newer agent: it has form {version}, "
            f"this agent knows {len(MIGRATIONS)}.",
            fix="run that agent, or name another directory with --state-dir",
        )
    for number, change in enumerate(MIGRATIONS[version:], start=version + 1):
        with db.atomic():
            change(db)
            db.conn.execute(f"PRAGMA application_id={APPLICATION_ID}")
            db.conn.execute(f"PRAGMA user_version={number}")
