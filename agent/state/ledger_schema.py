"""The tables of the ledger, as the migration that brings them in makes them; never edited once released.

A receipt's id is its donor's number << 40 | its position: one tree, appended to, read in order. Leases,
devices and use are a digest of the receipts and can be made anew from them. ``earlier`` is the position of
the receipt before it of the same lease, 0 for the first. What a donor signed after it contradicted itself is
set aside.
"""

from __future__ import annotations

from typing import Final

LEDGER_SCHEMA: Final = """
CREATE TABLE ledger_donors (
    id INTEGER PRIMARY KEY, donor TEXT NOT NULL UNIQUE, position INTEGER NOT NULL, digest BLOB NOT NULL,
    to_s INTEGER NOT NULL, forked_at INTEGER, heard_at REAL NOT NULL
);
CREATE TABLE ledger_receipts (
    id INTEGER PRIMARY KEY, body BLOB NOT NULL, donor_signature BLOB NOT NULL,
    borrower_signature BLOB NOT NULL, earlier INTEGER NOT NULL
);
CREATE TABLE ledger_set_aside (
    id INTEGER PRIMARY KEY, body BLOB NOT NULL, donor_signature BLOB NOT NULL,
    borrower_signature BLOB NOT NULL
);
CREATE TABLE ledger_leases (
    donor_id INTEGER NOT NULL, lease_id TEXT NOT NULL, position INTEGER NOT NULL, seq INTEGER NOT NULL,
    borrower TEXT NOT NULL, account TEXT NOT NULL, final INTEGER NOT NULL, ends_s INTEGER,
    signed_seq INTEGER NOT NULL, unsigned_since_s INTEGER,
    PRIMARY KEY (donor_id, lease_id)
) WITHOUT ROWID;
CREATE INDEX ledger_open ON ledger_leases (donor_id) WHERE final = 0;
CREATE INDEX ledger_unsigned ON ledger_leases (borrower) WHERE unsigned_since_s IS NOT NULL;
CREATE INDEX ledger_accounts ON ledger_leases (account);
CREATE TABLE ledger_devices (
    donor_id INTEGER NOT NULL, device TEXT NOT NULL, lease_id TEXT NOT NULL,
    PRIMARY KEY (donor_id, device)
) WITHOUT ROWID;
CREATE TABLE ledger_usage (
    donor_id INTEGER NOT NULL, account TEXT NOT NULL, epoch INTEGER NOT NULL, msgs INTEGER NOT NULL,
    PRIMARY KEY (donor_id, account, epoch)
) WITHOUT ROWID;
CREATE TABLE ledger_evidence (
    id BLOB PRIMARY KEY, donor TEXT NOT NULL, kind TEXT NOT NULL, position INTEGER NOT NULL,
    first_body BLOB NOT NULL, first_signature BLOB NOT NULL,
    second_body BLOB NOT NULL, second_signature BLOB NOT NULL, found_at REAL NOT NULL
);
CREATE TABLE ledger_statements (
    id BLOB PRIMARY KEY, kind TEXT NOT NULL, donor TEXT NOT NULL, lease_id TEXT NOT NULL,
    body BLOB NOT NULL, signature BLOB NOT NULL
);
CREATE INDEX ledger_statements_of ON ledger_statements (donor, lease_id);
CREATE TABLE ledger_log (
    id INTEGER PRIMARY KEY, at_s INTEGER NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX ledger_log_at ON ledger_log (at_s)
"""

LEDGER_TABLES: Final = (
    "ledger_donors",
    "ledger_receipts",
    "ledger_set_aside",
    "ledger_leases",
    "ledger_devices",
    "ledger_usage",
    "ledger_evidence",
    "ledger_statements",
    "ledger_log",
)
