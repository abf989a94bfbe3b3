"""Leases from disk after a start of the gateway: which go on, on which terms, and which end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lease_steps import GPU0, L1, REQUEST, ended, heard, kinds, refusal, run, saved

from agent.gateway.core.book import Cause, LeaseState, Terms
from agent.gateway.core.events import (
    Granted,
    OfferAsked,
    OfferCommitted,
    Receipted,
    Reclaimed,
    Renewed,
    Restored,
    Tick,
)
from agent.gateway.core.fleet import DeviceRef
from agent.gateway.core.leases import State
from agent.limits import LEASE_REPORT_GRACE_S, LEASE_TTL_S


def test_a_lease_from_disk_keeps_its_device_until_its_node_names_it() -> None:
    """Nobody else gets the device meanwhile; with the node's word the lease is active again."""
    state, effects = run(State(), Restored((saved(),), 100.0), heard(L1, now_s=100.5))
    assert kinds(effects) == ["Save"]
    assert state.book.leases[L1].state is LeaseState.ACTIVE
    waiting, _ = run(State(), Restored((saved(),), 100.0), heard(now_s=101.0))
    assert GPU0 in waiting.book.taken()
    assert kinds(run(waiting, Renewed(L1, "uni-b", 102.0))[1]) == ["Save", "Granted"]


def test_a_lease_from_disk_that_its_node_does_not_name_ends() -> None:
    """By the node's report, or by its time if the node never comes back."""
    state, _ = run(State(), Restored((saved(),), 100.0))
    assert ended(run(state, heard(now_s=100.0 + LEASE_REPORT_GRACE_S))[1]) == [
        (L1, "its node no longer runs it")
    ]
    assert ended(run(state, Tick(LEASE_TTL_S))[1]) == [(L1, "its borrower did not renew it in time")]


def test_a_lease_from_disk_whose_time_is_over_ends_at_once() -> None:
    """Its device is not free before its node has said that nothing runs there."""
    state, effects = run(State(), Restored((saved(),), LEASE_TTL_S))
    assert kinds(effects) == ["Save", "Stop", "Ended"]
    assert GPU0 in state.book.taken()


def test_two_leases_from_disk_never_share_a_device() -> None:
    """Whatever is in the file, the first keeps the device and the second ends."""
    second = replace(saved(), id="l2", offer_id="o2", request=replace(REQUEST, id="r2"))
    state, effects = run(State(), Restored((saved(), second), 100.0))
    assert ended(effects) == [("l2", "another lease has its device")]
    assert set(state.book.leases) == {L1}


def test_a_commit_is_still_repeated_after_a_start() -> None:
    """The lease on disk knows its offer."""
    state, _ = run(State(), Restored((saved(),), 100.0))
    (granted,) = run(state, OfferCommitted("o1", "uni-b", 101.0))[1]
    assert isinstance(granted, Granted)
    assert granted.lease.id == L1


def test_a_request_that_has_its_lease_gets_no_second_one_after_a_start() -> None:
    """The lease on disk knows its request."""
    state, _ = run(State(), Restored((saved(),), 100.0), heard(L1, now_s=101.0))
    assert refusal(run(state, OfferAsked(REQUEST, "o2", 102.0))[1]) == "granted-already"


def test_a_notice_goes_on_after_a_start() -> None:
    """It ends at the deadline that its borrower knows, for the reason that it knows; late, at once."""
    told = replace(
        saved(), deadline_s=1000.0, notice_deadline_s=120.0, notice_cause=Cause.PREEMPTED, notice_reason="no"
    )
    state, effects = run(State(), Restored((told,), 100.0), heard(L1, now_s=101.0), Tick(119.0))
    assert ended(effects) == []
    assert ended(run(state, Tick(120.0))[1]) == [(L1, "no")]
    state, effects = run(State(), Restored((told,), 130.0))
    assert ended(effects) == [(L1, "no")]
    assert state.book.ended[L1].cause is Cause.PREEMPTED


@pytest.mark.parametrize(("age_s", "refunded"), [(899.0, True), (901.0, False)])
def test_the_minimum_time_counts_from_the_grant_after_a_start(age_s: float, refunded: bool) -> None:
    """Its donor's owner takes it back: refunded before then, charged after."""
    terms = Terms(grace_s=0.0, min_runtime_s=900.0)
    lease = replace(saved(), terms=terms, granted_at_s=1000.0 - age_s, deadline_s=2000.0)
    state, _ = run(State(), Restored((lease,), 999.0), Reclaimed("n1", "gpu0", "mine", 1000.0))
    assert state.book.ended[L1].refunded is refunded


def test_the_longest_time_counts_from_the_grant_after_a_start() -> None:
    """However often it is renewed."""
    lease = replace(saved(), terms=Terms(max_duration_s=150.0), granted_at_s=0.0, deadline_s=150.0)
    state, _ = run(State(), Restored((lease,), 100.0), heard(L1, now_s=101.0), Renewed(L1, "uni-b", 140.0))
    assert state.book.leases[L1].deadline_s == 150.0
    assert ended(run(state, Tick(150.0))[1]) == [(L1, "it has lasted as long as its terms allow")]


def test_a_charge_at_admission_outlives_a_start() -> None:
    """Its account is ranked with it, until a receipt says otherwise; no policy then, no charge now."""
    lease = replace(saved(), charge_msgs=5000, request=replace(REQUEST, account="/uni-b/x"))
    state, _ = run(State(), Restored((lease,), 10.0))
    assert state.charges.by_node["/uni-b"] == 5000
    state, _ = run(state, Receipted(L1, 2000, 11.0))
    assert state.charges.by_node["/uni-b"] == 3000
    assert dict(run(State(), Restored((saved(),), 10.0))[0].charges.by_node) == {}


def test_a_lease_that_waited_for_its_devices_ends_with_a_start() -> None:
    """Nothing of it runs; nothing is charged for it, and who has the devices keeps them."""
    second = replace(REQUEST, id="r2")
    waiting = replace(
        saved(), id="l2", offer_id="o2", request=second, state=LeaseState.WAITING, charge_msgs=7
    )
    for order in ((waiting, saved()), (saved(), waiting)):
        state, effects = run(State(), Restored(order, 30.0))
        assert ended(effects) == [("l2", "its donor started again before its devices were free")]
        assert set(state.book.leases) == {L1}
        assert state.book.index.taken == {GPU0: L1}
        assert dict(state.charges.by_node) == {}
        assert refusal(run(state, OfferAsked(second, "o3", 31.0))[1]) == "no-device"


def test_a_lease_that_cannot_go_on_ends_with_its_sentence() -> None:
    """What is left of it keeps its devices until its node has spoken; the others go on."""
    broken = replace(saved(), id="l2", devices=(DeviceRef("n1", "gpu1"),), reason="it is damaged")
    state, effects = run(State(), Restored((broken, saved()), 30.0))
    assert ended(effects) == [("l2", "it is damaged")]
    assert set(state.book.leases) == {L1}
    assert state.book.index.taken == {DeviceRef("n1", "gpu1"): "l2", GPU0: L1}
