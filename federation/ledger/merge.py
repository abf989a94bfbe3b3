"""All receipts known in one place as a value: how two such places become one, and what they then say.

It is a grow-only map: what is signed by its donor is kept, under donor, position and digest; merging is the
union of both, hence commutative, associative and idempotent. What counts is read from it by one rule for all
(``view``): each donor's chain from position 1 for as long as there is exactly one receipt that may come next.
So two places with the same receipts have the same chains, in whatever order the receipts came; a donor that
signs two histories ends its own chain where they part, and nobody else's.

The store in SQLite keeps the same books in another form, for millions of receipts; tests hold it to this.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from federation.ledger.chain import Chain, Facts, Head
from federation.ledger.form import digest
from federation.ledger.items import UNSIGNED, Evidence, Item, check_item, contradiction, signed_of
from federation.ledger.receipt import SignedReceipt
from federation.ledger.signing import Keys

_DIGEST: Final = b"pyrdma ledger v1\0"
Key = tuple[str, int, bytes]
"""Donor, position, digest of the body."""


@dataclass(frozen=True, slots=True)
class Books:
    """Receipts signed by their donors."""

    receipts: Mapping[Key, SignedReceipt] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """What books say: the chains, and who contradicted itself."""

    chains: Mapping[str, tuple[SignedReceipt, ...]]
    evidence: tuple[Evidence, ...]

    @property
    def heads(self) -> dict[str, Head]:
        """The head of each donor's chain."""
        return {
            donor: Head(chain[-1].receipt.position, digest(chain[-1].body))
            for donor, chain in self.chains.items()
            if chain
        }


def books_of(items: Iterable[Item], keys: Keys) -> Books:
    """Return the books that hold what is signed of these items."""
    receipts: dict[Key, SignedReceipt] = {}
    for item in items:
        found = check_item(item, keys)
        if found <= UNSIGNED:
            continue
        borrower = item.borrower_signature if found > UNSIGNED + 1 else b""
        _put(receipts, signed_of(Item(item.body, item.donor_signature, borrower)))
    return Books(receipts)


def merge(one: Books, other: Books) -> Books:
    """Return the books that hold what either does."""
    receipts = dict(one.receipts)
    for signed in other.receipts.values():
        _put(receipts, signed)
    return Books(receipts)


def view(books: Books, facts: Facts) -> View:
    """Return what books say: a pure function of the receipts, our clock and the policies."""
    places: dict[str, dict[int, list[SignedReceipt]]] = defaultdict(lambda: defaultdict(list))
    numbers: dict[tuple[str, str, int], list[SignedReceipt]] = defaultdict(list)
    for (donor, position, _), signed in sorted(books.receipts.items()):
        places[donor][position].append(signed)
        numbers[donor, signed.receipt.lease_id, signed.receipt.seq].append(signed)
    evidence = [
        proof
        for group in (
            *(several for donor in places.values() for several in donor.values()),
            *numbers.values(),
        )
        if len(group) > 1
        for proof in [contradiction(_item(group[0]), _item(group[1]))]
        if proof is not None
    ]
    ends = {donor: forked_at(donor, evidence) for donor in places}
    chains = {donor: _chain(donor, places[donor], ends[donor], facts) for donor in places}
    return View(chains, tuple(sorted(set(evidence), key=lambda one: (one.donor, one.position, one.kind))))


def forked_at(donor: str, evidence: Iterable[Evidence]) -> int | None:
    """Return from which position on a donor's chain counts for nothing; ``None``: all of it counts."""
    return min((one.position for one in evidence if one.donor == donor), default=None)


def ledger_digest(heads: Mapping[str, Head]) -> bytes:
    """Return one digest of all that is known: SHA-256 over the heads, a line each, by donor.

    A line is ``DONOR POSITION DIGEST`` and a newline; the word ``pyrdma ledger v1`` and a zero byte go
    before. Chains of which nothing counts have no line.
    """
    lines = (
        f"{donor} {head.position} {head.digest.hex()}\n"
        for donor, head in sorted(heads.items())
        if head.position
    )
    return hashlib.sha256(_DIGEST + "".join(lines).encode("ascii")).digest()


def _chain(
    donor: str, places: Mapping[int, list[SignedReceipt]], ends_at: int | None, facts: Facts
) -> tuple[SignedReceipt, ...]:
    chain, taken = Chain(donor), list[SignedReceipt]()
    while (ends_at is None or chain.head.position + 1 < ends_at) and chain.head.position + 1 in places:
        signed = places[chain.head.position + 1][0]
        if chain.check(signed.receipt, facts) is not None:
            break
        chain.add(signed.receipt, digest(signed.body))
        taken.append(signed)
    return tuple(taken)


def _put(receipts: dict[Key, SignedReceipt], signed: SignedReceipt) -> None:
    key = (signed.receipt.donor, signed.receipt.position, digest(signed.body))
    before = receipts.get(key)
    # Of two copies that verify, the one with more and then smaller signatures: the same whoever comes first.
    if before is None or _worth(signed) < _worth(before):
        receipts[key] = signed


def _worth(signed: SignedReceipt) -> tuple[bool, bytes, bytes]:
    return (not signed.borrower_signature, signed.borrower_signature, signed.donor_signature)


def _item(signed: SignedReceipt) -> Item:
    return Item(signed.body, signed.donor_signature)
