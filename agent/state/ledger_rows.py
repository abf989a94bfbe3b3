"""The rows of a ledger: one donor's chain read and written within a transaction of the caller's.

Rules: a receipt and all that follows from it (head, lease, devices, use) change together; what is held can be
made anew from the receipts alone (``rebuild``). A donor that contradicts itself keeps its chain up to there,
the rest is set aside. Nothing here checks a signature: that was done before, and nothing here decides what a
receipt is worth: that is ``federation.ledger``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from federation.fairshare.usage import receipt_deltas
from federation.ledger.accept import Held, Outcome, accept_page
from federation.ledger.chain import Chain, Facts, Head
from federation.ledger.form import ZERO_DIGEST, decode, devices_of, digest
from federation.ledger.items import Evidence, Item
from federation.ledger.receipt import Receipt, SignedReceipt
from federation.limits import MAX_LEDGER_EVIDENCE

if TYPE_CHECKING:
    from sqlite_utils import Database

_SHIFT: Final = 40
_MASK: Final = (1 << _SHIFT) - 1


@dataclass(frozen=True, slots=True)
class DonorRow:
    """One donor's chain: how far it is known, when its last receipt ends, when its gateway was heard."""

    id: int
    donor: str
    head: Head
    to_s: int
    forked_at: int | None
    heard_at: float


