"""Receipts for benchmarks: donors with keys, leases of ten receipts each, both signatures true.

Making them costs more than checking them, so it is done by all cores, before any clock starts.
"""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import active_children, get_context
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.ledger.form import digest, encode
from federation.ledger.items import Item
from federation.ledger.pricing import charge_of_receipt
from federation.ledger.receipt import Receipt
from federation.ledger.signing import BORROWER, DONOR, KeyOfSite, Keys, public_of, sign
from federation.policy.policy import Policy, PurposeRule

START_S: Final = 1_800_000_000
RECEIPTS_A_LEASE: Final = 10
DEVICES: Final = 32
POLICY: Final = Policy(
    name="bench",
    version=1,
    effective_at_s=START_S,
    digest=hashlib.sha256(b"bench").hexdigest(),
    accounts={},
    classes={},
    purposes={"research": PurposeRule("research", 1000, ("*",))},
    device_classes={"h100": 2500},
)


def cpu_s() -> float:
    """Return the processor time of this process and of those that it started and that have ended."""
    for child in active_children():
        child.join()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def key_of(site: str) -> Ed25519PrivateKey:
    """Return a site's key, the same in each process."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(site.encode()).digest())


def donor_names(count: int) -> list[str]:
    """Return the names of donors."""
    return [f"donor-{at:02}" for at in range(count)]


def keys_for(donors: list[str]) -> Keys:
    """Return the keys of donors and of the one borrower."""
    return Keys({site: (KeyOfSite(public_of(key_of(site))),) for site in (*donors, "borrower")})


def make_chains(donors: list[str], receipts: int) -> dict[str, list[Item]]:
    """Return a chain of so many receipts for each donor, made by all cores."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        chains = pool.map(_chain, donors, [receipts] * len(donors))
        return dict(zip(donors, chains, strict=True))


def _chain(donor: str, count: int) -> list[Item]:
    own, borrower = key_of(donor), key_of("borrower")
    previous, items = bytes(32), list[Item]()
    for receipt in _receipts(donor, count):
        body = encode(_follow(receipt, previous))
        previous = digest(body)
        items.append(Item(body, sign(own, DONOR, body), sign(borrower, BORROWER, body)))
    return items


def _receipts(donor: str, count: int) -> Iterator[Receipt]:
    """Yield receipts as they come: all devices are lent, each lease states every ten minutes."""
    for at in range(count):
        turn, device = divmod(at, DEVICES)
        lease, seq = divmod(turn, RECEIPTS_A_LEASE)
        from_s = START_S + lease * RECEIPTS_A_LEASE * 600
        receipt = Receipt(
            donor=donor,
            borrower="borrower",
            position=at + 1,
            previous=bytes(32),
            lease_id=hashlib.sha256(f"{donor} {device} {lease}".encode()).hexdigest()[:32],
            seq=seq + 1,
            account=f"/borrower/group-{device % 7}",
            purpose="research",
            device=f"gpu{device:02}/cuda:0",
            device_class="h100",
            from_s=from_s,
            to_s=from_s + (seq + 1) * 600,
            busy_ms=(seq + 1) * 600_000,
            charge_msgs=0,
            discount_ms=0,
            energy_wh=(seq + 1) * 90,
            egress_bytes=(seq + 1) * 1_000_000,
            final=seq + 1 == RECEIPTS_A_LEASE,
            refunded=False,
            policy=POLICY.digest,
        )
        yield receipt


def _follow(receipt: Receipt, previous: bytes) -> Receipt:
    return replace(receipt, previous=previous, charge_msgs=charge_of_receipt(receipt, POLICY))
