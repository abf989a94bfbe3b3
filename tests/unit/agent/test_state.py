"""The state file: what it keeps, and what it refuses."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from blake3 import blake3

from agent.errors import StateError
from agent.state import LeaseRecord, NameRecord, StateFile, Store
from agent.state.migrations import MIGRATIONS
from agent.state.sqlite import file_system_of, refuse_network_file_system, wal_is_safe
from pyrdma.image import Layout, Manifest, TensorSpan
from pyrdma.limits import PIECE_BYTES

T = TypeVar("T")


def _manifest(name: str) -> Manifest:
    layout = Layout((TensorSpan(name, "F32", (64,), 0, 256),), (), 256, PIECE_BYTES)
    return Manifest(layout, (blake3(name.encode()).digest(),))


def _lease(key: str, image: Manifest, created_at: float = 1.0) -> LeaseRecord:
    return LeaseRecord(key, "m", image.image_id, "active", created_at, None, "", 4000, b"\x07" * 32)


def _with(path: Path, work: Callable[[Store], Awaitable[T]]) -> T:
    async def run() -> T:
        file = await StateFile.open(path)
        try:
            return await work(Store(file))
        finally:
            await file.close()

    return asyncio.run(run())


def test_a_binding_is_there_after_the_agent_starts_again(tmp_path: Path) -> None:
    """Name, folder and manifest survive, byte for byte."""
    one = _manifest("a")
    record = NameRecord("m", one.image_id, "/folder", 5.0)
    _with(tmp_path / "s", lambda store: store.bind_name(record, one))

    async def read(store: Store) -> tuple[object, ...]:
        return await store.name("m"), await store.names_of(one.image_id), await store.manifest(one.image_id)

    name, names, manifest = _with(tmp_path / "s", read)
    assert (name, names, manifest) == (record, [record], one)


def test_binding_a_name_again_says_what_it_stood_for_and_forgets_it(tmp_path: Path) -> None:
    """No manifest stays that no name needs; one that another name needs does."""
    one, two = _manifest("a"), _manifest("b")

    async def work(store: Store) -> None:
        assert await store.bind_name(NameRecord("m", one.image_id, "", 1.0), one) is None
        assert await store.bind_name(NameRecord("n", one.image_id, "", 1.0), one) is None
        assert await store.bind_name(NameRecord("m", two.image_id, "", 2.0), two) == one.image_id
        assert await store.manifest(one.image_id) == one
        await store.bind_name(NameRecord("n", two.image_id, "", 2.0), two)
        assert await store.manifest(one.image_id) is None

    _with(tmp_path / "s", work)


def test_leases_are_listed_newest_first_and_closed_after_a_crash(tmp_path: Path) -> None:
    """What an agent that was killed left open is ended with a reason at the next start."""
    image = _manifest("a")
    old, new = _lease("old", image, 1.0), _lease("new", image, 2.0)

    async def crash(store: Store) -> None:
        await store.put_lease(old)
        await store.put_lease(new)
        await store.put_lease(replace(old, state="ended", ended_at=3.0, reason="stopped"))

    _with(tmp_path / "s", crash)

    async def after(store: Store) -> None:
        assert await store.leases(include_ended=False) == [new]
        assert await store.end_open_leases("gone", 9.0) == 1
        ended = await store.leases(include_ended=True)
        assert [(lease.id, lease.reason) for lease in ended] == [("new", "gone"), ("old", "stopped")]

    _with(tmp_path / "s", after)


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """It names folders and holds key digests."""
    _with(tmp_path / "s", lambda store: store.names())
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


def test_every_commit_is_synced_and_the_journal_is_safe_for_this_sqlite(tmp_path: Path) -> None:
    """The settings are the ones that the version needs."""

    async def look(store: Store) -> tuple[str, int]:
        return await store._file.read(
            lambda db: (
                db.execute("PRAGMA journal_mode").fetchone()[0],
                db.execute("PRAGMA synchronous").fetchone()[0],
            )
        )

    journal, synchronous = _with(tmp_path / "s", look)
    assert journal == ("wal" if wal_is_safe(sqlite3.sqlite_version_info) else "delete")
    assert synchronous == 2


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        *[((3, 40, 1), False), ((3, 45, 0), False), ((3, 51, 2), False)],
        *[((3, 44, 6), True), ((3, 50, 7), True), ((3, 51, 3), True), ((3, 54, 1), True)],
    ],
)
def test_wal_is_used_only_where_its_reset_bug_is_fixed(version: tuple[int, int, int], safe: bool) -> None:
    """The fix was made in three branches."""
    assert wal_is_safe(version) is safe


def _expect_refusal(path: Path, sentence: str) -> None:
    before = path.read_bytes()
    with pytest.raises(StateError, match=sentence) as caught:
        _with(path, lambda store: store.names())
    assert caught.value.fix
    assert path.read_bytes() == before, "a file that is refused is left as it was"


def test_a_file_that_is_no_database_is_refused_with_a_fix(tmp_path: Path) -> None:
    """And it is not overwritten."""
    (tmp_path / "s").write_bytes(b"not a database at all" * 100)
    _expect_refusal(tmp_path / "s", "is damaged")


def test_a_damaged_database_is_refused_with_a_fix(tmp_path: Path) -> None:
    """Damage inside the file is found at the start, not in the middle of a lease."""
    path = tmp_path / "s"
    image = _manifest("a")

    async def fill(store: Store) -> None:
        for number in range(200):
            await store.put_lease(_lease(f"{number:0200}", image))

    _with(path, fill)
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    path.write_bytes(data)
    _expect_refusal(path, "is damaged")


def test_a_file_of_a_newer_agent_is_refused_with_a_fix(tmp_path: Path) -> None:
    """A downgrade must not guess."""
    path = tmp_path / "s"
    _with(path, lambda store: store.names())
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    db.close()
    _expect_refusal(path, "newer agent")


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """Its tables are not ours to migrate."""
    path = tmp_path / "s"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()
    _expect_refusal(path, "another program")


def test_a_place_that_cannot_be_written_is_said_with_a_fix(tmp_path: Path) -> None:
    """A directory in the file's place stands for every way in which opening fails."""
    (tmp_path / "s").mkdir()
    with pytest.raises(StateError, match="cannot be opened or written") as caught:
        _with(tmp_path / "s", lambda store: store.names())
    assert "writable" in caught.value.fix


