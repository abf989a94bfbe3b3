"""The ledger in the state file: receipts, heads, evidence, disputes, and the log that an export holds.

Rules: signatures are checked before anything comes here (``agent.ledger``); the rules of chains are applied
here, inside the transaction that writes. A page of receipts is one transaction. A receipt of one's own can
be written in a transaction that changes something else as well: ``append_in``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.limits import MAX_LEDGER_LOG_LINES
from agent.state.file import StateFile
from agent.state.ledger_rows import (
    DonorRow,
    LedgerRows,
    evidence_of,
    item_at,
    item_numbered,
    items_of,
    set_aside_of,
)
from agent.state.ledger_usage import UsageReading
from federation.errors import LedgerError
from federation.fairshare.usage import Delta, Usage, spread
from federation.ledger.accept import Outcome
from federation.ledger.chain import Chain, Facts, Head
from federation.ledger.disputes import (
    SignedStatement,
    decode_dispute,
    decode_resolution,
    ranked_charge,
)
from federation.ledger.form import decode, digest, encode
from federation.ledger.items import Evidence, Item
from federation.ledger.receipt import SignedReceipt
from federation.ledger.signing import DONOR, sign
from federation.ledger.standing import LeaseLine
from federation.ledger.writing import Statement, next_receipt
from federation.limits import MAX_DISPUTES_PER_LEASE, RECEIPT_PAGE
from federation.policy.policy import Policy

if TYPE_CHECKING:
    from sqlite_utils import Database

_LINES: Final = (
    "SELECT d.donor, l.signed_seq, l.unsigned_since_s, r.body FROM ledger_leases l"
    " JOIN ledger_donors d ON d.id = l.donor_id"
    " JOIN ledger_receipts r ON r.id = (l.donor_id << 40 | l.position)"
)


@dataclass(frozen=True, slots=True)
class LogLine:
    """What was asked, offered, refused or decided: when, which of them, and its canonical bytes."""

    at_s: int
    kind: str
    body: bytes


class LedgerStore:
    """The ledger of one gateway; methods raise ``StateError`` when the file fails."""

    def __init__(self, file: StateFile) -> None:
        self._file = file
        self._rows = LedgerRows()
        self._usage = UsageReading(self._rows)
        self._usage_of: dict[str, UsageReading] = {}

    async def donors(self) -> list[DonorRow]:
        """Return every donor's head, by name."""
        return await self._file.read(self._rows.donors)

    async def chain(self, donor: str) -> Chain:
        """Return a copy of a donor's chain, as far as its next receipt depends on it."""
        return await self._file.read(lambda db: self._rows.chain(db, donor).copy())

    async def take(
        self, donor: str, items: Sequence[Item], found: bytes, facts: Facts, *, now_s: float
    ) -> Outcome:
        """Take a page of a donor's receipts in one transaction; ``found`` is what ``check_items`` said."""
        return await self._file.write(lambda db: self._rows.take(db, donor, items, found, facts, now_s=now_s))

    def append_in(
        self, db: Database, donor: str, statement: Statement, policy: Policy, key: Ed25519PrivateKey
    ) -> SignedReceipt:
        """Write a donor's own next receipt within a transaction of the caller's, in the file's thread.

        Args:
            db: the transaction.
            donor: this site.
            statement: what was measured.
            policy: the one that the lease began under.
            key: the site's receipts key.

        Raises:
            LedgerError: the lease has had its last receipt, the statement breaks a rule, or this site has
                contradicted itself.
        """
        row = self._rows.donor(db, donor)
        if row is not None and row.forked_at is not None:
            raise LedgerError(
                "this site has signed two histories, and its chain has ended.",
                fix="ask the consortium's auditors; the evidence is in: pyrdma-agent ledger show",
            )
        before = self._rows.chain(db, donor)
        after = before.copy()
        receipt = next_receipt(before, statement, policy)
        # Its own rules as everybody applies them; the clock is its own, so nothing lies ahead of it.
        refusal = before.check(receipt, Facts(receipt.to_s, {receipt.policy: policy}))
        if refusal is not None:
            raise LedgerError(
                f"the receipt of the lease {statement.lease_id} breaks a rule: {refusal.sentence}"
            )
        body = encode(receipt)
        signed = SignedReceipt(receipt, body, sign(key, DONOR, body))
        after.add(receipt, digest(body))
        self._rows.write(db, before, (signed,), after)
        return signed

    async def append(
        self, donor: str, statement: Statement, policy: Policy, key: Ed25519PrivateKey
    ) -> SignedReceipt:
        """Write a donor's own next receipt in a transaction of its own; errors as ``append_in``."""
        return await self._file.write(lambda db: self.append_in(db, donor, statement, policy, key))

    async def page(self, donor: str, after: int, limit: int = RECEIPT_PAGE) -> list[Item]:
        """Return a donor's receipts after a position, in order, at most ``RECEIPT_PAGE``."""

        def read(db: Database) -> list[Item]:
            row = self._rows.donor(db, donor)
            return [] if row is None else list(items_of(db, row.id, after, min(limit, RECEIPT_PAGE)))

        return await self._file.read(read)

    async def item(self, donor: str, position: int) -> Item | None:
        """Return one receipt."""

        def read(db: Database) -> Item | None:
            row = self._rows.donor(db, donor)
            return None if row is None else item_at(db, row.id, position)

        return await self._file.read(read)

    async def numbered(self, donor: str, lease_id: str, seq: int) -> Item | None:
        """Return the receipt of a lease with a number."""

        def read(db: Database) -> Item | None:
            row = self._rows.donor(db, donor)
            return None if row is None else item_numbered(db, row.id, lease_id, seq)

        return await self._file.read(read)

    async def set_aside(self, donor: str, after: int) -> list[tuple[int, Item]]:
        """Return what a donor signed after it contradicted itself, by position, at most ``RECEIPT_PAGE``."""

        def read(db: Database) -> list[tuple[int, Item]]:
            row = self._rows.donor(db, donor)
            return [] if row is None else list(set_aside_of(db, row.id, after, RECEIPT_PAGE))

        return await self._file.read(read)

    async def remembered(self, donor: str) -> bool:
        """Say whether a borrower has countersigned anything of a donor's chain."""
        row = await self._file.read(
            lambda db: db.execute(
                "SELECT 1 FROM ledger_leases l JOIN ledger_donors d ON d.id = l.donor_id"
                " WHERE d.donor = ? AND l.signed_seq > 0 LIMIT 1",
                [donor],
            ).fetchone()
        )
        return row is not None

    async def signatures(self, donor: str, positions: Sequence[int]) -> list[tuple[int, bytes]]:
        """Return the borrowers' signatures that are known of a donor's receipts, by position."""

        def read(db: Database) -> list[tuple[int, bytes]]:
            row = self._rows.donor(db, donor)
            items = [] if row is None else [(at, item_at(db, row.id, at)) for at in positions]
            return [
                (at, one.borrower_signature)
                for at, one in items
                if one is not None and one.borrower_signature
            ]

        return await self._file.read(read)

    async def heads(self) -> dict[str, Head]:
        """Return the head of each donor's chain."""
        return {row.donor: row.head for row in await self.donors() if row.head.position}

    async def heard(self, donor: str, *, now_s: float) -> None:
        """Note that a donor's own gateway has said how far its chain goes, and that we have all of it."""
        await self._file.write(
            lambda db: db.execute("UPDATE ledger_donors SET heard_at = ? WHERE donor = ?", [now_s, donor])
        )

    async def countersign(self, donor: str, signed: Sequence[tuple[int, bytes]]) -> int:
        """Add borrowers' checked signatures, by position; return how many were new."""
        return await self._file.write(
            lambda db: sum(self._rows.countersign(db, donor, at, signature) for at, signature in signed)
        )

    async def unsigned(self, borrower: str, *, limit: int = RECEIPT_PAGE) -> list[LeaseLine]:
        """Return leases whose last receipt a borrower has not countersigned, oldest first."""
        where = " WHERE l.borrower = ? AND l.unsigned_since_s IS NOT NULL ORDER BY l.unsigned_since_s LIMIT ?"
        return await self._lines(where, [borrower, limit])

    async def all_unsigned(self) -> list[LeaseLine]:
        """Return all leases with a receipt that its borrower has not countersigned."""
        return await self._lines(" WHERE l.unsigned_since_s IS NOT NULL", [])

    async def unanswered(self) -> list[LeaseLine]:
        """Return all leases with a receipt that its borrower has neither countersigned nor disputed."""
        where = (
            " WHERE l.unsigned_since_s IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ledger_statements s"
            " WHERE s.donor = d.donor AND s.lease_id = l.lease_id AND s.kind = 'dispute')"
        )
        return await self._lines(where, [])

    async def open_leases(self) -> list[LeaseLine]:
        """Return all leases whose last receipt is not final."""
        return await self._lines(" WHERE l.final = 0", [])

    async def leases(
        self, *, account: str = "", donor: str = "", lease_id: str = "", limit: int = RECEIPT_PAGE
    ) -> list[LeaseLine]:
        """Return leases, the latest first: of an account and what is below it, of a donor, of an id."""
        where = (
            " WHERE (? = '' OR l.account = ? OR l.account GLOB ? || '/*') AND (? = '' OR d.donor = ?)"
            " AND (? = '' OR l.lease_id = ?) ORDER BY l.position DESC LIMIT ?"
        )
        return await self._lines(where, [account, account, account, donor, donor, lease_id, lease_id, limit])

    async def _lines(self, where: str, arguments: list[object]) -> list[LeaseLine]:
        rows = await self._file.read(lambda db: db.execute(_LINES + where, arguments).fetchall())
        return [lease_line(*row) for row in rows]

    async def usage(self) -> Usage:
        """Return what all receipts say of use, disputes and resolutions apart."""
        return await self._file.read(self._usage.read)

    async def usage_of(self, donor: str) -> Usage:
        """Return what the receipts of one donor say of use."""
        reading = self._usage_of.setdefault(donor, UsageReading(self._rows, donor))
        return await self._file.read(reading.read)

    async def corrections(self) -> list[Delta]:
        """Return what disputes and resolutions change about use; only those that hold are kept here."""
        rows = await self._file.read(
            lambda db: db.execute(
                "SELECT s.donor, s.lease_id, s.kind, s.body, r.body FROM ledger_statements s"
                " JOIN ledger_donors d ON d.donor = s.donor"
                " JOIN ledger_leases l ON l.donor_id = d.id AND l.lease_id = s.lease_id"
                " JOIN ledger_receipts r ON r.id = (l.donor_id << 40 | l.position)"
            ).fetchall()
        )
        of: dict[tuple[str, str], tuple[list[bytes], list[bytes], bytes]] = {}
        for donor, lease_id, kind, body, last in rows:
            disputes, resolutions, _ = of.setdefault((donor, lease_id), ([], [], last))
            (disputes if kind == "dispute" else resolutions).append(body)
        deltas: list[Delta] = []
        for disputes, resolutions, last in of.values():
            receipt = decode(last)
            ranks = ranked_charge(receipt, map(decode_dispute, disputes), map(decode_resolution, resolutions))
            change = ranks - receipt.charge_msgs
            if change:
                deltas += [
                    (receipt.account, at, msgs) for at, msgs in spread(receipt.from_s, receipt.to_s, change)
                ]
        return deltas

    async def put_evidence(self, evidence: Evidence, *, now_s: float) -> bool:
        """Keep checked evidence; return whether it says anything new."""
        return await self._file.write(lambda db: self._rows.put_evidence(db, evidence, now_s=now_s))

    async def evidence(self) -> list[Evidence]:
        """Return all evidence, by donor and position."""
        rows = await self._file.read(
            lambda db: list(db.table("ledger_evidence").rows_where(order_by="donor, position, id"))
        )
        return evidence_of(rows)

    async def put_statement(self, kind: str, donor: str, lease_id: str, signed: SignedStatement) -> bool:
        """Keep a checked dispute or resolution; return whether it is new.

        Raises:
            LedgerError: there are too many of this lease.
        """

        def change(db: Database) -> bool:
            (count,) = db.execute(
                "SELECT count(*) FROM ledger_statements WHERE donor = ? AND lease_id = ? AND kind = ?",
                [donor, lease_id, kind],
            ).fetchone()
            name = digest(signed.body)
            known = db.execute("SELECT 1 FROM ledger_statements WHERE id = ?", [name]).fetchone()
            if known is None and count >= MAX_DISPUTES_PER_LEASE:
                raise LedgerError(f"the lease {lease_id} has {count} statements of this kind already.")
            written = db.execute(
                "INSERT OR IGNORE INTO ledger_statements VALUES (?, ?, ?, ?, ?, ?)",
                [name, kind, donor, lease_id, signed.body, signed.signature],
            )
            return bool(written.rowcount)

        return await self._file.write(change)

    async def statements(self) -> list[tuple[str, SignedStatement]]:
        """Return all disputes and resolutions: kind, and the signed bytes."""
        rows = await self._file.read(
            lambda db: db.execute(
                "SELECT kind, body, signature FROM ledger_statements ORDER BY donor, lease_id, id"
            ).fetchall()
        )
        return [(kind, SignedStatement(body, signature)) for kind, body, signature in rows]

    @staticmethod
    def log_in(db: Database, lines: Sequence[LogLine]) -> None:
        """Write lines of the log within a transaction of the caller's; the oldest make room."""
        db.conn.executemany(
            "INSERT INTO ledger_log (at_s, kind, body) VALUES (?, ?, ?)",
            [(one.at_s, one.kind, one.body) for one in lines],
        )
        db.execute(
            "DELETE FROM ledger_log WHERE id <= (SELECT max(id) FROM ledger_log) - ?", [MAX_LEDGER_LOG_LINES]
        )

    async def log(self, lines: Sequence[LogLine]) -> None:
        """Write lines of the log."""
        await self._file.write(lambda db: self.log_in(db, lines))

    async def logged(self, after: int, *, limit: int = RECEIPT_PAGE) -> list[tuple[int, LogLine]]:
        """Return lines of the log after one, with their numbers, in order."""
        rows = await self._file.read(
            lambda db: db.execute(
                "SELECT id, at_s, kind, body FROM ledger_log WHERE id > ? ORDER BY id LIMIT ?", [after, limit]
            ).fetchall()
        )
        return [(number, LogLine(at_s, kind, body)) for number, at_s, kind, body in rows]


def lease_line(donor: str, signed_seq: int, unsigned_since_s: int | None, body: bytes) -> LeaseLine:
    """Return a lease as its last receipt says."""
    last = decode(body)
    return LeaseLine(
        donor=donor,
        lease_id=last.lease_id,
        position=last.position,
        seq=last.seq,
        borrower=last.borrower,
        account=last.account,
        purpose=last.purpose,
        device=last.device,
        device_class=last.device_class,
        from_s=last.from_s,
        to_s=last.to_s,
        busy_ms=last.busy_ms,
        charge_msgs=last.charge_msgs,
        final=last.final,
        refunded=last.refunded,
        signed_seq=signed_seq,
        unsigned_since_s=unsigned_since_s,
    )
