"""The site's books in the state file, the registry's marks, and what an older file becomes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from blake3 import blake3

from agent.errors import StateError
from agent.state import (
    LeaseRecord,
    MemberRecord,
    NameRecord,
    Redemption,
    RegistryMarks,
    SiteLeaseRecord,
    SiteStore,
    StateFile,
    Store,
)
from agent.state.migrations import MIGRATIONS
from agent.state.sqlite import APPLICATION_ID, connect
from federation.errors import InviteUsedError
from federation.identity.admission import InviteRecord
from federation.registry.marks import Mark, MarkStore
from pyrdma.image import Layout, Manifest, TensorSpan
from pyrdma.image.manifest import ImageId
from pyrdma.limits import PIECE_BYTES

T = TypeVar("T")
TOKEN = b"\x01" * 8
INVITE = InviteRecord(TOKEN, b"\x02" * 32, "gpu07", 1000.0, None, None, "10.1.0.0/16")
MEMBER = MemberRecord("gpu07", 5.0, None, 86405.0)
USED = replace(INVITE, used_csr_sha256=b"\x03" * 32, certificate_pem=b"PEM")
LEASE = SiteLeaseRecord(
    id="l",
    side="lent",
    model="site/m",
    image_id=ImageId(b"\x07" * 32),
    total_bytes=20,
    borrower_site="uni-b",
    borrower_node="b1",
    donor_site="uni-a",
    node="gpu07",
    device="cuda:0",
    state="active",
    created_at=2.5,
    deadline_s=600.5,
    ttl_s=600.0,
    boot_id="boot",
    ended_at=None,
    reason="",
)


def _with(path: Path, work: Callable[[SiteStore], Awaitable[T]]) -> T:
    async def run() -> T:
        file = await StateFile.open(path)
        try:
            return await work(await SiteStore.of(file))
        finally:
            await file.close()

    return asyncio.run(run())


def _use(record: InviteRecord | None) -> Redemption:
    assert record is not None
    return Redemption(b"PEM", USED, MEMBER)


def test_an_invite_is_there_after_the_agent_starts_again(tmp_path: Path) -> None:
    """Every field, unused and used."""
    _with(tmp_path / "s", lambda store: store.put_invite(INVITE, now_s=0.0))
    assert _with(tmp_path / "s", lambda store: store.invite(TOKEN)) == INVITE
    assert _with(tmp_path / "s", lambda store: store.invite(b"\x09" * 8)) is None
    _with(tmp_path / "s", lambda store: store.redeem(TOKEN, _use))
    assert _with(tmp_path / "s", lambda store: store.invite(TOKEN)) == USED


def test_the_use_of_an_invite_makes_its_node_a_member_for_good(tmp_path: Path) -> None:
    """In this process and the next."""

    async def use(store: SiteStore) -> None:
        await store.put_invite(INVITE, now_s=0.0)
        assert not store.is_member("gpu07")
        await store.redeem(TOKEN, _use)
        assert store.is_member("gpu07")

    _with(tmp_path / "s", use)

    async def later(store: SiteStore) -> None:
        assert store.is_member("gpu07")
        assert store.members() == (MEMBER,)

    _with(tmp_path / "s", later)


def test_a_decision_that_refuses_changes_nothing(tmp_path: Path) -> None:
    """Neither the invite nor the list of members."""

    def refuse(record: InviteRecord | None) -> Redemption:
        raise InviteUsedError("No.")

    async def work(store: SiteStore) -> None:
        await store.put_invite(INVITE, now_s=0.0)
        with pytest.raises(InviteUsedError):
            await store.redeem(TOKEN, refuse)
        assert await store.invite(TOKEN) == INVITE
        assert store.members() == ()

    _with(tmp_path / "s", work)


def test_a_failed_write_takes_back_the_use_and_the_membership_together(tmp_path: Path) -> None:
    """A membership that cannot be written leaves the invite unused: both are one transaction."""

    def half(record: InviteRecord | None) -> Redemption:
        bad = replace(MEMBER, joined_at=None)  # type: ignore[arg-type] - the table refuses it, after the invite
        return Redemption(b"PEM", USED, bad)

    async def work(store: SiteStore) -> None:
        await store.put_invite(INVITE, now_s=0.0)
        with pytest.raises(StateError):
            await store.redeem(TOKEN, half)
        assert await store.invite(TOKEN) == INVITE
        assert not store.is_member("gpu07")

    _with(tmp_path / "s", work)


def test_of_many_uses_at_once_each_sees_what_the_one_before_did(tmp_path: Path) -> None:
    """The look and the write are one step: exactly one finds the invite unused."""
    seen: list[bool] = []

    def decide(record: InviteRecord | None) -> Redemption:
        assert record is not None
        seen.append(record.used_csr_sha256 is None)
        return Redemption(b"PEM", USED, MEMBER) if seen[-1] else Redemption(b"PEM")

    async def work(store: SiteStore) -> None:
        await store.put_invite(INVITE, now_s=0.0)
        await asyncio.gather(*(store.redeem(TOKEN, decide) for _ in range(50)))

    _with(tmp_path / "s", work)
    assert seen == [True] + [False] * 49


def test_a_join_whose_caller_has_gone_still_counts(tmp_path: Path) -> None:
    """The call is cancelled while the file works: what is committed is known without a restart."""
    begun, go_on = threading.Event(), threading.Event()

    def slowly(record: InviteRecord | None) -> Redemption:
        begun.set()
        assert go_on.wait(10)
        return _use(record)

    async def work(store: SiteStore) -> None:
        await store.put_invite(INVITE, now_s=0.0)
        task = asyncio.create_task(store.redeem(TOKEN, slowly))
        assert await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        go_on.set()
        assert await store.invite(TOKEN) == USED, "the next transaction comes after"
        assert store.is_member("gpu07")

    _with(tmp_path / "s", work)


def test_who_has_left_is_no_member_and_its_used_invite_answers_no_more(tmp_path: Path) -> None:
    """The list remembers it with the time; an unused invite stays for the next join."""

    async def work(store: SiteStore) -> None:
        await store.put_invite(INVITE, now_s=0.0)
        await store.redeem(TOKEN, _use)
        unused = replace(INVITE, token_id=b"\x04" * 8)
        await store.put_invite(unused, now_s=0.0)
        assert await store.leave("gpu07", now_s=9.0, put_out=False)
        assert not store.is_member("gpu07")
        assert store.members() == (replace(MEMBER, left_at=9.0),)
        assert await store.invite(TOKEN) is None
        assert await store.invite(unused.token_id) == unused
        assert not await store.leave("gpu07", now_s=10.0, put_out=True)
        assert store.members() == (replace(MEMBER, left_at=9.0),), "the first time counts"
        assert await store.invite(unused.token_id) is None, "who is put out has no invite left"

    _with(tmp_path / "s", work)


def test_a_renewal_is_noted_and_invents_no_member(tmp_path: Path) -> None:
    """The certificate's new end stands in the list."""

    async def work(store: SiteStore) -> None:
        await store.put_invite(INVITE, now_s=0.0)
        await store.redeem(TOKEN, _use)
        assert await store.renewed("gpu07", certificate_not_after=7.0)
        assert not await store.renewed("gpu08", certificate_not_after=7.0)
        assert store.members() == (replace(MEMBER, certificate_not_after=7.0),)
        await store.leave("gpu07", now_s=8.0, put_out=True)
        assert not await store.renewed("gpu07", certificate_not_after=9.0)
        assert store.members() == (replace(MEMBER, certificate_not_after=7.0, left_at=8.0),)

    _with(tmp_path / "s", work)


