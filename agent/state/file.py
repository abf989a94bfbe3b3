"""The state file's one connection, in one thread of its own, so that the event loop never waits for a disk.

Rules: every change is one transaction, committed before the call returns; a failed one raises, changes
nothing, and stays readable as ``fault`` until a later one succeeds. What stands in the file is the
stores' matter.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agent.errors import StateError
from agent.state.migrations import check_form, migrate
from agent.state.sqlite import connect, connect_to_read, describe, refuse_network_file_system

if TYPE_CHECKING:
    from sqlite_utils import Database

_T = TypeVar("_T")


class StateFile:
    """One open file. Use ``await StateFile.open(path)``; every method raises ``StateError`` when it fails.

    ``read`` and ``write`` are for the event loop; ``read_now`` and ``write_now`` are for other threads, which
    they stop until the file's thread has answered.
    """

    def __init__(self, path: Path, thread: ThreadPoolExecutor, db: Database) -> None:
        self._path = path
        self._thread = thread
        self._db = db
        self.fault = ""
        """Why the last write failed; empty when it did not."""

    @classmethod
    async def open(cls, path: Path) -> StateFile:
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

    @classmethod
    async def look(cls, path: Path) -> StateFile:
        """Open the file to read only, also while an agent writes to it; nothing in it is changed.

        Raises:
            StateError: there is none, it is not ours, or of another form than this version's.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="state")

        def opened() -> Database:
            db = connect_to_read(path)
            try:
                check_form(db, str(path))
            except BaseException:
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

    async def read(self, read: Callable[[Database], _T]) -> _T:
        """Return what the function reads."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._reading, read)

    async def write(
        self, change: Callable[[Database], _T], *, after: Callable[[_T], None] | None = None
    ) -> _T:
        """Carry out a change in one transaction; whatever it raises takes it back.

        ``after`` gets its result once it is committed, in the file's thread, even if nobody waits any more.
        """

        def work() -> _T:
            result = self._writing(change)
            if after is not None:
                after(result)
            return result

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def read_now(self, read: Callable[[Database], _T]) -> _T:
        """Return what the function reads; not for the event loop."""
        return self._thread.submit(self._reading, read).result()

    def write_now(self, change: Callable[[Database], _T]) -> _T:
        """Carry out a change in one transaction; not for the event loop."""
        return self._thread.submit(self._writing, change).result()

    def _reading(self, read: Callable[[Database], _T]) -> _T:
        try:
            return read(self._db)
        except sqlite3.Error as error:
            raise describe(error, self._path) from error

    def _writing(self, change: Callable[[Database], _T]) -> _T:
        try:
            with self._db.atomic():
                result = change(self._db)
        except sqlite3.Error as error:
            fault = describe(error, self._path)
            self.fault = fault.message
            raise fault from error
        self.fault = ""
        return result


def put(db: Database, table: str, key: str, row: dict[str, Any]) -> None:
    """Write a row, new or changed; its columns are the table's."""
    # Not sqlite-utils' upsert: on a full disk its probe for the feature fails and the write is silently lost.
    columns = ", ".join(row)
    marks = ", ".join(f":{name}" for name in row)
    changes = ", ".join(f"{name} = excluded.{name}" for name in row if name != key)
    db.execute(
        f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {changes}",  # noqa: S608 - our own names
        row,
    )
