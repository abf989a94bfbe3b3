"""Sites with keys, a policy, and donors that write chains of receipts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.ledger.chain import Chain, Facts
from federation.ledger.form import digest, encode
from federation.ledger.items import Item
from federation.ledger.receipt import Receipt
from federation.ledger.signing import BORROWER, DONOR, KeyOfSite, Keys, public_of, sign
from federation.ledger.writing import Statement, next_receipt
from federation.policy.policy import Lend, Policy, PurposeRule

START_S = 1_800_000_000
NOW_S = START_S + 30 * 86400
POLICY = Policy(
    name="lab",
    version=1,
    effective_at_s=START_S,
    digest="ab" * 32,
    accounts={},
    classes={},
    purposes={
        "research": PurposeRule("research", 1000, ("*",)),
        "safety": PurposeRule("safety", 700, ("*",)),
    },
    device_classes={"h100": 2500, "cpu": 37},
    lend=Lend(min_runtime_s=900),
)
FACTS = Facts(NOW_S, {POLICY.digest: POLICY})


def key_of(site: str) -> Ed25519PrivateKey:
    """Return a site's key: the same at each call, so that tests can be repeated."""
    return Ed25519PrivateKey.from_private_bytes(digest(site.encode()))


def keys_for(*sites: str, revoked: tuple[str, ...] = ()) -> Keys:
    """Return the keys of sites."""
    return Keys(
        {site: (KeyOfSite(public_of(key_of(site))),) for site in sites},
        frozenset(public_of(key_of(site)) for site in revoked),
        {"auditor": public_of(key_of("auditor"))},
    )


KEYS = keys_for("north", "south", "west")


@dataclass
class Writer:
    """A donor that writes its chain."""

    site: str = "north"
    items: list[Item] = field(default_factory=list)
    chain: Chain = field(init=False)

    def __post_init__(self) -> None:
        self.chain = Chain(self.site)

    def write(
        self, lease_id: str = "lease-1", *, to_s: int = 600, signed: bool = True, **changes: object
    ) -> Item:
        """Write the next receipt of a lease; times count from ``START_S``."""
        given: dict[str, object] = {
            "lease_id": lease_id,
            "borrower": "south",
            "account": "/south/nlp",
            "purpose": "research",
            "device": ("gpu01/cuda:0",),
            "device_class": "h100",
            "from_s": START_S,
            "busy_ms": to_s * 1000,
            **changes,
        }
        statement = Statement(to_s=START_S + to_s, **given)  # type: ignore[arg-type]
        return self.put(next_receipt(self.chain, statement, POLICY), signed=signed)

    def put(self, receipt: Receipt, *, signed: bool = True, key: Ed25519PrivateKey | None = None) -> Item:
        """Sign a receipt and add it, whatever it says."""
        item = item_for(receipt, signed=signed, key=key)
        self.chain.add(receipt, digest(item.body))
        self.items.append(item)
        return item


def item_for(receipt: Receipt, *, signed: bool = True, key: Ed25519PrivateKey | None = None) -> Item:
    """Return a receipt signed by its donor, or with another key, and by its borrower."""
    body = encode(receipt)
    borrower = sign(key_of(receipt.borrower), BORROWER, body) if signed else b""
    return Item(body, sign(key or key_of(receipt.donor), DONOR, body), borrower)


def resigned(item: Item, receipt: Receipt, **changes: object) -> Item:
    """Return a receipt with changed fields, signed anew by its donor."""
    return item_for(replace(receipt, **changes), signed=bool(item.borrower_signature))  # type: ignore[arg-type]


@pytest.fixture
def north() -> Writer:
    """A donor with three receipts of one lease, and the first of another on another device."""
    writer = Writer()
    writer.write(to_s=600)
    writer.write(to_s=1200)
    writer.write("lease-2", to_s=1200, device=("gpu01/cuda:1",), from_s=START_S + 300, busy_ms=900_000)
    writer.write(to_s=1500, final=True)
    return writer


class Kit:
    """What tests of this folder share, since test modules are not importable."""

    start_s, now_s, policy, facts, keys = START_S, NOW_S, POLICY, FACTS, KEYS
    key_of = staticmethod(key_of)
    keys_for = staticmethod(keys_for)
    item_for = staticmethod(item_for)
    resigned = staticmethod(resigned)
    writer = Writer


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    """Keys, a policy, and what signs."""
    return Kit