def test_invites_that_ended_long_ago_are_forgotten(tmp_path: Path) -> None:
    """The table does not grow with the years; one that ended yesterday is known."""

    async def work(store: SiteStore) -> None:
        await store.put_invite(INVITE, now_s=0.0)
        await store.put_invite(replace(INVITE, token_id=b"\x04" * 8), now_s=INVITE.expires_at + 86400)
        assert await store.invite(TOKEN) == INVITE
        await store.put_invite(replace(INVITE, token_id=b"\x05" * 8), now_s=INVITE.expires_at + 8 * 86400)
        assert await store.invite(TOKEN) is None

    _with(tmp_path / "s", work)


def test_site_leases_keep_every_field_and_open_ones_are_found(tmp_path: Path) -> None:
    """Newest first; what has ended is not among the open ones."""
    newer = replace(LEASE, id="n", side="brokered", created_at=3.5)
    ended = replace(LEASE, state="ended", ended_at=4.5, reason="released")

    async def work(store: SiteStore) -> None:
        await store.put_lease(LEASE)
        await store.put_lease(newer)
        assert await store.leases(include_ended=False) == [newer, LEASE]
        await store.put_lease(ended)
        assert await store.leases(include_ended=False) == [newer]
        assert await store.leases(include_ended=True) == [newer, ended]

    _with(tmp_path / "s", work)