def test_a_full_disk_refuses_the_write_says_so_and_heals(tmp_path: Path) -> None:
    """The fault is shown until a write succeeds; reads go on; nothing half-written stays."""
    image = _manifest("a")

    async def work(store: Store) -> None:
        (pages,) = await store._file.read(lambda db: db.execute("PRAGMA page_count").fetchone())
        await store._file.read(lambda db: db.execute(f"PRAGMA max_page_count={pages}").fetchone())

        async def fill() -> None:
            for number in range(1000):
                await store.put_lease(_lease(f"{number:0500}", image))

        with pytest.raises(StateError, match="could not be written"):
            await fill()
        assert store.fault
        kept = len(await store.leases(include_ended=True))
        await store._file.read(lambda db: db.execute("PRAGMA max_page_count=100000").fetchone())
        await store.put_lease(_lease("after", image))
        assert not store.fault
        assert len(await store.leases(include_ended=True)) == kept + 1

    _with(tmp_path / "s", work)


MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:5 / /srv rw - nfs4 host:/export rw
31 30 0:6 / /srv/local\\040disk rw - xfs /dev/vdb rw
32 22 0:7 / /over rw - ext4 /dev/vdc rw
33 22 0:8 / /over rw - cifs //host/share rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/a", "ext4"),
        ("/srv/a", "nfs4"),
        ("/srv/local disk/a", "xfs"),
        ("/srvx", "ext4"),
        ("/over/a", "cifs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_its_nearest_mount(path: str, kind: str) -> None:
    """Nested mounts, escaped blanks and a mount over a mount."""
    assert file_system_of(Path(path), MOUNTS) == kind


def test_a_network_file_system_is_refused_with_a_fix() -> None:
    """SQLite's locks do not hold there."""
    with pytest.raises(StateError, match="nfs4") as caught:
        refuse_network_file_system(Path("/srv/a"), MOUNTS)
    assert "--state-dir" in caught.value.fix
    refuse_network_file_system(Path("/var/lib"), MOUNTS)


def test_no_api_key_is_in_the_file(tmp_path: Path) -> None:
    """The schema has no place for one: only the digest's column."""
    _with(tmp_path / "s", lambda store: store.put_lease(_lease("l", _manifest("a"), time.time())))
    with sqlite3.connect(tmp_path / "s") as db:
        columns = {row[1] for row in db.execute("PRAGMA table_info(leases)")}
    db.close()
    assert {name for name in columns if "key" in name} == {"key_digest"}
