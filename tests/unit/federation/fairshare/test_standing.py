"""Where accounts stand: receipts, what is believed of open leases, holdings, shares."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from federation.fairshare.decay import decay_table
from federation.fairshare.standing import OpenLease, standing_of
from federation.fairshare.usage import Usage
from federation.policy.policy import Policy

EPOCH = 3_000_000
NOW_S = EPOCH * 600
LEASES = st.builds(
    OpenLease,
    st.sampled_from(("/a", "/a/b", "/c/d/e")),
    st.integers(1, 8),
    st.integers(0, 8000),
    st.integers(NOW_S - 10**5, NOW_S + 1000),
    st.integers(NOW_S - 10**4, NOW_S + 10**4),
)


def test_an_open_lease_is_believed_to_go_on(make_policy: Callable[..., Policy]) -> None:
    """Since its last receipt until now, at its rate; it holds its devices."""
    lease = OpenLease("/a/b", 2, 2000, NOW_S - 600, NOW_S + 100)
    standing = standing_of(make_policy({"/a": 1}), EPOCH, open_leases=[lease])
    assert standing.usage["/a"] == standing.usage["/a/b"] == 600 * 2000 * decay_table(7 * 86400, 10).weight(1)
    assert standing.holdings == {"/a": 2, "/a/b": 2}


def test_a_lease_without_receipts_for_years_costs_no_time(make_policy: Callable[..., Policy]) -> None:
    """What lies before the window is not spread over epochs that do not count."""
    policy = make_policy({"/a": 1})
    ancient = OpenLease("/a", 1, 1000, 0, NOW_S)
    window = OpenLease("/a", 1, 1000, NOW_S - 70 * 86400 - 600, NOW_S)
    assert standing_of(policy, EPOCH, open_leases=[ancient]) == standing_of(
        policy, EPOCH, open_leases=[window]
    )


def test_a_lease_that_is_over_holds_nothing(make_policy: Callable[..., Policy]) -> None:
    """It is believed to have used what it could until its end."""
    lease = OpenLease("/a", 2, 2000, NOW_S - 100, NOW_S - 50)
    standing = standing_of(make_policy({"/a": 1}), EPOCH, open_leases=[lease])
    assert standing.holdings == {}
    assert standing.usage["/a"] > 0
    over = replace(lease, receipted_s=NOW_S - 50)
    assert standing_of(make_policy({"/a": 1}), EPOCH, open_leases=[over]).usage == {}


def test_belief_is_no_receipt(make_policy: Callable[..., Policy]) -> None:
    """Use in all, by which classes end, is what receipts say."""
    lease = OpenLease("/a", 2, 2000, NOW_S - 600, NOW_S)
    standing = standing_of(make_policy({"/a": 1}), EPOCH, usage=Usage().add("/a", 5, 7), open_leases=[lease])
    assert standing.ever == {"/a": 7, "/a/": 7}


@given(st.lists(LEASES, max_size=8), st.randoms(use_true_random=False))
def test_the_order_in_which_leases_are_known_changes_nothing(
    make_policy: Callable[..., Policy], leases: list[OpenLease], chance: random.Random
) -> None:
    """I1."""
    policy = make_policy({"/a": 1})
    other = leases.copy()
    chance.shuffle(other)
    assert standing_of(policy, EPOCH, open_leases=leases) == standing_of(policy, EPOCH, open_leases=other)


def test_a_share_is_that_of_all_levels(make_policy: Callable[..., Policy]) -> None:
    """Weights among siblings, multiplied from the institution down; what has no rule has weight 1."""
    policy = make_policy({"/a": 1, "/b": 3, "/b/x": 2, "/b/y": 3})
    standing = standing_of(policy, EPOCH)
    assert standing.share("/b/x") == (6, 20)
    assert standing.share("/b/z") == (3, 24)
    assert standing.share("/a") == (1, 4)


def test_a_class_ends_by_use_in_all(make_policy: Callable[..., Policy]) -> None:
    """A newcomer that has used enough is none, nor is anyone below it."""
    policy = make_policy({"/a": 1}, classes={"/a": ("newcomer",)}, reserves={"newcomer": 100})
    ending = {"newcomer": replace(policy.classes["newcomer"], until_msgs=1000)}
    policy = replace(policy, classes=ending)
    early = standing_of(policy, EPOCH, usage=Usage().add("/a/x", 1, 999))
    late = standing_of(policy, EPOCH, usage=Usage().add("/a/x", 1, 1000))
    assert early.classes("/a/y") == ("newcomer",)
    assert late.classes("/a/y") == ()
