"""Ranks: whole numbers that compare as the fractions do."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from federation.fairshare.charging import Charges
from federation.fairshare.rank import Ranks
from federation.fairshare.standing import Standing
from federation.policy.policy import Policy

EPOCH = 3_000_000
USED = st.one_of(st.integers(0, 3), st.integers(0, 2**110))
WEIGHTS = st.one_of(st.integers(1, 4), st.integers(1, 2**40))


@given(st.tuples(USED, USED), st.tuples(WEIGHTS, WEIGHTS), st.integers(0, 8), st.integers(0, 8))
def test_ranks_compare_as_fractions_do(
    make_policy: Callable[..., Policy],
    used: tuple[int, int],
    weights: tuple[int, int],
    mine_waits: int,
    theirs_waits: int,
) -> None:
    """Less, equal or more, however close two accounts are and however long they wait."""
    policy = make_policy({"/a": weights[0], "/b": weights[1]})
    ranks = Ranks(Standing(EPOCH, policy, usage={"/a": used[0], "/b": used[1]}), Charges())
    exact, found = [], []
    for path, use, weight, waits in zip(("/a", "/b"), used, weights, (mine_waits, theirs_waits), strict=True):
        factor = min(16, 2 ** max(0, waits - 1))
        exact.append(Fraction(use, weight * factor))
        found.append(ranks.rank_aged(path, EPOCH * 600 - waits * policy.caps.max_wait_s))
    assert (exact[0] < exact[1]) is (found[0] < found[1])
    assert (exact[0] == exact[1]) is (found[0] == found[1])


def test_use_that_was_taken_back_is_none(make_policy: Callable[..., Policy]) -> None:
    """A refund of what was used with a discount may leave less than nothing in some epoch."""
    ranks = Ranks(Standing(EPOCH, make_policy({"/a": 1}), usage={"/a": -5}), Charges())
    assert ranks.used("/a") == ranks.rank("/a") == ranks.rank_aged("/a", 0) == 0
