"""Use by account and epoch as a value, kept up to date from what is new in the books.

Rules: it is what all receipts say, whatever was read before: the sum is taken of the table when a chain was
cut or much is new, else the receipts since the last reading are added. It is read from committed rows alone,
so a transaction that was taken back leaves nothing in it. Used in the file's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.state.ledger_rows import LedgerRows, item_at, since
from federation.fairshare.usage import Delta, Usage, receipt_deltas
from federation.ledger.form import decode

if TYPE_CHECKING:
    from sqlite_utils import Database

_MANY: Final = 5000
"""New receipts from which on reading the table's sums is faster."""


class UsageReading:
    """The use at all donors, or at one.

    Args:
        rows: reads the tables.
        donor: the one; empty: all.
    """

    def __init__(self, rows: LedgerRows, donor: str = "") -> None:
        self._rows = rows
        self._donor = donor
        self._usage = Usage()
        self._heads: dict[str, tuple[int, bytes]] = {}

    def read(self, db: Database) -> Usage:
        """Return the use as the books have it now."""
        donors = [
            row for row in self._rows.donors(db) if row.head.position and self._donor in ("", row.donor)
        ]
        heads = {row.donor: (row.head.position, row.head.digest) for row in donors}
        new = [(row, self._heads.get(row.donor, (0, b""))[0]) for row in donors]
        new = [(row, known) for row, known in new if self._heads.get(row.donor) != heads[row.donor]]
        count = sum(row.head.position - known for row, known in new)
        went_back = self._heads.keys() - heads.keys() or any(row.head.position <= at for row, at in new)
        if went_back or count > _MANY or (not self._heads and new):
            self._usage = Usage().add_all(self._table(db))
        elif new:
            self._usage = self._usage.add_all(
                [delta for row, known in new for delta in _deltas(db, row.id, known)]
            )
        self._heads = heads
        return self._usage

    def _table(self, db: Database) -> list[Delta]:
        where, arguments = (" WHERE d.donor = ?", [self._donor]) if self._donor else ("", [])
        rows = db.execute(
            "SELECT u.account, u.epoch, sum(u.msgs) FROM ledger_usage u"  # noqa: S608 - our own words
            f" JOIN ledger_donors d ON d.id = u.donor_id{where} GROUP BY u.account, u.epoch",
            arguments,
        )
        return [(account, epoch, msgs) for account, epoch, msgs in rows if msgs]


def _deltas(db: Database, number: int, known: int) -> list[Delta]:
    deltas: list[Delta] = []
    for body, earlier in since(db, number, known):
        before = item_at(db, number, earlier) if earlier else None
        deltas += receipt_deltas(decode(before.body) if before is not None else None, decode(body))
    return deltas
