"""A receipt: how much of a donor's devices was used under one lease so far, in one form as bytes.

Rules: receipts of a lease are cumulative and numbered from 1; all receipts of a donor form one chain, each
naming the digest of the one before. Charges are integers. Two receipts of one donor with the same position,
or of one lease with the same number, and other content, are proof that the donor keeps two books.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a donor states of one lease's use, signed.

    Args:
        donor, borrower: names of sites.
        position: its place in the donor's chain, from 1.
        previous: SHA-256 of the donor's receipt before it; 32 zero bytes at position 1.
        lease_id: the donor's id of the lease.
        seq: from 1 within the lease.
        account: who is charged.
        purpose: what it was for.
        device: ``NODE/DEVICE`` names, in order, separated by commas; each is whole.
        device_class: rho's key.
        from_s, to_s: Unix time of the lease's start and of this statement, by the donor's clock.
        busy_ms: time counted so far, on the donor's monotonic clock.
        charge_msgs: charged so far, milli standard-GPU-seconds.
        discount_ms: part of ``busy_ms`` charged at the idle discount, since devices of the class were free.
        energy_wh: measured so far; ``None`` where there is no counter.
        egress_bytes: sent by the donor to other sites for this lease so far.
        final: whether the lease has ended.
        refunded: the donor ended it before its minimum time: nothing is charged.
        policy: digest of the policy in force, 64 hex digits.
    """

    donor: str
    borrower: str
    position: int
    previous: bytes
    lease_id: str
    seq: int
    account: str
    purpose: str
    device: str
    device_class: str
    from_s: int
    to_s: int
    busy_ms: int
    charge_msgs: int
    discount_ms: int
    energy_wh: int | None
    egress_bytes: int
    final: bool
    refunded: bool
    policy: str


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """A receipt as its donor signed it, and the borrower if it has.

    Args:
        body: the canonical bytes that both signed.
        donor_signature: Ed25519, 64 bytes.
        borrower_signature: the same by the borrower's site; empty: the charge stands, flagged ``unilateral``.
    """

    receipt: Receipt
    body: bytes
    donor_signature: bytes
    borrower_signature: bytes = b""