def test_marks_replace_the_former_and_survive(tmp_path: Path) -> None:
    """From a worker thread, as the registry's client uses them."""
    first = {
        "root@1": Mark("root@1", 1, "aa", 0),
        "timestamp@2": Mark("timestamp@2", 2**53, "bb", 1_800_000_000),
    }
    second = {"root@1": Mark("root@1", 2, "cc", 0)}

    async def use(work: Callable[[MarkStore], T]) -> T:
        file = await StateFile.open(tmp_path / "s")
        try:
            return await asyncio.to_thread(work, RegistryMarks(file))
        finally:
            await file.close()

    assert asyncio.run(use(lambda marks: marks.load())) == {}
    asyncio.run(use(lambda marks: marks.save(first)))
    assert asyncio.run(use(lambda marks: marks.load())) == first
    asyncio.run(use(lambda marks: marks.save(second)))
    assert asyncio.run(use(lambda marks: marks.load())) == second


def test_marks_that_cannot_be_written_leave_the_former(tmp_path: Path) -> None:
    """The removal of the old ones and the new ones are one transaction."""
    old = {"root@1": Mark("root@1", 1, "aa", 0)}
    bad = {"root@1": Mark("root@1", 2, "bb", 0), "x": Mark("x", 1, None, 0)}  # type: ignore[arg-type]

    async def work() -> dict[str, Mark]:
        file = await StateFile.open(tmp_path / "s")
        marks = RegistryMarks(file)
        try:
            await asyncio.to_thread(marks.save, old)
            with pytest.raises(StateError):
                await asyncio.to_thread(marks.save, bad)
            return await asyncio.to_thread(marks.load)
        finally:
            await file.close()

    assert asyncio.run(work()) == old


def test_threads_and_the_loop_share_the_file(tmp_path: Path) -> None:
    """Calls of both kinds at once: one connection in one thread serves them in turn."""

    async def work() -> None:
        file = await StateFile.open(tmp_path / "s")
        store, marks = await SiteStore.of(file), RegistryMarks(file)
        with ThreadPoolExecutor(4) as threads:
            loop = asyncio.get_running_loop()
            saves = [
                loop.run_in_executor(threads, marks.save, {"r": Mark("r", number, "", 0)})
                for number in range(40)
            ]
            await asyncio.gather(*saves, *(store.put_lease(replace(LEASE, id=str(n))) for n in range(40)))
        assert len(await store.leases(include_ended=False)) == 40
        await file.close()

    asyncio.run(work())


def _file_of_form_1(path: Path) -> tuple[NameRecord, Manifest, LeaseRecord]:
    manifest = Manifest(
        Layout((TensorSpan("a", "F32", (64,), 0, 256),), (), 256, PIECE_BYTES), (blake3(b"a").digest(),)
    )
    db = connect(path)
    with db.atomic():
        MIGRATIONS[0](db)
        db.conn.execute("PRAGMA user_version=1")
        db.conn.execute(f"PRAGMA application_id={APPLICATION_ID}")
        image = bytes(manifest.image_id)
        db.execute("INSERT INTO manifests VALUES (?, ?)", [image, manifest.encode()])
        db.execute("INSERT INTO names VALUES ('m', ?, '/folder', 1.5)", [image])
        db.execute(
            "INSERT INTO leases VALUES ('l', 'm', ?, 'active', 2.5, NULL, '', 4000, ?)", [image, b"\x07" * 32]
        )
    db.close()
    name = NameRecord("m", manifest.image_id, "/folder", 1.5)
    lease = LeaseRecord("l", "m", manifest.image_id, "active", 2.5, None, "", 4000, b"\x07" * 32, "", "")
    return name, manifest, lease


def test_a_file_of_the_first_form_is_migrated_with_its_rows(tmp_path: Path) -> None:
    """Names, manifests and leases stay; the lease is of this node, for this node."""
    name, manifest, lease = _file_of_form_1(tmp_path / "s")

    async def look(store: SiteStore) -> None:
        kept = Store(store._file)
        assert await kept.names() == [name]
        assert await kept.manifest(manifest.image_id) == manifest
        assert await kept.leases(include_ended=False) == [lease]
        await kept.put_lease(replace(lease, donor="uni-b/b1", borrower="uni-a/a1"))
        assert await kept.leases(include_ended=False) == [
            replace(lease, donor="uni-b/b1", borrower="uni-a/a1")
        ]
        assert store.members() == ()

    _with(tmp_path / "s", look)


def test_a_migration_that_fails_leaves_the_first_form(tmp_path: Path) -> None:
    """All of it or nothing: a file that another table stands in the way of is as it was."""
    path = tmp_path / "s"
    _file_of_form_1(path)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE registry_marks (x)")
    db.close()
    before = path.read_bytes()

    async def nothing(store: SiteStore) -> None:
        """Open it."""

    with pytest.raises(StateError, match="registry_marks"):
        _with(path, nothing)
    assert path.read_bytes() == before
