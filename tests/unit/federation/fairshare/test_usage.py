"""Use by account and epoch: order of arrival changes nothing (I1), nothing is lost or made (I13)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.fairshare.decay import EPOCH_S, decay_table
from federation.fairshare.usage import Delta, Usage, by_node, receipt_deltas, spread
from federation.ledger.receipt import Receipt
from federation.limits import MAX_SPREAD_EPOCHS

TABLE = decay_table(86400, 10)
ACCOUNTS = ("/a", "/a/b", "/a/b/c", "/a/d", "/e", "/e/f/g")
DELTAS = st.lists(
    st.tuples(st.sampled_from(ACCOUNTS), st.integers(0, 2000), st.integers(1, 10**12)), max_size=30
)
SPANS = st.tuples(st.integers(0, 10**6), st.integers(0, 10**5), st.integers(-(10**9), 10**12))

Spread = Callable[[int, int, int], Sequence[tuple[int, int]]]
Sum = Callable[[Sequence[Delta]], object]


def _in_batches(deltas: Sequence[Delta]) -> object:
    usage = Usage()
    for at in range(0, len(deltas), 3):
        usage = usage.add_all(deltas[at : at + 3])
    return (usage, usage.totals(2100, TABLE), usage.ever_by_node())


def _running_average(deltas: Sequence[Delta]) -> object:
    """A planted bug: use is aged as it comes, so that a late one counts as new."""
    averages: dict[str, int] = {}
    for account, epoch, msgs in deltas:
        averages[account] = averages.get(account, 0) * TABLE.weight(epoch % 7) // TABLE.weight(0) + msgs
    return averages


def _arrival_law(sum_up: Sum) -> Callable[[], None]:
    @given(DELTAS, st.randoms(use_true_random=False))
    def law(deltas: list[Delta], chance: random.Random) -> None:
        other = deltas.copy()
        chance.shuffle(other)
        assert sum_up(deltas) == sum_up(other)

    return law


def test_order_of_arrival_changes_nothing(is_caught: Callable[..., bool]) -> None:
    """I1: shuffled and batched in other ways, use is the same; a running average is not."""
    _arrival_law(_in_batches)()
    assert is_caught(_arrival_law(_running_average))


@given(DELTAS)
def test_one_by_one_is_the_same_as_at_once(deltas: list[Delta]) -> None:
    """I1: batching changes no byte."""
    usage = Usage()
    for delta in deltas:
        usage = usage.add(*delta)
    assert usage == Usage().add_all(deltas)


@given(DELTAS, st.sampled_from(("/a", "/a/b", "/e", "/e/f", "/z")), st.integers(1500, 4000))
def test_a_parent_has_the_sum_of_what_is_below_it(deltas: list[Delta], path: str, epoch: int) -> None:
    """The sums of all nodes at once are those of each account by itself."""
    usage = Usage().add_all(deltas)
    expected = sum(
        msgs * TABLE.weight(epoch - at)
        for account, at, msgs in deltas
        if account == path or account.startswith(path + "/")
    )
    assert usage.total(path, epoch, TABLE) == expected
    assert usage.totals(epoch, TABLE).get(path, 0) == expected


def _even(from_s: int, to_s: int, msgs: int) -> Sequence[tuple[int, int]]:
    """A planted bug: every epoch its rounded share."""
    parts = spread(from_s, to_s, msgs)
    return [(epoch, msgs // len(parts)) for epoch, _ in parts]


def _conservation_law(spreading: Spread) -> Callable[[], None]:
    @given(SPANS)
    def law(span: tuple[int, int, int]) -> None:
        from_s, length_s, msgs = span
        parts = spreading(from_s, from_s + length_s, msgs)
        assert sum(part for _, part in parts) == msgs
        epochs = [epoch for epoch, _ in parts]
        assert epochs == sorted(set(epochs))
        assert epochs[-1] == max(from_s + length_s - 1, 0 if length_s else from_s) // EPOCH_S
        assert not length_s or epochs[0] == from_s // EPOCH_S

    return law


def test_spreading_loses_nothing(is_caught: Callable[..., bool]) -> None:
    """I13: the parts add up to the whole and lie in the epochs of the span; rounded shares do not."""
    _conservation_law(spread)()
    assert is_caught(_conservation_law(_even))


def test_a_span_of_decades_is_spread_over_its_end() -> None:
    """Whoever signs it buys no memory; the oldest part lies together, and nothing is lost."""
    parts = spread(0, 2**31, 10**15)
    assert len(parts) == MAX_SPREAD_EPOCHS
    assert sum(part for _, part in parts) == 10**15
    assert parts[-1][0] == (2**31 - 1) // EPOCH_S


def _receipt(seq: int, to_s: int, charge_msgs: int) -> Receipt:
    return Receipt(
        donor="x", borrower="y", position=seq, previous=bytes(32), lease_id="l", seq=seq, account="/a/b",
        purpose="research", device="n/0", device_class="standard", from_s=1000, to_s=to_s, busy_ms=0,
        charge_msgs=charge_msgs, discount_ms=0, energy_wh=None, egress_bytes=0, final=False, refunded=False,
        policy="0" * 64,
    )  # fmt: skip


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 10**9)), min_size=1, max_size=8))
def test_receipts_of_a_lease_add_up_to_the_last_one(steps: list[tuple[int, int]]) -> None:
    """I13: whatever receipts came between, use in all is the last cumulative charge."""
    usage, previous, to_s = Usage(), None, 1000
    for seq, (more_s, charge) in enumerate(steps, 1):
        to_s += more_s
        receipt = _receipt(seq, to_s, charge)
        usage = usage.add_all(receipt_deltas(previous, receipt))
        previous = receipt
    assert usage.ever.get("/a/b", 0) == steps[-1][1]
    assert sum(usage.buckets.get("/a/b", {}).values()) == steps[-1][1]


def test_a_refund_takes_everything_back() -> None:
    """A lease whose last receipt charges nothing has used nothing in all."""
    first, last = _receipt(1, 1900, 900_000), _receipt(2, 2000, 0)
    usage = Usage().add_all(receipt_deltas(None, first)).add_all(receipt_deltas(first, last))
    assert usage.ever == {}
    assert by_node(usage.ever) == {}
    assert sum(sum(of.values()) for of in usage.buckets.values()) == 0


def test_a_refund_is_taken_back_where_the_use_was() -> None:
    """Over the whole time of the lease, not the last interval alone, where there was none to take back."""
    first, last = _receipt(1, 1200, 900_000), _receipt(2, 4200, 0)
    assert [epoch for _, epoch, _ in receipt_deltas(first, last)] == [1, 2, 3, 4, 5, 6]


@given(DELTAS, st.integers(0, 6000))
def test_what_the_window_left_behind_changes_no_sum(deltas: list[Delta], epoch: int) -> None:
    """Dropped buckets counted nothing; use in all stays."""
    usage = Usage().add_all(deltas)
    kept = usage.within(epoch, TABLE)
    assert {a: t for a, t in kept.totals(epoch, TABLE).items() if t} == {
        a: t for a, t in usage.totals(epoch, TABLE).items() if t
    }
    assert kept.ever == usage.ever


@pytest.mark.parametrize("at", [0, 5, 10])
def test_use_since_an_epoch_is_a_part_of_it(at: int) -> None:
    """Only the epoch itself and later ones."""
    usage = Usage().add_all(("/a", epoch, 1) for epoch in range(10))
    assert sum(usage.since(at).ever.values()) == 10 - at
