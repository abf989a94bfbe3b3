"""A borrower's clock of a lease: renewed in time, believed no longer than its donor does."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import PeerNodeError
from agent.gateway.borrowing import Borrowed, Expired, Renew, Wait, next_action, renewal_failed, renewed
from agent.limits import LEASE_TTL_S, MAX_LEASE_TTL_S, MIN_LEASE_TTL_S, RENEW_AGAIN_S

LEASE = Borrowed("l1", "uni-a", 1000.0, LEASE_TTL_S)


def test_a_lease_of_ten_minutes_is_renewed_each_two() -> None:
    """It waits for the fifth of its time, then renews, then counts from when the renewal was sent."""
    assert next_action(LEASE, 1000.0) == Wait(1120.0)
    assert next_action(LEASE, 1119.9) == Wait(1120.0)
    assert next_action(LEASE, 1120.0) == Renew()
    again = renewed(LEASE, 1121.0, LEASE_TTL_S)
    assert next_action(again, 1125.0) == Wait(1241.0)


def test_a_lease_ends_by_the_time_of_sending() -> None:
    """At its deadline it is over, not a moment later."""
    failing = LEASE
    for at_s in (1120.0, 1300.0, 1590.0):
        failing = renewal_failed(failing, at_s)
    assert next_action(failing, 1599.99) != Expired()
    assert next_action(failing, 1600.0) == Expired()


def test_a_renewal_that_failed_is_repeated_soon_and_then_less_often() -> None:
    """The pauses double up to half of the usual distance; a success ends that."""
    failing, now_s, pauses = LEASE, 1120.0, []
    for _ in range(7):
        failing = renewal_failed(failing, now_s)
        action = next_action(failing, now_s)
        assert isinstance(action, Wait)
        pauses.append(action.until_s - now_s)
        now_s = action.until_s
    assert pauses == [RENEW_AGAIN_S, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0]
    assert next_action(renewed(failing, now_s, LEASE_TTL_S), now_s) == Wait(now_s + 120.0)


def test_a_short_lease_is_asked_for_more_often_than_the_usual_pause() -> None:
    """The pause after a failure follows the lease's time: a short one has room for a second try."""
    short = renewal_failed(Borrowed("l1", "uni-a", 0.0, 5.0), 1.0)
    assert next_action(short, 1.0) == Wait(1.5)


def test_it_never_waits_past_the_deadline() -> None:
    """Whoever sleeps until the given moment finds the lease over, not over long ago."""
    failing = renewal_failed(LEASE, 1599.0)
    assert next_action(failing, 1599.0) == Wait(1600.0)


def test_an_answer_that_comes_late_shortens_nothing() -> None:
    """The answer to an older question leaves the newer one's time."""
    fresh = renewed(LEASE, 1240.0, LEASE_TTL_S)
    assert renewed(fresh, 1120.0, LEASE_TTL_S) == fresh


@pytest.mark.parametrize(
    "ttl_s", [0.0, -1.0, MIN_LEASE_TTL_S / 2, 2 * MAX_LEASE_TTL_S, math.inf, math.nan], ids=repr
)
def test_a_time_that_no_donor_means_is_not_believed(ttl_s: float) -> None:
    """Neither a lease for ever nor one to be renewed without a pause, in a commit or a renewal."""
    with pytest.raises(PeerNodeError, match="uni-a promises"):
        Borrowed("l1", "uni-a", 0.0, ttl_s)
    with pytest.raises(PeerNodeError):
        renewed(LEASE, 1120.0, ttl_s)


@given(
    ttl_s=st.floats(MIN_LEASE_TTL_S, MAX_LEASE_TTL_S),
    calls=st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=30),
)
def test_the_borrower_stops_before_the_donor_does(ttl_s: float, calls: list[tuple[float, bool]]) -> None:
    """Whatever renewals fail and however long answers take, its time ends no later than the donor's.

    The donor counts from when a question reached it, which is after it was sent.
    """
    now_s, lease, donor_until_s = 0.0, Borrowed("l1", "uni-a", 0.0, ttl_s), ttl_s
    for delay_s, answered in calls:
        action = next_action(lease, now_s)
        if isinstance(action, Wait):
            assert action.until_s > now_s
            now_s = action.until_s
            action = next_action(lease, now_s)
        if isinstance(action, Expired):
            break
        assert isinstance(action, Renew)
        assert now_s < donor_until_s
        sent_s, now_s = now_s, now_s + delay_s
        if answered and sent_s + delay_s / 2 < donor_until_s:
            donor_until_s = sent_s + delay_s / 2 + ttl_s
            lease = renewed(lease, sent_s, ttl_s)
        else:
            lease = renewal_failed(lease, now_s)
    assert lease.deadline_s <= donor_until_s
    assert next_action(lease, donor_until_s) == Expired()


@given(st.floats(MIN_LEASE_TTL_S, MAX_LEASE_TTL_S), st.integers(1, 10_000))
def test_failures_never_make_it_ask_without_a_pause(ttl_s: float, failures: int) -> None:
    """The shortest pause is a tenth of the shortest lease, after any number of failures."""
    lease = Borrowed("l1", "uni-a", 0.0, ttl_s, failures, ttl_s / 10)
    action = next_action(lease, ttl_s / 10)
    assert isinstance(action, Wait)
    assert action.until_s - ttl_s / 10 >= min(RENEW_AGAIN_S, MIN_LEASE_TTL_S / 10) * 0.999
