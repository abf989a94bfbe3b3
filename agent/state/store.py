"""Names, manifests and leases of one node, as they outlive the agent.

Nothing here decides; it keeps and returns records.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.limits import MAX_LEASES_LISTED
from agent.state.file import StateFile, put
from agent.state.records import LeaseRecord, NameRecord
from pyrdma.image.manifest import ImageId, Manifest

if TYPE_CHECKING:
    from sqlite_utils import Database


class Store:
    """Names, manifests and leases of one node; every method raises ``StateError`` when the file fails."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    @property
    def fault(self) -> str:
        """Why the last write to the file failed; empty when it did not."""
        return self._file.fault

    async def bind_name(self, record: NameRecord, manifest: Manifest) -> ImageId | None:
        """Bind a name to an image, whose manifest is kept; return the image that it stood for before."""

        def change(db: Database) -> ImageId | None:
            row = db.execute("SELECT image_id FROM names WHERE name = ?", [record.name]).fetchone()
            put(db, "manifests", "image_id", {"image_id": record.image_id, "bytes": manifest.encode()})
            put(db, "names", "name", asdict(record))
            db.execute("DELETE FROM manifests WHERE image_id NOT IN (SELECT image_id FROM names)")
            return ImageId(row[0]) if row else None

        return await self._file.write(change)

    async def names(self) -> list[NameRecord]:
        """Return every binding, by name."""
        return await self._file.read(
            lambda db: [_name(row) for row in db.table("names").rows_where(order_by="name")]
        )

    async def name(self, name: str) -> NameRecord | None:
        """Return the binding of a name."""
        rows = await self._file.read(lambda db: list(db.table("names").rows_where("name = ?", [name])))
        return _name(rows[0]) if rows else None

    async def names_of(self, image_id: ImageId) -> list[NameRecord]:
        """Return the bindings to an image."""
        rows = await self._file.read(
            lambda db: list(db.table("names").rows_where("image_id = ?", [bytes(image_id)], order_by="name"))
        )
        return [_name(row) for row in rows]

    async def manifest(self, image_id: ImageId) -> Manifest | None:
        """Return an image's manifest, checked by its id."""
        row = await self._file.read(
            lambda db: db.execute(
                "SELECT bytes FROM manifests WHERE image_id = ?", [bytes(image_id)]
            ).fetchone()
        )
        return Manifest.decode(row[0], expect=image_id) if row else None

    async def put_lease(self, record: LeaseRecord) -> None:
        """Write a lease, new or changed."""
        await self._file.write(lambda db: put(db, "leases", "id", asdict(record)))

    async def leases(self, *, include_ended: bool) -> list[LeaseRecord]:
        """Return leases, newest first, at most ``MAX_LEASES_LISTED``."""
        where = None if include_ended else "ended_at IS NULL"
        rows = await self._file.read(
            lambda db: list(
                db.table("leases").rows_where(where, order_by="created_at DESC, id", limit=MAX_LEASES_LISTED)
            )
        )
        return [_lease(row) for row in rows]

    async def lease(self, lease_id: str) -> LeaseRecord | None:
        """Return a lease."""
        rows = await self._file.read(lambda db: list(db.table("leases").rows_where("id = ?", [lease_id])))
        return _lease(rows[0]) if rows else None

    async def end_open_leases(self, reason: str, now: float) -> int:
        """End the leases that an agent before this one left open; return how many."""

        def change(db: Database) -> int:
            ended = db.execute(
                "UPDATE leases SET state = 'ended', ended_at = ?, reason = ?, port = NULL"
                " WHERE ended_at IS NULL",
                [now, reason],
            )
            return int(ended.rowcount)

        return await self._file.write(change)


def _name(row: dict[str, Any]) -> NameRecord:
    return NameRecord(row["name"], ImageId(row["image_id"]), row["folder"], row["bound_at"], row["licence"])


def _lease(row: dict[str, Any]) -> LeaseRecord:
    return LeaseRecord(**{**row, "image_id": ImageId(row["image_id"])})