class LedgerRows:
    """Reads and writes the tables; used in the file's thread alone, since it remembers chains."""

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}

    def donors(self, db: Database) -> list[DonorRow]:
        """Return every donor, by name."""
        return [_donor(row) for row in db.table("ledger_donors").rows_where(order_by="donor")]

    def donor(self, db: Database, donor: str) -> DonorRow | None:
        """Return a donor's row."""
        rows = list(db.table("ledger_donors").rows_where("donor = ?", [donor]))
        return _donor(rows[0]) if rows else None

    def chain(self, db: Database, donor: str) -> Chain:
        """Return a donor's chain, as far as its next receipt depends on it; not to be changed."""
        row = self.donor(db, donor)
        if row is None:
            return Chain(donor)
        known = self._chains.get(donor)
        if known is None or known.head != row.head:  # the second: a transaction was taken back
            known = self._chains[donor] = _load(db, row)
        number = row.id
        known.ended = lambda lease_id: _last(db, number, lease_id)
        return known

    def take(
        self, db: Database, donor: str, items: Sequence[Item], found: bytes, facts: Facts, *, now_s: float
    ) -> Outcome:
        """Take a page of a donor's receipts, of whose signatures ``found`` tells; return what it changed."""
        row = self.donor(db, donor)
        before = self.chain(db, donor)
        number = row.id if row is not None else -1
        held = Held(
            lambda at: item_at(db, number, at), lambda lease, seq: item_numbered(db, number, lease, seq)
        )
        forked_at = row.forked_at if row is not None else None
        outcome = accept_page(before, items, found, facts, held, forked_at=forked_at)
        if outcome.taken:
            self.write(db, before, outcome.taken, outcome.chain)
        for position, signature in outcome.countersigned:
            self.countersign(db, donor, position, signature)
        for evidence in outcome.evidence:
            self.put_evidence(db, evidence, now_s=now_s)
        return outcome

    def write(self, db: Database, before: Chain, taken: Sequence[SignedReceipt], after: Chain) -> None:
        """Write checked receipts that lead from one chain to another."""
        donor = before.donor
        number = _number(db, donor)
        last: dict[str, Receipt] = {}
        lines: dict[str, _Line] = {}
        rows: list[tuple[object, ...]] = []
        used: dict[tuple[str, int], int] = defaultdict(int)
        for signed in taken:
            receipt = signed.receipt
            lease_id = receipt.lease_id
            previous = last.get(lease_id) or before.leases.get(lease_id)
            line = lines.get(lease_id)
            if line is None:
                line = lines[lease_id] = _line(db, number, lease_id) if previous is not None else _Line()
            line.add(receipt, signed=bool(signed.borrower_signature))
            rows.append(
                (
                    number << _SHIFT | receipt.position,
                    signed.body,
                    signed.donor_signature,
                    signed.borrower_signature,
                    previous.position if previous is not None else 0,
                )
            )
            for account, epoch, msgs in receipt_deltas(previous, receipt):
                used[account, epoch] += msgs
            last[lease_id] = receipt
        db.conn.executemany("INSERT INTO ledger_receipts VALUES (?, ?, ?, ?, ?)", rows)
        db.conn.executemany(
            "INSERT INTO ledger_leases VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " position = excluded.position, seq = excluded.seq, final = excluded.final,"
            " signed_seq = excluded.signed_seq, unsigned_since_s = excluded.unsigned_since_s",
            [
                (
                    *(number, lease_id, one.position, one.seq, one.borrower, one.account),
                    *(int(one.final), None, lines[lease_id].signed_seq, lines[lease_id].unsigned_since_s),
                )
                for lease_id, one in last.items()
            ],
        )
        moved = {lease: at for lease, at in after.ends.items() if before.ends.get(lease) != at}
        db.conn.executemany(
            "UPDATE ledger_leases SET ends_s = ? WHERE donor_id = ? AND lease_id = ?",
            [(at, number, lease) for lease, at in moved.items()],
        )
        db.conn.executemany(
            "INSERT INTO ledger_devices VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET lease_id = excluded.lease_id",
            [
                (number, device, lease_id)
                for one in last.values()
                for device in devices_of(one)
                for lease_id in [after.holders[device]]
            ],
        )
        db.conn.executemany(
            "INSERT INTO ledger_usage VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET msgs = msgs + excluded.msgs",
            [(number, account, epoch, msgs) for (account, epoch), msgs in used.items()],
        )
        db.execute(
            "UPDATE ledger_donors SET position = ?, digest = ?, to_s = max(to_s, ?) WHERE id = ?",
            [after.head.position, after.head.digest, taken[-1].receipt.to_s, number],
        )
        after.prune()
        self._chains[donor] = after

    def countersign(self, db: Database, donor: str, position: int, signature: bytes) -> bool:
        """Add a borrower's checked signature to a receipt; return whether it was the first."""
        row = self.donor(db, donor)
        held = item_at(db, row.id, position) if row is not None else None
        if row is None or held is None or held.borrower_signature:
            return False
        key = row.id << _SHIFT | position
        db.execute("UPDATE ledger_receipts SET borrower_signature = ? WHERE id = ?", [signature, key])
        receipt = decode(held.body)
        line = _line(db, row.id, receipt.lease_id)
        if receipt.seq > line.signed_seq:
            after = item_numbered(db, row.id, receipt.lease_id, receipt.seq + 1)
            since_s = decode(after.body).to_s if after is not None else None
            db.execute(
                "UPDATE ledger_leases SET signed_seq = ?, unsigned_since_s = ?"
                " WHERE donor_id = ? AND lease_id = ?",
                [receipt.seq, since_s, row.id, receipt.lease_id],
            )
        return True

    def put_evidence(self, db: Database, evidence: Evidence, *, now_s: float) -> bool:
        """Keep checked evidence, and end its donor's chain there; return whether it says anything new."""
        number = _number(db, evidence.donor)
        (count,) = db.execute(
            "SELECT count(*) FROM ledger_evidence WHERE donor = ?", [evidence.donor]
        ).fetchone()
        row = self.donor(db, evidence.donor)
        assert row is not None
        earlier = row.forked_at is None or evidence.position < row.forked_at
        if count >= MAX_LEDGER_EVIDENCE and not earlier:
            return False
        written = db.execute(
            "INSERT OR IGNORE INTO ledger_evidence VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                evidence_id(evidence),
                *(evidence.donor, evidence.kind, evidence.position),
                *(*evidence.first[:2], *evidence.second[:2], now_s),
            ],
        )
        if earlier:
            db.execute("UPDATE ledger_donors SET forked_at = ? WHERE id = ?", [evidence.position, number])
            self._cut(db, number, evidence.position)
        return bool(written.rowcount)

    def rebuild(self, db: Database, donor: str) -> None:
        """Make all that follows from a donor's receipts anew."""
        row = self.donor(db, donor)
        if row is None:
            return
        for table in ("ledger_leases", "ledger_devices", "ledger_usage"):
            db.execute(f"DELETE FROM {table} WHERE donor_id = ?", [row.id])  # noqa: S608 - our own names
        kept = [SignedReceipt(decode(one.body), *one) for one in items_of(db, row.id, 0, _MASK)]
        span = (row.id << _SHIFT, row.id << _SHIFT | _MASK)
        db.execute("DELETE FROM ledger_receipts WHERE id BETWEEN ? AND ?", span)
        db.execute(
            "UPDATE ledger_donors SET position = 0, digest = ?, to_s = 0 WHERE id = ?", [ZERO_DIGEST, row.id]
        )
        self._chains.pop(donor, None)
        before, after = Chain(donor), Chain(donor)
        for signed in kept:
            after.add(signed.receipt, digest(signed.body))
        if kept:
            self.write(db, before, kept, after)

    def _cut(self, db: Database, number: int, position: int) -> None:
        first = number << _SHIFT | position
        span = (first, number << _SHIFT | _MASK)
        (donor,) = db.execute("SELECT donor FROM ledger_donors WHERE id = ?", [number]).fetchone()
        moved = db.execute(
            "INSERT OR IGNORE INTO ledger_set_aside SELECT id, body, donor_signature, borrower_signature"
            " FROM ledger_receipts WHERE id BETWEEN ? AND ?",
            span,
        )
        if moved.rowcount:
            db.execute("DELETE FROM ledger_receipts WHERE id BETWEEN ? AND ?", span)
            self.rebuild(db, donor)


@dataclass(slots=True)
class _Line:
    signed_seq: int = 0
    unsigned_since_s: int | None = None

    def add(self, receipt: Receipt, *, signed: bool) -> None:
        if signed:
            self.signed_seq, self.unsigned_since_s = receipt.seq, None
        elif self.unsigned_since_s is None:
            self.unsigned_since_s = receipt.to_s


