"""The one form of a receipt, and who has signed what."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import ReceiptError
from federation.ledger.form import decode, digest, encode
from federation.ledger.items import COUNTERSIGNED, NO_FORM, UNILATERAL, UNSIGNED, Item, check_item
from federation.ledger.receipt import Receipt
from federation.ledger.signing import BORROWER, DONOR, sign

NUMBER = st.integers(0, 10**15 - 1)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
RECEIPTS = st.builds(
    Receipt,
    donor=LABEL,
    borrower=LABEL,
    position=st.integers(1, 10**15 - 1),
    previous=st.binary(min_size=32, max_size=32),
    lease_id=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    seq=st.integers(1, 10**15 - 1),
    account=st.lists(LABEL, min_size=1, max_size=3).map(lambda labels: "/" + "/".join(labels)),
    purpose=LABEL,
    device=st.sets(LABEL, min_size=1, max_size=4).map(
        lambda nodes: ",".join(sorted(f"{n}/cuda:0" for n in nodes))
    ),
    device_class=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True),
    from_s=NUMBER,
    to_s=NUMBER,
    busy_ms=NUMBER,
    charge_msgs=NUMBER,
    discount_ms=NUMBER,
    energy_wh=st.none() | NUMBER,
    egress_bytes=NUMBER,
    final=st.booleans(),
    refunded=st.booleans(),
    policy=st.binary(min_size=32, max_size=32).map(bytes.hex),
)


@given(RECEIPTS)
def test_a_receipt_is_read_as_it_was_written(receipt: Receipt) -> None:
    """Every receipt has one form, from which it comes back."""
    assert decode(encode(receipt)) == receipt


@given(RECEIPTS)
def test_the_form_is_canonical_json(receipt: Receipt) -> None:
    """Any JSON writer with sorted keys and no blanks makes the same bytes."""
    body = encode(receipt)
    loaded = json.loads(body)
    assert json.dumps(loaded, sort_keys=True, separators=(",", ":")).encode() == body
    assert loaded.keys() == {one.name for one in fields(Receipt)}


def test_the_form_is_what_it_always_was(north: Any) -> None:
    """The bytes of one receipt, so that no change of the form goes unnoticed."""
    assert north.items[0].body == (
        b'{"account":"/south/nlp","borrower":"south","busy_ms":600000,"charge_msgs":1500000,'
        b'"device":"gpu01/cuda:0","device_class":"h100","discount_ms":0,"donor":"north","egress_bytes":0,'
        b'"energy_wh":null,"final":false,"from_s":1800000000,"lease_id":"lease-1","policy":"'
        + b"ab" * 32
        + b'","position":1,"previous":"'
        + b"00" * 32
        + b'","purpose":"research","refunded":false,"seq":1,"to_s":1800000600}'
    )


@given(RECEIPTS, st.data())
def test_no_second_spelling_is_read(receipt: Receipt, data: st.DataObject) -> None:
    """A changed, added or lost byte gives no receipt, or one whose form is exactly these bytes."""
    body = bytearray(encode(receipt))
    at = data.draw(st.integers(0, len(body) - 1))
    match data.draw(st.sampled_from(("change", "insert", "delete"))):
        case "change":
            body[at] = data.draw(st.integers(0, 255))
        case "insert":
            body.insert(at, data.draw(st.integers(0, 255)))
        case _:
            del body[at]
    try:
        found = decode(bytes(body))
    except ReceiptError:
        return
    assert encode(found) == bytes(body)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace('"busy_ms":600000', '"busy_ms":0600000'),
        lambda text: text.replace('"busy_ms":600000', '"busy_ms":-1'),
        lambda text: text.replace('"busy_ms":600000', '"busy_ms":6e5'),
        lambda text: text.replace('"busy_ms":600000', '"busy_ms": 600000'),
        lambda text: text.replace('"busy_ms":600000', '"busy_ms":1000000000000000'),
        lambda text: text.replace('"position":1', '"position":0'),
        lambda text: text.replace('"seq":1,', '"seq":1,"seq":1,'),
        lambda text: text.replace("gpu01/cuda:0", "gpu02/cuda:0,gpu01/cuda:0"),
        lambda text: text.replace("gpu01/cuda:0", "gpu01/cuda:0,gpu01/cuda:0"),
        lambda text: text.replace("gpu01/cuda:0", ",".join(f"gpu{at:02}/cuda:0" for at in range(17))),
        lambda text: text.replace("/south/nlp", "/south/nlp/a/b"),
        lambda text: text.replace('"north"', '"North"'),
        lambda text: text.replace('"north"', '"north-"'),
        lambda text: text.replace("false", "0", 1),
        lambda text: text.replace("ab" * 32, "AB" * 32),
        lambda text: text.replace("lease-1", "lease\\u002d1"),
        lambda text: text.replace("lease-1", "l" * 65),
        lambda text: text + " ",
        lambda text: text + "\n",
        lambda text: text.replace('"donor":"north",', ""),
        lambda text: text.replace("lease-1", "lease-\u0661"),
        lambda text: text.replace('"busy_ms":600000', '"busy_ms":60000\u0660'),
        lambda _: "",
        lambda _: "{}",
        lambda _: "[" * 3000,
    ],
)
def test_what_is_not_in_the_form_is_refused(north: Any, spoil: Any) -> None:
    """Other numbers, orders, escapes, blanks, fields: all refused with the same sentence."""
    with pytest.raises(ReceiptError):
        decode(spoil(north.items[0].body.decode()).encode())


@pytest.mark.parametrize(
    "changes",
    [{"account": 'x","y":"'}, {"busy_ms": -1}, {"previous": b""}, {"donor": "\u00fcni"}, {"position": 0}],
)
def test_what_the_form_cannot_hold_is_not_written(north: Any, changes: dict[str, Any]) -> None:
    """A field that would be read back otherwise is refused when it is written."""
    with pytest.raises(ReceiptError):
        encode(replace(decode(north.items[0].body), **changes))


def test_both_signatures_are_checked(north: Any, kit: Any) -> None:
    """Signed by both, by the donor alone, by nobody, and no receipt at all."""
    item = north.items[0]
    assert check_item(item, kit.keys) == COUNTERSIGNED
    assert check_item(item._replace(borrower_signature=b""), kit.keys) == UNILATERAL
    assert check_item(item._replace(borrower_signature=bytes(64)), kit.keys) == UNILATERAL
    assert check_item(item._replace(donor_signature=bytes(64)), kit.keys) == UNSIGNED
    assert check_item(item._replace(donor_signature=b"short"), kit.keys) == UNSIGNED
    assert check_item(Item(b"{}", item.donor_signature), kit.keys) == NO_FORM


def test_one_kind_of_signature_is_never_another(north: Any, kit: Any) -> None:
    """Donor's and borrower's differ even if one key makes both; neither is over the bare body."""
    body = north.items[0].body
    key = kit.key_of("north")
    assert check_item(Item(body, sign(key, BORROWER, body)), kit.keys) == UNSIGNED
    assert check_item(Item(body, key.sign(body)), kit.keys) == UNSIGNED
    donor = sign(key, DONOR, body)
    own = kit.resigned(north.items[0], decode(body), borrower="north")
    assert check_item(own, kit.keys) == COUNTERSIGNED
    assert check_item(Item(own.body, own.donor_signature, own.donor_signature), kit.keys) == UNILATERAL
    assert check_item(Item(body, donor, donor), kit.keys) == UNILATERAL


def test_the_digest_is_sha256_of_the_form(north: Any) -> None:
    """So that anybody can follow a chain with a standard tool."""
    import hashlib

    assert decode(north.items[1].body).previous == hashlib.sha256(north.items[0].body).digest()
    assert digest(b"") == hashlib.sha256(b"").digest()
