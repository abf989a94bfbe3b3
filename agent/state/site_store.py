"""What a site's gateway remembers: invites, members, and the leases that it lent or brokered.

Rules: an invite's use, the certificate that was issued for it and the membership are one transaction; who is
a member is known without asking the disk, since every call of a node asks. Nothing here decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from agent.limits import INVITE_KEPT_S, MAX_LEASES_LISTED
from agent.state.file import StateFile, put
from agent.state.ledger_schema import LEDGER_TABLES
from agent.state.records import MemberRecord, SiteLeaseRecord
from federation.identity.admission import InviteRecord
from pyrdma.image.manifest import ImageId

if TYPE_CHECKING:
    from sqlite_utils import Database


@dataclass(frozen=True, slots=True)
class Redemption:
    """What a decision about an invite leaves behind: the invite as used, and its node as a member.

    A repeated answer changes nothing: then both are ``None``.
    """

    certificate_pem: bytes
    invite: InviteRecord | None = None
    member: MemberRecord | None = None


Decide = Callable[[InviteRecord | None], Redemption]
"""Given the invite that a token names, if there is one, returns the outcome; raising changes nothing."""


class SiteStore:
    """The books of one gateway. Use ``await SiteStore.of(file)``; methods raise ``StateError``."""

    def __init__(self, file: StateFile, members: dict[str, MemberRecord]) -> None:
        self._file = file
        self._members: Final = members

    @classmethod
    async def of(cls, file: StateFile) -> SiteStore:
        """Return the books in a file."""
        rows = await file.read(lambda db: list(db.table("members").rows))
        return cls(file, {row["node"]: MemberRecord(**row) for row in rows})

    async def put_invite(self, record: InviteRecord, *, now_s: float) -> None:
        """Keep a new invite; those whose time is long over are forgotten."""

        def change(db: Database) -> None:
            db.execute("DELETE FROM invites WHERE expires_at < ?", [now_s - INVITE_KEPT_S])
            put(db, "invites", "token_id", asdict(record))

        await self._file.write(change)

    async def invite(self, token_id: bytes) -> InviteRecord | None:
        """Return an invite."""
        return await self._file.read(lambda db: _invite(db, token_id))

    async def redeem(self, token_id: bytes, decide: Decide) -> Redemption:
        """Let ``decide`` see an invite, and write what it returns, in one transaction.

        ``decide`` runs in the file's thread: between its look and the write nobody else sees the invite.
        """

        def change(db: Database) -> Redemption:
            outcome = decide(_invite(db, token_id))
            if outcome.invite is not None:
                put(db, "invites", "token_id", asdict(outcome.invite))
            if outcome.member is not None:
                put(db, "members", "node", asdict(outcome.member))
            return outcome

        return await self._file.write(change, after=lambda outcome: self._remember(outcome.member))

    def members(self) -> tuple[MemberRecord, ...]:
        """Return everybody who ever joined, by name."""
        return tuple(record for _, record in sorted(dict(self._members).items()))

    def is_member(self, node: str) -> bool:
        """Say whether a node has joined and not left; asks no disk."""
        record = self._members.get(node)
        return record is not None and record.left_at is None

    async def renewed(self, node: str, *, certificate_not_after: float) -> bool:
        """Note until when a member's new certificate holds; return whether it is one."""

        def change(db: Database) -> MemberRecord | None:
            before = _member(db, node)
            if before is None or before.left_at is not None:
                return None
            now = replace(before, certificate_not_after=certificate_not_after)
            put(db, "members", "node", asdict(now))
            return now

        return await self._file.write(change, after=self._remember) is not None

    async def leave(self, node: str, *, now_s: float, put_out: bool) -> bool:
        """Strike a node off; return whether it was a member.

        Its used invites are forgotten, so that none answers again; if it is put out, unused ones as well.
        """
        unused = "" if put_out else " AND used_csr_sha256 IS NOT NULL"

        def change(db: Database) -> MemberRecord | None:
            db.execute(f"DELETE FROM invites WHERE node = ?{unused}", [node])  # noqa: S608 - our own words
            before = _member(db, node)
            if before is None or before.left_at is not None:
                return None
            left = replace(before, left_at=now_s)
            put(db, "members", "node", asdict(left))
            return left

        return await self._file.write(change, after=self._remember) is not None

    async def put_lease(
        self, record: SiteLeaseRecord, also: Callable[[Database], None] | None = None
    ) -> None:
        """Write a lease, new or changed; ``also`` writes what belongs to it, in the same transaction."""

        def change(db: Database) -> None:
            put(db, "site_leases", "id", asdict(record))
            if also is not None:
                also(db)

        await self._file.write(change)

    async def leases(self, *, include_ended: bool) -> list[SiteLeaseRecord]:
        """Return leases, newest first; of the ended ones at most ``MAX_LEASES_LISTED``."""
        where, most = (None, MAX_LEASES_LISTED) if include_ended else ("ended_at IS NULL", None)
        rows = await self._file.read(
            lambda db: list(
                db.table("site_leases").rows_where(where, order_by="created_at DESC, id", limit=most)
            )
        )
        return [_lease(row) for row in rows]

    async def lease_times(self, borrower_site: str, account: str, *, now_s: float) -> tuple[int, float]:
        """Return how many leases an account and what is below it hold, and the seconds of all until now."""
        row = await self._file.read(
            lambda db: db.execute(
                "SELECT COUNT(*) - COUNT(ended_at),"
                " TOTAL(MAX(0, COALESCE(ended_at, ?) - created_at)) FROM site_leases"
                " WHERE borrower_site = ? AND (account = ? OR substr(account, 1, length(?) + 1) = ? || '/')",
                [now_s, borrower_site, account, account, account],
            ).fetchone()
        )
        return int(row[0]), float(row[1])

    def _remember(self, record: MemberRecord | None) -> None:
        # In the file's thread, in the order of the transactions; a dict's assignment needs no lock.
        if record is not None:
            self._members[record.node] = record


async def forget_site(file: StateFile) -> None:
    """Empty all books of a site and the registry's marks: what was a node of one site begins in another."""

    def change(db: Database) -> None:
        for table in ("invites", "members", "site_leases", "registry_marks", "tokens", *LEDGER_TABLES):
            db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names

    await file.write(change)


def _invite(db: Database, token_id: bytes) -> InviteRecord | None:
    rows = list(db.table("invites").rows_where("token_id = ?", [token_id]))
    return InviteRecord(**rows[0]) if rows else None


def _member(db: Database, node: str) -> MemberRecord | None:
    rows = list(db.table("members").rows_where("node = ?", [node]))
    return MemberRecord(**rows[0]) if rows else None


def _lease(row: dict[str, Any]) -> SiteLeaseRecord:
    return SiteLeaseRecord(**{**row, "image_id": ImageId(row["image_id"])})
