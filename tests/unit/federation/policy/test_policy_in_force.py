"""Which version counts: at its time, the highest one, and never a bad one."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import PolicyFileError
from federation.policy.in_force import PolicyInForce, check_successor
from federation.policy.policy import Policy

DAY = 86400


def version(number: int, effective_at_s: int, digest: str = "") -> Policy:
    return Policy("lab", number, effective_at_s, digest or f"digest-{number}", {}, {}, {}, {})


FIRST, SECOND, THIRD = version(1, 0), version(2, 6000), version(3, 12000)


def test_a_version_counts_from_its_epoch_on() -> None:
    """At the second at which it says, for everybody who knows it."""
    known = PolicyInForce().seen(FIRST, 100).seen(SECOND, 100)
    assert known.at(5999) == FIRST
    assert known.at(6000) == SECOND
    assert known.coming(100) == SECOND
    assert known.coming(6000) is None


def test_before_the_first_none_counts() -> None:
    """A node that knows no policy decides by none."""
    assert PolicyInForce().at(10**9) is None
    assert not PolicyInForce().lends(10**9)
    assert PolicyInForce().seen(SECOND, 0).at(5999) is None


def test_the_order_of_arrival_does_not_matter() -> None:
    """Whatever was seen first, the same version counts at the same time."""
    for order in permutations([FIRST, SECOND, THIRD]):
        known = PolicyInForce()
        for each in order:
            known = known.seen(each, 0)
        assert [known.at(at) for at in (0, 6000, 12000)] == [FIRST, SECOND, THIRD]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), max_size=8), st.integers(0, 6))
def test_the_version_that_counts_never_goes_back(seen: list[tuple[int, int]], at_epoch: int) -> None:
    """As time passes and files come in, the number only rises."""
    known, last = PolicyInForce(), 0
    for step, (number, epoch) in enumerate(seen):
        now_s = (at_epoch + step) * 600
        known = known.seen(version(number, epoch * 600), now_s)
        current = known.at(now_s)
        assert current is None or current.version >= last
        last = last if current is None else current.version


def test_a_bad_file_never_replaces_a_good_one() -> None:
    """It is kept as a rejection, once."""
    known = PolicyInForce().seen(FIRST, 0)
    bad = known.rejected("bad", "p.yaml:3:1: unknown key", 10).rejected("bad", "p.yaml:3:1: unknown key", 20)
    assert bad.at(6000) == FIRST
    assert [each.at_s for each in bad.rejections] == [10]
    for number in range(100):
        bad = bad.rejected(str(number), "x", 30)
    assert len(bad.rejections) <= 16


def test_two_files_of_one_version_are_told() -> None:
    """The first one stays; a consortium that signs two has a problem that people must see."""
    known = PolicyInForce().seen(SECOND, 0)
    assert known.seen(SECOND, 5) is known
    other = known.seen(version(2, 6000, "other"), 5)
    assert other.versions[2] == SECOND
    assert "other bytes" in other.rejections[0].sentence


def test_another_consortiums_policy_is_rejected() -> None:
    """A file that got here by mistake changes nothing."""
    known = PolicyInForce().seen(FIRST, 0).seen(replace(SECOND, name="other"), 0)
    assert list(known.versions) == [1]
    assert len(known.rejections) == 1


def test_an_older_version_changes_nothing() -> None:
    """A mirror that hands out yesterday's file does no harm; what is over is forgotten."""
    known = PolicyInForce().seen(SECOND, 6000)
    assert known.seen(FIRST, 7000) == known
    assert list(known.seen(THIRD, 7000).versions) == [2, 3]
    assert list(known.seen(THIRD, 7000).seen(version(4, 18000), 12000).versions) == [3, 4]


def test_a_donor_may_opt_out_until_the_version_counts() -> None:
    """It then lends to nobody while that version counts, and may come back."""
    known = PolicyInForce().seen(FIRST, 0).seen(SECOND, 0).opt_out(2, 5000)
    assert known.lends(5999)
    assert not known.lends(6000)
    assert known.at(6000) == SECOND
    assert known.opt_in(2).lends(6000)
    assert known.seen(THIRD, 6000).lends(12000)


@pytest.mark.parametrize(("number", "now_s"), [(1, 100), (2, 6000), (7, 100)])
def test_opting_out_too_late_or_of_nothing_is_refused(number: int, now_s: int) -> None:
    """A version that counts binds; one that nobody knows cannot be named."""
    known = PolicyInForce().seen(FIRST, 0).seen(SECOND, 0)
    with pytest.raises(PolicyFileError):
        known.opt_out(number, now_s)


def test_a_successor_rises_and_leaves_the_notice() -> None:
    """Name, number and notice of the version in force are held against it."""
    before = replace(FIRST, notice_s=DAY)
    assert check_successor(before, version(2, 2 * DAY), DAY) == ()
    assert len(check_successor(before, version(2, 2 * DAY - 600), DAY)) == 1
    assert len(check_successor(before, version(1, 9 * DAY), DAY)) == 1
    assert len(check_successor(before, replace(version(1, 0), name="x"), DAY)) == 3
