"""Taking receipts into a chain: the signature first, then the rules of the chain, and what contradicts.

Rules: what its donor has not signed is refused and leaves nothing behind; a receipt that is held already is
taken again without effect; one that contradicts another of the same donor is kept as evidence with both
items, and the chain takes nothing more from there on. One donor's receipts never touch another donor's chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from federation.errors import ReceiptError
from federation.ledger.chain import Chain, Facts, Refusal
from federation.ledger.form import decode, digest
from federation.ledger.items import (
    COUNTERSIGNED,
    NO_FORM,
    UNSIGNED,
    Evidence,
    Item,
    check_items,
    contradiction,
)
from federation.ledger.receipt import Receipt, SignedReceipt
from federation.ledger.signing import Keys
from federation.limits import RECEIPT_PAGE


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of one donor, as far as a page may contradict it; each may answer ``None``.

    Args:
        at: by position in the chain.
        numbered: by lease and number.
    """

    at: Callable[[int], Item | None]
    numbered: Callable[[str, int], Item | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a page has changed.

    Args:
        chain: the chain after it.
        taken: the new receipts, in order; a countersignature that does not verify is taken off.
        countersigned: receipts held already that came with the borrower's signature, by position.
        refusal: why the first one that was not taken was not; those after it were not looked at.
        refused: that one.
        evidence: contradictions found.
    """

    chain: Chain
    taken: tuple[SignedReceipt, ...]
    countersigned: tuple[tuple[int, bytes], ...] = ()
    refusal: Refusal | None = None
    refused: Item | None = None
    evidence: tuple[Evidence, ...] = ()


def accept(chain: Chain, item: Item, keys: Keys, facts: Facts, held: Held) -> Outcome:
    """Return what one receipt changes."""
    return accept_page(chain, (item,), check_items((item,), keys), facts, held)


def accept_page(
    chain: Chain,
    items: Sequence[Item],
    found: bytes,
    facts: Facts,
    held: Held,
    *,
    forked_at: int | None = None,
) -> Outcome:
    """Return what a page of one donor's receipts changes; ``chain`` itself stays as it was.

    Args:
        chain: what is held of the donor.
        items: at most ``RECEIPT_PAGE`` receipts, in the order of their positions.
        found: what ``check_items`` found of them.
        facts: our clock and the policies.
        held: looks up what is held.
        forked_at: from where the chain counts for nothing, if the donor contradicted itself before.

    Raises:
        ReceiptError: there are too many.
    """
    if len(items) > RECEIPT_PAGE or len(found) != len(items):
        raise ReceiptError(f"a page has at most {RECEIPT_PAGE} receipts.")
    chain = chain.copy()
    taken: list[SignedReceipt] = []
    countersigned: list[tuple[int, bytes]] = []
    for item, state in zip(items, found, strict=True):
        refusal, receipt = _read(item, state, chain.donor)
        if receipt is None:
            return Outcome(chain, tuple(taken), tuple(countersigned), refusal, item)
        if receipt.position <= chain.head.position:
            before = _at(receipt.position, taken, chain, held)
            if before is None or before.body == item.body:
                if before is not None and state == COUNTERSIGNED and not before.borrower_signature:
                    countersigned.append((receipt.position, item.borrower_signature))
                continue
            refusal = Refusal("position", "the donor signed another receipt with this position.")
            return _refused(chain, taken, countersigned, refusal, item, before)
        if forked_at is not None and receipt.position >= forked_at:
            refusal = Refusal("forked", "the donor has contradicted itself, its chain ends here.")
            return Outcome(chain, tuple(taken), tuple(countersigned), refusal, item)
        refusal = chain.check(receipt, facts)
        if refusal is not None:
            other = None
            if refusal.code in ("sequence", "previous"):
                other = _numbered(receipt, taken, held)
            return _refused(chain, taken, countersigned, refusal, item, other)
        chain.add(receipt, digest(item.body))
        borrower = item.borrower_signature if state == COUNTERSIGNED else b""
        taken.append(SignedReceipt(receipt, item.body, item.donor_signature, borrower))
    return Outcome(chain, tuple(taken), tuple(countersigned))


def _read(item: Item, state: int, donor: str) -> tuple[Refusal | None, Receipt | None]:
    if state == NO_FORM:
        return Refusal("form", "this is not a receipt in its one form."), None
    receipt = decode(item.body)
    if receipt.donor != donor:
        return Refusal("form", f"it is a receipt of {receipt.donor}, not of {donor}."), None
    if state == UNSIGNED:
        return Refusal("signature", "none of the donor's keys has signed it."), None
    return None, receipt


def _at(position: int, taken: Sequence[SignedReceipt], chain: Chain, held: Held) -> Item | None:
    first = chain.head.position - len(taken) + 1
    if position >= first:
        one = taken[position - first]
        return Item(one.body, one.donor_signature, one.borrower_signature)
    return held.at(position)


def _numbered(receipt: Receipt, taken: Sequence[SignedReceipt], held: Held) -> Item | None:
    for one in taken:
        if (one.receipt.lease_id, one.receipt.seq) == (receipt.lease_id, receipt.seq):
            return Item(one.body, one.donor_signature)
    return held.numbered(receipt.lease_id, receipt.seq)


def _refused(
    chain: Chain,
    taken: Sequence[SignedReceipt],
    countersigned: Sequence[tuple[int, bytes]],
    refusal: Refusal,
    item: Item,
    other: Item | None,
) -> Outcome:
    proof = contradiction(other, item) if other is not None else None
    evidence = () if proof is None else (proof,)
    return Outcome(chain, tuple(taken), tuple(countersigned), refusal, item, evidence)
