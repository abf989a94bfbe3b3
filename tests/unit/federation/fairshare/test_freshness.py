"""Old books: the split of the last fresh ones, fading into the policy's weights, and back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.fairshare.decay import decay_table
from federation.fairshare.freshness import FRESH_S, WEIGHT_BITS, Split, freeze, frozen_weights, is_fresh
from federation.fairshare.line import Line, Waiting
from federation.fairshare.order import Order
from federation.fairshare.standing import Standing, standing_of
from federation.fairshare.usage import Usage
from federation.policy.policy import Policy

EPOCH = 3_000_000
TABLE = decay_table(7 * 86400, 10)
HALF_LIFE = 1008
"""Epochs of the half life."""
UNIT = 1 << WEIGHT_BITS


def _turns(policy: Policy, standing: Standing, accounts: tuple[str, ...], turns: int) -> dict[str, int]:
    order = Order.of(Line.of(Waiting(path, path, "s", EPOCH * 600, 1, None) for path in accounts), standing)
    served = dict.fromkeys(accounts, 0)
    for _ in range(turns):
        account = next(order.walk()).account
        served[account] += 1
        order = order.charged(account, 600_000)
    return served


def test_books_are_fresh_for_a_quarter_of_an_hour() -> None:
    """Up to 900 s and not beyond."""
    assert is_fresh(900)
    assert not is_fresh(901)


@pytest.mark.parametrize("age_s", [0, FRESH_S, FRESH_S + 1, 6 * 3600])
def test_the_split_rules_when_books_are_old(make_policy: Callable[..., Policy], age_s: int) -> None:
    """Fresh books order by everybody's use; old ones by the shares that this donor served before."""
    policy = make_policy({"/a": 1, "/b": 1})
    local = Usage().add("/a", EPOCH - 10, 3000).add("/b", EPOCH - 10, 1000)
    everywhere = local.add("/a", EPOCH - 10, 10**12)
    split = freeze(EPOCH, local, TABLE)
    standing = standing_of(policy, EPOCH, usage=everywhere, oldest_head_age_s=age_s, last_split=split)
    served = _turns(policy, standing, ("/a", "/b"), 40)
    assert standing.stale is (age_s > FRESH_S)
    assert served == ({"/a": 30, "/b": 10} if standing.stale else {"/a": 0, "/b": 40})


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 3 * HALF_LIFE), st.integers(1, 50))
def test_a_frozen_weight_fades_into_the_policys(
    make_policy: Callable[..., Policy], a: int, b: int, age: int, weight: int
) -> None:
    """Between what was served and the policy's weight, never below the floor, and the policy's at the end."""
    policy = make_policy({"/a": weight, "/b": 3})
    split = freeze(EPOCH, Usage().add_all((("/a", EPOCH, a), ("/b", EPOCH, b))), TABLE)
    weights = frozen_weights(policy, split, EPOCH + age)
    nominal = {"/a": weight * UNIT, "/b": 3 * UNIT}
    for path, use in (("/a", a), ("/b", b)):
        kept = use * (weight + 3) * UNIT // (a + b) if a + b else nominal[path]
        low, high = sorted((kept, nominal[path]))
        assert weights[path] >= nominal[path] * 50 // 1000
        assert low - 1 <= weights[path] <= max(high, nominal[path] * 50 // 1000)
        if age >= HALF_LIFE:
            assert abs(weights[path] - nominal[path]) <= 1


def test_whoever_was_not_served_keeps_the_floor(make_policy: Callable[..., Policy]) -> None:
    """An account without use at this donor gets turns by 5 % of its weight at once."""
    policy = make_policy({"/a": 1, "/b": 1})
    split = freeze(EPOCH, Usage().add("/a", EPOCH, 1000), TABLE)
    standing = standing_of(policy, EPOCH, oldest_head_age_s=3600, last_split=split)
    served = _turns(policy, standing, ("/a", "/b"), 41)
    assert served == {"/a": 40, "/b": 1} or served == {"/a": 39, "/b": 2}


def test_only_use_here_since_then_counts(make_policy: Callable[..., Policy]) -> None:
    """What an account used before, or elsewhere, does not take its turn; what it used here does."""
    policy = make_policy({"/a": 1, "/b": 1})
    split = Split(EPOCH - 4, {"/a": 1, "/b": 1})
    local = Usage().add("/a", EPOCH - 5, 1000).add("/b", EPOCH - 1, 10)
    standing = standing_of(
        policy,
        EPOCH,
        usage=local.add("/a", EPOCH - 1, 10**9),
        oldest_head_age_s=3600,
        last_split=split,
        local=local,
    )
    order = Order.of(
        Line.of(Waiting(path, path, "s", EPOCH * 600, 1, None) for path in ("/a", "/b")), standing
    )
    assert [one.account for one in order.walk()] == ["/a", "/b"]


def test_a_donor_whose_books_were_never_fresh_goes_by_weights(make_policy: Callable[..., Policy]) -> None:
    """There is nothing to freeze."""
    policy = make_policy({"/a": 3, "/b": 1})
    standing = standing_of(policy, EPOCH, oldest_head_age_s=10**6)
    assert _turns(policy, standing, ("/a", "/b"), 40) == {"/a": 30, "/b": 10}


def test_fresh_books_bring_back_what_was_used_meanwhile(make_policy: Callable[..., Policy]) -> None:
    """On heal the books rule, and whoever ran elsewhere unseen waits."""
    policy = make_policy({"/a": 1, "/b": 1})
    usage = Usage().add("/a", EPOCH - 3, 5000).add("/b", EPOCH - 3, 4000)
    standing = standing_of(policy, EPOCH, usage=usage, last_split=Split(EPOCH - 40, {"/a": 1}), local=usage)
    assert not standing.stale
    order = Order.of(
        Line.of(Waiting(path, path, "s", EPOCH * 600, 1, None) for path in ("/a", "/b")), standing
    )
    assert [one.account for one in order.walk()] == ["/b", "/a"]


def test_the_split_holds_at_each_level(make_policy: Callable[..., Policy]) -> None:
    """Institutions and their projects each keep their shares among their siblings."""
    policy = make_policy({"/a": 1, "/a/x": 1, "/a/y": 1, "/b": 1})
    local = Usage().add("/a/x", EPOCH, 100).add("/a/y", EPOCH, 300).add("/b", EPOCH, 400)
    standing = standing_of(policy, EPOCH, oldest_head_age_s=3600, last_split=freeze(EPOCH, local, TABLE))
    served = _turns(policy, standing, ("/a/x", "/a/y", "/b"), 80)
    assert served == {"/a/x": 10, "/a/y": 30, "/b": 40}