def item_at(db: Database, number: int, position: int) -> Item | None:
    """Return the receipt at a position of a donor's chain."""
    row = db.execute(
        "SELECT body, donor_signature, borrower_signature FROM ledger_receipts WHERE id = ?",
        [number << _SHIFT | position],
    ).fetchone()
    return Item(*row) if row is not None else None


def items_of(db: Database, number: int, after: int, most: int) -> Iterator[Item]:
    """Yield a donor's receipts after a position, in order."""
    rows = db.execute(
        "SELECT body, donor_signature, borrower_signature FROM ledger_receipts"
        " WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
        [number << _SHIFT | after, number << _SHIFT | _MASK, most],
    )
    return (Item(*row) for row in rows)


def since(db: Database, number: int, after: int) -> list[tuple[bytes, int]]:
    """Return a donor's receipts after a position: the body, and where the one before it of its lease is."""
    rows: list[tuple[bytes, int]] = db.execute(
        "SELECT body, earlier FROM ledger_receipts WHERE id > ? AND id <= ? ORDER BY id",
        [number << _SHIFT | after, number << _SHIFT | _MASK],
    ).fetchall()
    return rows


def set_aside_of(db: Database, number: int, after: int, most: int) -> Iterator[tuple[int, Item]]:
    """Yield by position what a donor signed after it contradicted itself."""
    rows = db.execute(
        "SELECT id, body, donor_signature, borrower_signature FROM ledger_set_aside"
        " WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
        [number << _SHIFT | after, number << _SHIFT | _MASK, most],
    )
    return ((key & _MASK, Item(*rest)) for key, *rest in rows)


def evidence_id(evidence: Evidence) -> bytes:
    """Return the name of evidence: SHA-256 over both receipts' digests."""
    return digest(digest(evidence.first.body) + digest(evidence.second.body))


def evidence_of(rows: Iterable[dict[str, Any]]) -> list[Evidence]:
    """Return evidence from its rows."""
    return [
        Evidence(
            row["donor"],
            row["kind"],
            row["position"],
            Item(row["first_body"], row["first_signature"]),
            Item(row["second_body"], row["second_signature"]),
        )
        for row in rows
    ]


def _donor(row: dict[str, Any]) -> DonorRow:
    head = Head(row["position"], row["digest"])
    return DonorRow(row["id"], row["donor"], head, row["to_s"], row["forked_at"], row["heard_at"])


def _number(db: Database, donor: str) -> int:
    db.execute(
        "INSERT INTO ledger_donors (donor, position, digest, to_s, heard_at) VALUES (?, 0, ?, 0, 0)"
        " ON CONFLICT DO NOTHING",
        [donor, ZERO_DIGEST],
    )
    (number,) = db.execute("SELECT id FROM ledger_donors WHERE donor = ?", [donor]).fetchone()
    return int(number)


def _load(db: Database, row: DonorRow) -> Chain:
    chain = Chain(row.donor, row.head)
    for lease_id, ends_s, body in db.execute(
        "SELECT l.lease_id, l.ends_s, r.body FROM ledger_leases l"
        " JOIN ledger_receipts r ON r.id = (l.donor_id << 40 | l.position)"
        " WHERE l.donor_id = ? AND (l.final = 0 OR l.lease_id IN"
        " (SELECT lease_id FROM ledger_devices WHERE donor_id = ?))",
        [row.id, row.id],
    ):
        chain.leases[lease_id] = decode(body)
        if ends_s is not None and not chain.leases[lease_id].final:
            chain.ends[lease_id] = ends_s
    rows = db.execute("SELECT device, lease_id FROM ledger_devices WHERE donor_id = ?", [row.id])
    chain.holders.update(rows.fetchall())
    return chain


def _line(db: Database, number: int, lease_id: str) -> _Line:
    row = db.execute(
        "SELECT signed_seq, unsigned_since_s FROM ledger_leases WHERE donor_id = ? AND lease_id = ?",
        [number, lease_id],
    ).fetchone()
    return _Line(*row) if row is not None else _Line()


def _last(db: Database, number: int, lease_id: str) -> Receipt | None:
    row = db.execute(
        "SELECT r.body FROM ledger_leases l JOIN ledger_receipts r"
        " ON r.id = (l.donor_id << 40 | l.position) WHERE l.donor_id = ? AND l.lease_id = ?",
        [number, lease_id],
    ).fetchone()
    return decode(row[0]) if row is not None else None


def item_numbered(db: Database, number: int, lease_id: str, seq: int) -> Item | None:
    """Return the receipt of a lease with a number: back from the lease's last one."""
    last = db.execute(
        "SELECT position, seq FROM ledger_leases WHERE donor_id = ? AND lease_id = ?", [number, lease_id]
    ).fetchone()
    if last is None or seq > last[1]:
        return None
    position = last[0]
    for _ in range(last[1] - seq):
        (position,) = db.execute(
            "SELECT earlier FROM ledger_receipts WHERE id = ?", [number << _SHIFT | position]
        ).fetchone()
    return item_at(db, number, position)
