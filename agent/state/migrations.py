"""Numbered changes of the state file's form; each runs once, in one transaction with its number.

A migration that is released is never edited. ``user_version`` holds the number of the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from agent.errors import StateError
from agent.state.ledger_schema import LEDGER_SCHEMA
from agent.state.sqlite import APPLICATION_ID

if TYPE_CHECKING:
    from sqlite_utils import Database


def _first(db: Database) -> None:
    db.table("manifests").create({"image_id": bytes, "bytes": bytes}, pk="image_id", not_null={"bytes"})
    db.table("names").create(
        {"name": str, "image_id": bytes, "folder": str, "bound_at": float},
        pk="name",
        not_null={"image_id", "folder", "bound_at"},
        foreign_keys=[("image_id", "manifests", "image_id")],
    )
    db.table("leases").create(
        {
            "id": str,
            "model": str,
            "image_id": bytes,
            "state": str,
            "created_at": float,
            "ended_at": float,
            "reason": str,
            "port": int,
            "key_digest": bytes,
        },
        pk="id",
        not_null={"model", "image_id", "state", "created_at", "reason", "key_digest"},
    )
    db.table("leases").create_index(["ended_at"])


def _sites(db: Database) -> None:
    # What a node keeps of its site and its consortium; the first three tables are used by gateways alone.
    db.table("invites").create(
        {
            "token_id": bytes,
            "key": bytes,
            "node": str,
            "expires_at": float,
            "used_csr_sha256": bytes,
            "certificate_pem": bytes,
            "cidr": str,
        },
        pk="token_id",
        not_null={"key", "node", "expires_at", "cidr"},
    )
    db.table("members").create(
        {"node": str, "joined_at": float, "left_at": float, "certificate_not_after": float},
        pk="node",
        not_null={"joined_at", "certificate_not_after"},
    )
    db.table("site_leases").create(
        {
            "id": str,
            "side": str,
            "model": str,
            "image_id": bytes,
            "total_bytes": int,
            "borrower_site": str,
            "borrower_node": str,
            "donor_site": str,
            "node": str,
            "device": str,
            "state": str,
            "created_at": float,
            "deadline_s": float,
            "ttl_s": float,
            "boot_id": str,
            "ended_at": float,
            "reason": str,
        },
        pk="id",
        not_null={"side", "model", "image_id", "state", "created_at", "deadline_s", "ttl_s", "boot_id"},
    )
    db.table("site_leases").create_index(["ended_at"])
    db.table("registry_marks").create(
        {"role": str, "version": int, "digest": str, "issued_at": int},
        pk="role",
        not_null={"version", "digest", "issued_at"},
    )
    db.execute("ALTER TABLE leases ADD COLUMN donor TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE leases ADD COLUMN borrower TEXT NOT NULL DEFAULT ''")


def _people(db: Database) -> None:
    # Whose a lease is and who is charged; keys for laptops, used by gateways alone.
    for table, column in (("leases", "account"), ("leases", "who"), ("site_leases", "account"),
                          ("site_leases", "purpose")):  # fmt: skip
        db.execute(f"ALTER TABLE {table} ADD COLUMN {column} TEXT NOT NULL DEFAULT ''")
    db.table("tokens").create(
        {
            "token_id": bytes,
            "key": bytes,
            "name": str,
            "account": str,
            "created_at": float,
            "expires_at": float,
            "used_at": float,
        },
        pk="token_id",
        not_null={"key", "name", "account", "created_at", "expires_at"},
    )
    db.table("tokens").create_index(["name"], unique=True)


def _devices(db: Database) -> None:
    # How the owner of this node lends each of its devices.
    db.table("devices").create(
        {
            "id": str,
            "will": str,
            "draining": int,
            "only_idle": int,
            "hours": str,
            "headroom_bytes": int,
        },
        pk="id",
        not_null={"will", "draining", "only_idle", "hours", "headroom_bytes"},
    )


def _history(db: Database) -> None:
    # What a gateway publishes of the last days.
    db.table("waits").create(
        {"at": float, "waited_s": float, "device_class": str, "band": str, "classes": str},
        not_null={"at", "waited_s", "device_class", "band", "classes"},
    )
    db.table("waits").create_index(["at"])
    db.table("reclaims").create({"at": float, "seconds": float}, not_null={"at", "seconds"})
    db.table("reclaims").create_index(["at"])


def _ledger(db: Database) -> None:
    for statement in LEDGER_SCHEMA.split(";"):
        db.execute(statement)


def _licences_and_egress(db: Database) -> None:
    # What publishers say of their models; what a gateway has sent of images to other sites, by its day.
    db.execute("ALTER TABLE names ADD COLUMN licence TEXT NOT NULL DEFAULT ''")
    db.table("egress").create({"day": str, "sent_bytes": int}, pk="day", not_null={"sent_bytes"})


def _terms(db: Database) -> None:
    # What a lease's borrower accepted: it holds after a start of the gateway as before.
    for column in (
        "request_id TEXT NOT NULL DEFAULT ''",
        "offer_id TEXT NOT NULL DEFAULT ''",
        "granted_at_s REAL NOT NULL DEFAULT 0",
        "duration_s INTEGER NOT NULL DEFAULT 0",
        "grace_s REAL",
        "min_runtime_s REAL",
        "max_duration_s REAL",
        "instant INTEGER NOT NULL DEFAULT 0",
    ):
        db.execute(f"ALTER TABLE site_leases ADD COLUMN {column}")


def _rest(db: Database) -> None:
    # What else a gateway needs to go on with its leases as if it had not stopped.
    db.execute("ALTER TABLE site_leases ADD COLUMN rest TEXT NOT NULL DEFAULT ''")


MIGRATIONS: Final[tuple[Callable[[Database], None], ...]] = (
    _first,
    _sites,
    _people,
    _devices,
    _history,
    _ledger,
    _licences_and_egress,
    _terms,
    _rest,
)


def migrate(db: Database, path: str) -> None:
    """Bring the file to the newest form.

    Raises:
        StateError: a newer agent wrote it.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StateError(
            f"the state file {path} was written by a newer agent: it has form {version}, "
            f"this agent knows {len(MIGRATIONS)}.",
            fix="run that agent, or name another directory with --state-dir",
        )
    for number, change in enumerate(MIGRATIONS[version:], start=version + 1):
        with db.atomic():
            change(db)
            db.conn.execute(f"PRAGMA application_id={APPLICATION_ID}")
            db.conn.execute(f"PRAGMA user_version={number}")


def check_form(db: Database, path: str) -> None:
    """Refuse a file that only a reader has open and that has another form than the newest.

    Raises:
        StateError: it has.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != len(MIGRATIONS):
        raise StateError(
            f"the state file {path} has form {version}, this agent reads {len(MIGRATIONS)}.",
            fix="start this version's agent once, which brings an older file to its form",
        )
