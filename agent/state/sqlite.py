"""The connection to the state file, with the settings that keep it whole.

Rules: WAL only where SQLite's WAL reset bug is fixed, else a rollback journal; every commit is synced; schema
code in the file is not trusted; a file on a network file system is refused, since locks and syncs lie there.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.errors import StateError

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID: Final = 0x70724D41
"""Written into the file's header, so that another program's database is never migrated by ours."""
_BUSY_TIMEOUT_MS: Final = 5000
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"}
    | {"ocfs2", "smb3", "smbfs", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs"}
)


def wal_is_safe(version: tuple[int, int, int]) -> bool:
    """Say whether this SQLite has the fix of the WAL reset bug (3.51.3, 3.50.7, 3.44.6)."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)


def file_system_of(path: Path, mountinfo: str) -> str:
    """Return the type of the file system that holds the path, given the text of ``/proc/self/mountinfo``."""
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        fields, separator, rest = line.partition(" - ")
        parts = fields.split()
        if not separator or len(parts) < 5:
            continue
        point = Path(parts[4].encode().decode("unicode_escape"))
        # The last mount on one point hides the ones before it, hence >=.
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), rest.split()[0]
    return kind


def refuse_network_file_system(path: Path, mountinfo: str) -> None:
    """Refuse a path on a network file system.

    Raises:
        StateError: it lies on one.
    """
    kind = file_system_of(path, mountinfo)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise StateError(
            f"the state directory {path} lies on a network file system ({kind}), where SQLite is not safe.",
            fix="name a directory on a local disk with --state-dir",
        )


def connect(path: Path) -> Database:
    """Open or create the file, for the one thread that calls.

    Raises:
        StateError: it is damaged, not ours, or cannot be opened or written.
    """
    database_class = _database_class()
    try:
        # autocommit through isolation_level: sqlite-utils' atomic() opens each transaction itself.
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_MS / 1000, isolation_level=None)
        path.chmod(0o600)
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        connection.execute("PRAGMA foreign_keys=ON")
        _refuse_damage(connection, path)
        journal = "WAL" if wal_is_safe(sqlite3.sqlite_version_info) else "DELETE"
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("PRAGMA synchronous=FULL")
        return database_class(connection, execute_plugins=False)
    except (sqlite3.Error, OSError) as error:
        raise describe(error, path) from error


def connect_to_read(path: Path) -> Database:
    """Open the file so that nothing in it can be changed, for the one thread that calls.

    Raises:
        StateError: there is none, it is not ours, or cannot be read.
    """
    database_class = _database_class()
    try:
        place = f"{path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(place, uri=True, timeout=_BUSY_TIMEOUT_MS / 1000, isolation_level=None)
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA query_only=ON")
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
    except sqlite3.Error as error:
        raise describe(error, path) from error
    if owner != APPLICATION_ID:
        connection.close()
        raise StateError(f"{path} is no state file of an agent.", fix="name its directory with --state-dir")
    return database_class(connection, execute_plugins=False)


def describe(error: sqlite3.Error | OSError, path: Path) -> StateError:
    """Return the sentence for a failure of the file."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return _damaged(path, str(error))
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return StateError(
            f"the state file {path} could not be written: {error}.",
            fix="free space on its disk, then try again; nothing was changed",
        )
    return StateError(
        f"the state file {path} cannot be opened or written: {error}.",
        fix="make it and its directory writable for the user that runs the agent",
    )


def _refuse_damage(connection: sqlite3.Connection, path: Path) -> None:
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if owner != APPLICATION_ID and (owner or tables):
        raise StateError(
            f"the file {path} is another program's database.", fix="name another directory with --state-dir"
        )
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, verdict)


def _damaged(path: Path, detail: str) -> StateError:
    return StateError(
        f"the state file {path} is damaged: {detail}.",
        fix="move it away and start again; models on disk can be published again, running leases are lost",
    )


def _database_class() -> type[Database]:
    # sqlite-utils imports numpy and pandas where they are installed, only to know their types as columns.
    hidden = [name for name in ("numpy", "pandas") if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        from sqlite_utils import Database
    finally:
        for name in hidden:
            del sys.modules[name]
    database_class: type[Database] = Database
    return database_class
