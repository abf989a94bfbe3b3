"""The state file: one connection in one thread of its own, so that the event loop never waits for a disk.

Rules: every change is committed before the call returns; a failed write raises, changes nothing, and stays
readable as ``fault`` until a later write succeeds. Nothing here decides; it keeps and returns records.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agent.errors import StateError
from agent.limits import MAX_LEASES_LISTED
from agent.state.migrations import migrate
from agent.state.records import LeaseRecord, NameRecord
from agent.state.sqlite import connect, describe, refuse_network_file_system
from pyrdma.image.manifest import ImageId, Manifest

if TYPE_CHECKING:
    from sqlite_utils import Database

_T = TypeVar("_T")


class Store:
    """Names, manifests and leases of one node.

    Use ``await Store.open(path)``; every method raises ``StateError`` when the file fails.
    """

    def __init__(self, path: Path, thread: ThreadPoolExecutor, db: Database) -> None:
        self._path = path
        self._thread = thread
        self._db = db
        self.fault = ""
        """Why the last write failed; empty when it did not."""

    @classmethod
    async def open(cls, path: Path) -> Store:
        """Open, check and migrate the file.

        Raises:
            StateError: damaged, newer than this agent, not writable, or on a network file system.
        """
        refuse_network_file_system(path.parent.resolve(), Path("/proc/self/mountinfo").read_text())
        thread = ThreadPoolExecutor(1, thread_name_prefix="state")

        def opened() -> Database:
            db = connect(path)
            try:
                migrate(db, str(path))
            except sqlite3.Error as error:
                db.close()
                raise describe(error, path) from error
            except StateError:
                db.close()
                raise
            return db

        try:
            db = await asyncio.get_running_loop().run_in_executor(thread, opened)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(path, thread, db)

    async def close(self) -> None:
        """Finish what is under way and close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
        self._thread.shutdown()

    async def bind_name(self, record: NameRecord, manifest: Manifest) -> ImageId | None:
        """Bind a name to an image, whose manifest is kept; return the image that it stood for before."""

        def change(db: Database) -> ImageId | None:
            row = db.execute("SELECT image_id FROM names WHERE name = ?", [record.name]).fetchone()
            _put(db, "manifests", "image_id", {"image_id": record.image_id, "bytes": manifest.encode()})
            _put(db, "names", "name", asdict(record))
            db.execute("DELETE FROM manifests WHERE image_id NOT IN (SELECT image_id FROM names)")
            return ImageId(row[0]) if row else None

        return await self._write(change)

    async def names(self) -> list[NameRecord]:
        """Return every binding, by name."""
        return await self._read(
            lambda db: [_name(row) for row in db.table("names").rows_where(order_by="name")]
        )

    async def name(self, name: str) -> NameRecord | None:
        """Return the binding of a name."""
        rows = await self._read(lambda db: list(db.table("names").rows_where("name = ?", [name])))
        return _name(rows[0]) if rows else None

    async def names_of(self, image_id: ImageId) -> list[NameRecord]:
        """Return the bindings to an image."""
        rows = await self._read(
            lambda db: list(db.table("names").rows_where("image_id = ?", [bytes(image_id)], order_by="name"))
        )
        return [_name(row) for row in rows]

    async def manifest(self, image_id: ImageId) -> Manifest | None:
        """Return an image's manifest, checked by its id."""
        row = await self._read(
            lambda db: db.execute(
                "SELECT bytes FROM manifests WHERE image_id = ?", [bytes(image_id)]
            ).fetchone()
        )
        return Manifest.decode(row[0], expect=image_id) if row else None

    async def put_lease(self, record: LeaseRecord) -> None:
        """Write a lease, new or changed."""
        await self._write(lambda db: _put(db, "leases", "id", asdict(record)))

    async def leases(self, *, include_ended: bool) -> list[LeaseRecord]:
        """Return leases, newest first, at most ``MAX_LEASES_LISTED``."""
        where = None if include_ended else "ended_at IS NULL"
        rows = await self._read(
            lambda db: list(
                db.table("leases").rows_where(where, order_by="created_at DESC, id", limit=MAX_LEASES_LISTED)
            )
        )
        return [_lease(row) for row in rows]

    async def end_open_leases(self, reason: str, now: float) -> int:
        """End the leases that an agent before this one left open; return how many."""

        def change(db: Database) -> int:
            ended = db.execute(
                "UPDATE leases SET state = 'ended', ended_at = ?, reason = ?, port = NULL"
                " WHERE ended_at IS NULL",
                [now, reason],
            )
            return int(ended.rowcount)

        return await self._write(change)

    async def _read(self, read: Callable[[Database], _T]) -> _T:
        def work() -> _T:
            try:
                return read(self._db)
            except sqlite3.Error as error:
                raise describe(error, self._path) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _write(self, change: Callable[[Database], _T]) -> _T:
        def work() -> _T:
            try:
                with self._db.atomic():
                    result = change(self._db)
            except sqlite3.Error as error:
                fault = describe(error, self._path)
                self.fault = fault.message
                raise fault from error
            self.fault = ""
            return result

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _put(db: Database, table: str, key: str, row: dict[str, Any]) -> None:
    # Not sqlite-utils' upsert: on a full disk its probe for the feature fails and the write is silently lost.
    columns = ", ".join(row)
    marks = ", ".join(f":{name}" for name in row)
    changes = ", ".join(f"{name} = excluded.{name}" for name in row)
    db.execute(
        f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {changes}",  # noqa: S608 - our own names
        row,
    )


def _name(row: dict[str, Any]) -> NameRecord:
    return NameRecord(row["name"], ImageId(row["image_id"]), row["folder"], row["bound_at"])


def _lease(row: dict[str, Any]) -> LeaseRecord:
    return LeaseRecord(**{**row, "image_id": ImageId(row["image_id"])})
