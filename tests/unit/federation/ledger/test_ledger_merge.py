"""Merging books: its laws (I2), and that what they say does not depend on how receipts came (I1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.ledger.accept import Held, accept_page
from federation.ledger.chain import Chain, Head
from federation.ledger.form import ZERO_DIGEST, decode, digest
from federation.ledger.items import Item, check_items
from federation.ledger.merge import Books, books_of, forked_at, ledger_digest, merge, view

NOTHING = Held(lambda _: None, lambda *_: None)


@pytest.fixture(scope="module")
def world(kit: Any) -> list[Item]:
    """Receipts of three donors, one of which signs two histories, and forgeries of all kinds."""
    items: list[Item] = []
    for site in ("north", "south", "west"):
        writer = kit.writer(site)
        for at in range(1, 5):
            borrower = "south" if site != "south" else "west"
            writer.write(to_s=600 * at, borrower=borrower, account=f"/{borrower}", signed=at % 2 == 0)
        items += writer.items
    west = items[-2]
    items.append(kit.resigned(west, decode(west.body), egress_bytes=1))  # position 3 a second time
    north = decode(items[1].body)
    items.append(kit.item_for(north, key=kit.key_of("south")))  # not the donor's key
    items.append(kit.resigned(items[1], north, charge_msgs=0)._replace(donor_signature=bytes(64)))
    items += [one._replace(borrower_signature=b"") for one in items[:4]]  # not countersigned yet
    items.append(Item(b"no receipt", bytes(64)))
    return items


def _some(world: list[Item]) -> st.SearchStrategy[list[Item]]:
    return st.lists(st.sampled_from(world), max_size=20)


@given(st.data())
@settings(max_examples=40)
def test_merging_is_commutative_associative_and_idempotent(kit: Any, world: list[Item], data: Any) -> None:
    """I2, the laws: over any parts of the receipts, forged ones and contradictions as well."""
    a, b, c = (books_of(data.draw(_some(world)), kit.keys) for _ in range(3))
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, a) == a
    assert merge(merge(a, b), b) == merge(a, b)
    assert merge(a, Books()) == a


@given(st.data())
@settings(max_examples=40)
def test_a_forged_chain_never_changes_another_key(kit: Any, world: list[Item], data: Any) -> None:
    """I2: whatever one donor signs, and whatever anybody forges, other donors' chains stay as they are."""
    honest = books_of([one for one in world if b'"donor":"west"' not in one.body], kit.keys)
    before = view(honest, kit.facts)
    forger = kit.writer("west")
    for _ in range(data.draw(st.integers(0, 4))):
        changes = data.draw(
            st.fixed_dictionaries({}, optional={
                "egress_bytes": st.integers(0, 9), "charge_msgs": st.integers(0, 9), "seq": st.integers(1, 3),
                "position": st.integers(1, 5), "lease_id": st.sampled_from(("lease-1", "x")),
            })
        )  # fmt: skip
        item = forger.write(to_s=600)
        forger.items.append(kit.resigned(item, decode(item.body), **changes))
    stolen = [
        kit.item_for(replace(decode(one.body), donor="north"), key=kit.key_of("west")) for one in forger.items
    ]
    after = view(merge(honest, books_of([*forger.items, *stolen], kit.keys)), kit.facts)
    for donor in ("north", "south"):
        assert after.chains[donor] == before.chains[donor]
    assert all(one.donor == "west" for one in after.evidence)


def test_a_donor_with_two_histories_ends_where_they_part(kit: Any, world: list[Item]) -> None:
    """What was before counts, what comes after does not, and the proof holds both."""
    seen = view(books_of(world, kit.keys), kit.facts)
    assert [len(seen.chains[donor]) for donor in ("north", "south", "west")] == [4, 4, 2]
    (evidence,) = seen.evidence
    assert (evidence.donor, evidence.position) == ("west", 3)
    assert forked_at("west", seen.evidence) == 3
    assert forked_at("north", seen.evidence) is None


@given(st.data())
@settings(max_examples=25)
def test_taking_receipts_comes_to_what_merging_says(kit: Any, world: list[Item], data: Any) -> None:
    """In any order, repeated until nothing is new: honest chains end as the view of all books says."""
    expected = view(books_of(world, kit.keys), kit.facts)
    for donor in ("north", "south"):
        items = [one for one in world if f'"donor":"{donor}"'.encode() in one.body]
        chain = Chain(donor)
        order = data.draw(st.permutations(items))
        for item in order * 4:
            found = check_items((item,), kit.keys)
            chain = accept_page(chain, (item,), found, kit.facts, NOTHING).chain
        assert chain.head == expected.heads[donor]


@given(st.permutations(range(4)))
def test_the_digest_of_a_ledger_does_not_depend_on_order(order: list[int]) -> None:
    """I1: the same heads in any order give the same bytes."""
    heads = {f"site-{at}": Head(at + 1, digest(bytes([at]))) for at in range(4)}
    assert ledger_digest({f"site-{at}": heads[f"site-{at}"] for at in order}) == ledger_digest(heads)


def test_the_digest_of_a_ledger_is_what_is_documented() -> None:
    """SHA-256 over a word and a line a donor; a chain without receipts has none."""
    import hashlib

    heads = {"b": Head(2, b"\x02" * 32), "a": Head(1, b"\x01" * 32), "c": Head(0, ZERO_DIGEST)}
    text = f"a 1 {'01' * 32}\nb 2 {'02' * 32}\n"
    assert ledger_digest(heads) == hashlib.sha256(b"pyrdma ledger v1\0" + text.encode()).digest()
    assert ledger_digest({}) == ledger_digest({"c": Head()})


def test_a_view_stops_at_what_may_not_come_next(kit: Any) -> None:
    """A missing receipt, or one that breaks a rule, ends what counts of its chain for now."""
    writer = kit.writer()
    for at in range(1, 5):
        writer.write(to_s=600 * at)
    books = books_of([*writer.items[:2], writer.items[3]], kit.keys)
    assert len(view(books, kit.facts).chains["north"]) == 2
    healed = merge(books, books_of(writer.items, kit.keys))
    assert len(view(healed, kit.facts).chains["north"]) == 4
