"""Countersignatures that are missing, disputes, one's own chain after a restore, plans of an exchange."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import ReceiptError
from federation.ledger.chain import Head
from federation.ledger.disputes import (
    Dispute,
    Resolution,
    decode_dispute,
    decode_resolution,
    dispute_holds,
    ranked_charge,
    resolution_holds,
    sign_dispute,
    sign_resolution,
)
from federation.ledger.exchange import Compare, Pull, halve, plan_round
from federation.ledger.form import decode
from federation.ledger.own import begin, heard, may_write
from federation.ledger.standing import LeaseLine, holdings, in_arrears, is_unilateral
from federation.limits import ARREARS_S, LEDGER_UNCONFIRMED_S, MAX_LEDGER_HEADS

LINE = LeaseLine(
    donor="north", lease_id="l", position=1, seq=1, borrower="south", account="/south", purpose="research",
    device="a/0,b/0", device_class="h100", from_s=0, to_s=600, busy_ms=0, charge_msgs=0, final=False,
    refunded=False, signed_seq=0, unsigned_since_s=600,
)  # fmt: skip
DISPUTE = Dispute(
    donor="north", borrower="south", lease_id="lease-1", seq=2, charge_msgs=5, reason="less",
    at_s=1_800_001_300,
)  # fmt: skip
RESOLUTION = Resolution(
    donor="north", lease_id="lease-1", charge_msgs=7, auditor="auditor", reason="meters", at_s=1_800_002_000
)


def test_six_intervals_without_a_countersignature_are_unilateral() -> None:
    """An hour after the receipt; one that was countersigned never is."""
    assert not is_unilateral(LINE, 600 + 3600)
    assert is_unilateral(LINE, 600 + 3601)
    assert not is_unilateral(replace(LINE, unsigned_since_s=None), 10**9)


def test_a_day_without_a_countersignature_ends_new_leases() -> None:
    """For that borrower, and no other."""
    other = replace(LINE, borrower="west", unsigned_since_s=None)
    late = replace(LINE, borrower="east", unsigned_since_s=601)
    assert in_arrears([LINE, other, late], 600 + ARREARS_S) == frozenset()
    assert in_arrears([LINE, other, late], 600 + ARREARS_S + 1) == {"south"}


def test_open_leases_hold_devices() -> None:
    """Each device of a lease whose last receipt is not final counts for its account."""
    lines = [LINE, replace(LINE, lease_id="m", device="c/0"), replace(LINE, lease_id="n", final=True)]
    assert holdings(lines) == {"/south": 3}


def test_a_dispute_is_its_borrowers_and_lower(north: Any, kit: Any) -> None:
    """Another site's, another receipt's, a higher figure, a wrong key: none of them holds."""
    receipt = decode(north.items[1].body)
    good = sign_dispute(kit.key_of("south"), DISPUTE)
    assert decode_dispute(good.body) == DISPUTE
    assert dispute_holds(good, receipt, kit.keys)
    for changes in (
        {"borrower": "west"},
        {"seq": 1},
        {"lease_id": "x"},
        {"donor": "west"},
        {"charge_msgs": receipt.charge_msgs},
    ):
        key = kit.key_of(changes.get("borrower", "south"))  # type: ignore[arg-type]
        assert not dispute_holds(sign_dispute(key, replace(DISPUTE, **changes)), receipt, kit.keys)  # type: ignore[arg-type]
    assert not dispute_holds(sign_dispute(kit.key_of("north"), DISPUTE), receipt, kit.keys)


def test_a_resolution_is_an_auditors(kit: Any) -> None:
    """A site cannot resolve its own dispute, whatever name it writes."""
    assert resolution_holds(sign_resolution(kit.key_of("auditor"), RESOLUTION), kit.keys)
    assert not resolution_holds(sign_resolution(kit.key_of("south"), RESOLUTION), kit.keys)
    other = replace(RESOLUTION, auditor="nobody")
    assert not resolution_holds(sign_resolution(kit.key_of("auditor"), other), kit.keys)
    assert decode_resolution(sign_resolution(kit.key_of("auditor"), RESOLUTION).body) == RESOLUTION


def test_the_lower_figure_ranks_until_an_auditor_has_signed(north: Any) -> None:
    """Both figures are kept; the latest dispute counts, the latest resolution ends it."""
    receipt = decode(north.items[3].body)
    assert ranked_charge(receipt, (), ()) == receipt.charge_msgs
    assert ranked_charge(receipt, (DISPUTE,), ()) == 5
    later = replace(DISPUTE, seq=3, charge_msgs=9)
    assert ranked_charge(receipt, (later, DISPUTE), ()) == 9
    assert ranked_charge(receipt, (replace(DISPUTE, charge_msgs=10**12),), ()) == receipt.charge_msgs
    assert ranked_charge(receipt, (DISPUTE,), (RESOLUTION,)) == 7
    assert ranked_charge(receipt, (), (replace(RESOLUTION, at_s=1), RESOLUTION)) == 7


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"a":1}', b"\xff", b"{" * 5000])
def test_what_is_no_statement_is_refused(body: bytes) -> None:
    """With one sentence, whatever it is."""
    for read in (decode_dispute, decode_resolution):
        with pytest.raises(ReceiptError):
            read(body)


def test_who_has_nobody_to_ask_writes_at_once() -> None:
    """Unless a countersignature says that there is somebody."""
    assert may_write(begin(remembered=False, now_s=5.0), 5.0, alone=True)
    assert not may_write(begin(remembered=True, now_s=5.0), 5.0, alone=True)
    assert not may_write(begin(remembered=False, now_s=5.0), 5.0, alone=False)


def test_a_remembered_chain_waits_for_another_gateway(north: Any, kit: Any) -> None:
    """Until one has answered, or two intervals have passed without any answer."""
    own = begin(remembered=True, now_s=5.0)
    assert not may_write(own, 5.0 + LEDGER_UNCONFIRMED_S - 1, alone=False)
    assert may_write(own, 5.0 + LEDGER_UNCONFIRMED_S, alone=False)
    same = heard(own, north.chain.head, north.chain.head, None, kit.keys, donor="north")
    assert may_write(same, 6.0, alone=False)
    assert may_write(heard(own, north.chain.head, None, None, kit.keys, donor="north"), 6.0, alone=False)


def test_a_restored_chain_is_locked_until_it_is_whole_again(north: Any, kit: Any) -> None:
    """R21: a receipt of ours that another holds is proof; time alone does not open the lock."""
    old = Head(2, decode(north.items[2].body).previous)
    own = begin(remembered=True, now_s=0.0)
    locked = heard(own, old, north.chain.head, north.items[3], kit.keys, donor="north")
    assert (locked.state, locked.position) == ("locked", 4)
    assert not may_write(locked, 10.0 * LEDGER_UNCONFIRMED_S, alone=False)
    half = Head(3, decode(north.items[3].body).previous)
    assert heard(locked, half, half, None, kit.keys, donor="north").state == "locked"
    assert heard(locked, north.chain.head, north.chain.head, None, kit.keys, donor="north").state == "open"


def test_a_claim_without_proof_locks_nothing(north: Any, kit: Any) -> None:
    """Else any peer could stop a donor from writing receipts; nor does it count as an answer."""
    own = begin(remembered=True, now_s=0.0)
    head = north.chain.head
    for proof in (
        None,
        north.items[0],
        kit.item_for(replace(decode(north.items[3].body), position=99), key=kit.key_of("west")),
        kit.item_for(replace(decode(north.items[3].body), position=99, donor="west")),
        north.items[3]._replace(body=b"no receipt"),
    ):
        assert heard(own, head, Head(99, bytes(32)), proof, kit.keys, donor="north") == own
    sure = heard(own, head, head, None, kit.keys, donor="north")
    assert heard(sure, head, Head(99, bytes(32)), None, kit.keys, donor="north").state == "open"


def test_a_round_asks_for_what_the_peer_has_more_of() -> None:
    """Nothing of donors without keys, nothing past a contradiction, a look at heads that differ."""
    ours = {
        "a": Head(5, b"a" * 32),
        "b": Head(5, b"b" * 32),
        "c": Head(5, b"c" * 32),
        "f": Head(2, b"f" * 32),
    }
    theirs = {
        "a": Head(5, b"a" * 32),
        "b": Head(9, b"x" * 32),
        "c": Head(5, b"x" * 32),
        "d": Head(3, b"d" * 32),
        "e": Head(3, b"e" * 32),
        "f": Head(9, b"x" * 32),
    }
    plan = plan_round(ours, theirs, {"f": 3}, frozenset("abcdf"))
    assert plan.pulls == (Pull("b", 5, 9), Pull("d", 0, 3))
    assert plan.compares == (Compare("c", 5),)


def test_a_peer_with_too_many_donors_is_refused() -> None:
    """One a site of the largest registry."""
    with pytest.raises(ReceiptError):
        plan_round({}, {str(at): Head(1, bytes(32)) for at in range(MAX_LEDGER_HEADS + 1)}, {}, frozenset())


@given(st.integers(1, 10**6), st.data())
def test_halving_finds_the_lowest_that_differs(high: int, data: Any) -> None:
    """In a few steps, wherever two histories part."""
    parts = data.draw(st.integers(1, high))
    low, top, steps = 0, high, 0
    while (at := halve(low, top)) is not None:
        low, top = (low, at) if at >= parts else (at, top)
        steps += 1
    assert top == parts
    assert steps <= 21
