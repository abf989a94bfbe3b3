"""Receipts as they travel and are stored: bytes and signatures, checked in bulk.

Checking signatures is nearly all of a ledger's work, so it is apart from the rules of chains: it needs no
order, and a page may be checked in another process. A countersignature that does not verify is worth nothing
and takes nothing from the receipt: anybody could have put it there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from federation.errors import ReceiptError
from federation.ledger.form import decode, digest, parties
from federation.ledger.receipt import SignedReceipt
from federation.ledger.signing import BORROWER, DONOR, Keys, verifies

NO_FORM: Final = 0
UNSIGNED: Final = 1
UNILATERAL: Final = 2
COUNTERSIGNED: Final = 3
"""What a check finds of one item: no receipt, not signed by its donor, signed by it alone, signed by both."""


class Item(NamedTuple):
    """One receipt: the canonical bytes that both sign, and the signatures; the borrower's may be empty."""

    body: bytes
    donor_signature: bytes
    borrower_signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two receipts of one donor that cannot both be true, each signed by it.

    Args:
        donor: who signed both.
        kind: ``position``: two receipts in one place of the chain; ``sequence``: two of one lease and number.
        position: from here on the donor's chain counts for nothing.
        first, second: the receipts, in the order of their digests.
    """

    donor: str
    kind: Literal["position", "sequence"]
    position: int
    first: Item
    second: Item


def item_of(signed: SignedReceipt) -> Item:
    """Return a receipt as it travels."""
    return Item(signed.body, signed.donor_signature, signed.borrower_signature)


def signed_of(item: Item) -> SignedReceipt:
    """Return a receipt that has travelled, read; its signatures are not checked.

    Raises:
        ReceiptError: it is none.
    """
    return SignedReceipt(decode(item.body), item.body, item.donor_signature, item.borrower_signature)


def check_items(items: Iterable[Item], keys: Keys) -> bytes:
    """Return what is found of each item, one of the four constants a byte."""
    return bytes(check_item(item, keys) for item in items)


def check_item(item: Item, keys: Keys) -> int:
    """Return what is found of an item: ``NO_FORM``, ``UNSIGNED``, ``UNILATERAL`` or ``COUNTERSIGNED``."""
    try:
        donor, borrower, to_s = parties(item.body)
    except ReceiptError:
        return NO_FORM
    if not verifies(keys.of(donor, to_s), DONOR, item.body, item.donor_signature):
        return UNSIGNED
    countersigned = verifies(keys.of(borrower, to_s), BORROWER, item.body, item.borrower_signature)
    return COUNTERSIGNED if countersigned else UNILATERAL


def contradiction(one: Item, other: Item) -> Evidence | None:
    """Return the evidence that two receipts are, whose signatures were checked; ``None`` if they agree."""
    a, b = decode(one.body), decode(other.body)
    if a.donor != b.donor or one.body == other.body:
        return None
    if a.position == b.position:
        kind: Literal["position", "sequence"] = "position"
    elif (a.lease_id, a.seq) == (b.lease_id, b.seq):
        kind = "sequence"
    else:
        return None
    first, second = sorted((one, other), key=lambda each: digest(each.body))
    # Countersignatures are left out: who kept which is no part of the proof.
    return Evidence(
        a.donor,
        kind,
        max(a.position, b.position),
        Item(first.body, first.donor_signature),
        Item(second.body, second.donor_signature),
    )


def proves(evidence: Evidence, keys: Keys) -> bool:
    """Say whether evidence from elsewhere is true: both signed by the donor, and in contradiction."""
    pair: Sequence[Item] = (evidence.first, evidence.second)
    return min(check_items(pair, keys)) >= UNILATERAL and contradiction(*pair) == evidence
