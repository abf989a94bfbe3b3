"""Whether a receipt that charges us is right, and how old the books are: pure rules over values."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gateway.ranking import ACTIVE_S, books_age_s
from agent.ledger.judging import SLACK_S, BorrowedTime, judge_of
from agent.state.ledger_rows import DonorRow
from federation.ledger.chain import Head
from federation.ledger.pricing import charge_of_receipt
from federation.ledger.receipt import Receipt
from federation.policy.policy import Policy, PurposeRule

BEGIN_S = 1_800_000_000
POLICY = Policy(
    name="lab",
    version=1,
    effective_at_s=BEGIN_S,
    digest="ab" * 32,
    accounts={},
    classes={},
    purposes={"research": PurposeRule("research", 1000, ("*",))},
    device_classes={"h100": 2500},
)
HAD = BorrowedTime("/south/nlp", "research", BEGIN_S, BEGIN_S + 600)


def receipt(busy_s: float, **changes: object) -> Receipt:
    """Return a receipt of north's that charges this time."""
    made = Receipt(
        donor="north",
        borrower="south",
        position=1,
        previous=bytes(32),
        lease_id="one",
        seq=1,
        account="/south/nlp",
        purpose="research",
        device="gpu01/cuda:0",
        device_class="h100",
        from_s=BEGIN_S,
        to_s=BEGIN_S + int(busy_s),
        busy_ms=int(busy_s * 1000),
        charge_msgs=0,
        discount_ms=0,
        energy_wh=None,
        egress_bytes=0,
        final=False,
        refunded=False,
        policy=POLICY.digest,
    )
    made = replace(made, charge_msgs=charge_of_receipt(made, POLICY))
    return replace(made, **changes)  # type: ignore[arg-type]


def judged(
    one: Receipt, had: BorrowedTime | None = HAD, *, since_s: float = 0.0, now_s: float = 0.0
) -> int | None:
    """Return the judgement over a receipt."""
    borrowed = {} if had is None else {("north", "one"): had}
    return judge_of(borrowed, {POLICY.digest: POLICY}, since_s=since_s, now_s=now_s)(one)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_time_that_we_had_is_signed_and_no_more(busy_s: int, had_s: int) -> None:
    """With a minute for start and end; beyond it our figure is lower, and never above the donor's."""
    right = judged(receipt(busy_s), replace(HAD, to_s=BEGIN_S + had_s))
    if busy_s <= had_s + SLACK_S:
        assert right is None
    else:
        assert right == int(had_s + SLACK_S) * 2500
        assert right < receipt(busy_s).charge_msgs


def test_a_lease_that_goes_on_is_judged_by_now() -> None:
    """Its donor counts until its statement, we until now."""
    running = replace(HAD, to_s=None)
    assert judged(receipt(600), running, now_s=BEGIN_S + 600) is None
    assert judged(receipt(600), running, now_s=BEGIN_S + 300) == int(300 + SLACK_S) * 2500


@pytest.mark.parametrize("changes", [{"account": "/south/vision"}, {"purpose": "teaching"}])
def test_what_we_did_not_ask_for_is_worth_nothing(changes: dict[str, object]) -> None:
    """Another account of ours, or a purpose with another factor."""
    assert judged(receipt(60, **changes)) == 0


def test_a_lease_that_we_never_had_is_worth_nothing() -> None:
    """If our record reaches back that far; else it is left alone."""
    assert judged(receipt(60), None, since_s=BEGIN_S) == 0
    unknown = receipt(60)
    assert judged(unknown, None, since_s=BEGIN_S + 1) == unknown.charge_msgs


def test_what_cannot_be_priced_here_is_left_alone() -> None:
    """Neither signed nor disputed: an unknown policy, a refund that counts too much time."""
    long = receipt(6000, policy="cd" * 32)
    assert judged(long) == long.charge_msgs
    assert judged(receipt(6000, refunded=True, charge_msgs=0)) == 0


def row(donor: str, to_s: int = 0, heard_at: float = 0.0, forked_at: int | None = None) -> DonorRow:
    """Return what is known of a donor's chain."""
    return DonorRow(1, donor, Head(), BEGIN_S + to_s, forked_at, BEGIN_S + heard_at)


def age(*rows: DonorRow, now_s: int = 1000) -> int:
    """Return the age of the books, north and west being the other members."""
    return books_age_s(rows, {"north", "west"}, BEGIN_S + now_s)


def test_the_books_are_as_old_as_the_oldest_active_donor() -> None:
    """By its last receipt, or by when it last said that there is none after it."""
    assert age() == 0
    assert age(row("north", 990), row("west", 700)) == 300
    assert age(row("north", 990), row("west", 700, heard_at=990)) == 10
    assert age(row("north", 2000)) == 0


def test_who_is_no_active_donor_makes_no_books_old() -> None:
    """This site, one that left, one that contradicted itself, one that was silent for long."""
    assert age(row("own", 600), row("left", 600), row("north", 600, forked_at=3)) == 0
    assert age(row("west", 0), now_s=ACTIVE_S + 1) == 0
    assert age(row("west", 0), now_s=ACTIVE_S) == ACTIVE_S
