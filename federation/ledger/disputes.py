"""Disputes and their resolutions: both figures are kept, the lower one ranks until an auditor has signed.

Rules: only the receipt's borrower disputes it, with a figure below the receipt's; a dispute does not stand
for a countersignature, so whoever disputes for ever gets no new leases after a day. Of several disputes of a
lease the one for its latest receipt counts, of equal ones the lower figure. A resolution is an auditor's and
counts for the lease from then on, whatever was disputed; of several the latest counts, of equal ones the
lower figure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.ledger import document
from federation.ledger.document import ID_FORM, LABEL_FORM
from federation.ledger.receipt import Receipt
from federation.ledger.signing import DISPUTE, RESOLUTION, Keys, sign, verifies

MAX_STATEMENT_BYTES: Final = 2048
"""One dispute or resolution; its reason has at most 500 characters."""
_MAX_REASON_CHARS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """A borrower's other figure for a receipt: what it should have charged so far, msgs."""

    donor: str
    borrower: str
    lease_id: str
    seq: int
    charge_msgs: int
    reason: str
    at_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """An auditor's figure for a whole lease, msgs; ``auditor`` is the name of the key in the registry."""

    donor: str
    lease_id: str
    charge_msgs: int
    auditor: str
    reason: str
    at_s: int


_DISPUTE_KEYS: Final = frozenset(Dispute.__dataclass_fields__)
_RESOLUTION_KEYS: Final = frozenset(Resolution.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A dispute or resolution as it travels."""

    body: bytes
    signature: bytes


def sign_dispute(key: Ed25519PrivateKey, dispute: Dispute) -> SignedStatement:
    """Return a dispute signed with the borrower's receipts key."""
    body = document.write(asdict(dispute))
    decode_dispute(body)
    return SignedStatement(body, sign(key, DISPUTE, body))


def sign_resolution(key: Ed25519PrivateKey, resolution: Resolution) -> SignedStatement:
    """Return a resolution signed with an auditor's key."""
    body = document.write(asdict(resolution))
    decode_resolution(body)
    return SignedStatement(body, sign(key, RESOLUTION, body))


def decode_dispute(body: bytes) -> Dispute:
    """Return the dispute that the bytes hold.

    Raises:
        ReceiptError: they hold none in its one form.
    """
    what = "a dispute"
    fields = document.read(body, _DISPUTE_KEYS, max_bytes=MAX_STATEMENT_BYTES, what=what)
    return Dispute(
        donor=document.text(fields, "donor", LABEL_FORM, what),
        borrower=document.text(fields, "borrower", LABEL_FORM, what),
        lease_id=document.text(fields, "lease_id", ID_FORM, what),
        seq=document.number(fields, "seq", what, least=1),
        charge_msgs=document.number(fields, "charge_msgs", what),
        reason=document.free_text(fields, "reason", what, most=_MAX_REASON_CHARS),
        at_s=document.number(fields, "at_s", what),
    )


def decode_resolution(body: bytes) -> Resolution:
    """Return the resolution that the bytes hold.

    Raises:
        ReceiptError: they hold none in its one form.
    """
    what = "a resolution"
    fields = document.read(body, _RESOLUTION_KEYS, max_bytes=MAX_STATEMENT_BYTES, what=what)
    return Resolution(
        donor=document.text(fields, "donor", LABEL_FORM, what),
        lease_id=document.text(fields, "lease_id", ID_FORM, what),
        charge_msgs=document.number(fields, "charge_msgs", what),
        auditor=document.text(fields, "auditor", LABEL_FORM, what),
        reason=document.free_text(fields, "reason", what, most=_MAX_REASON_CHARS),
        at_s=document.number(fields, "at_s", what),
    )


def dispute_holds(signed: SignedStatement, receipt: Receipt, keys: Keys) -> bool:
    """Say whether a dispute is its borrower's, of this receipt, and lower than it."""
    dispute = decode_dispute(signed.body)
    return (
        (dispute.donor, dispute.lease_id, dispute.seq, dispute.borrower)
        == (receipt.donor, receipt.lease_id, receipt.seq, receipt.borrower)
        and dispute.charge_msgs < receipt.charge_msgs
        and verifies(keys.of(dispute.borrower, dispute.at_s), DISPUTE, signed.body, signed.signature)
    )


def resolution_holds(signed: SignedStatement, keys: Keys) -> bool:
    """Say whether a resolution is signed by the auditor that it names."""
    resolution = decode_resolution(signed.body)
    key = keys.auditors.get(resolution.auditor)
    return key is not None and verifies((key,), RESOLUTION, signed.body, signed.signature)


def ranked_charge(receipt: Receipt, disputes: Iterable[Dispute], resolutions: Iterable[Resolution]) -> int:
    """Return what of a lease's last receipt ranks, msgs.

    Args:
        receipt: the lease's last one.
        disputes: those that hold, of any receipt of the lease.
        resolutions: those that hold, of the lease.
    """
    settled = max(resolutions, key=lambda one: (one.at_s, -one.charge_msgs), default=None)
    if settled is not None:
        return settled.charge_msgs
    last = max(disputes, key=lambda one: (one.seq, -one.charge_msgs), default=None)
    return receipt.charge_msgs if last is None else min(receipt.charge_msgs, last.charge_msgs)
