"""What a node says, or does not, is what ends its leases and frees its devices."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lease_steps import GPU0, L1, REPORT, REQUEST, active, committed, ended, heard, kinds, refusal, run

from agent.gateway.core.book import Book, Cause, LeaseState, Terms
from agent.gateway.core.events import (
    NodeHeard,
    Notice,
    OfferAsked,
    OfferCommitted,
    Reclaimed,
    Released,
    Renewed,
    Restored,
    RunnerEnded,
    Stop,
    Tick,
    Withdrawn,
)
from agent.gateway.core.fleet import Device, DeviceRef
from agent.gateway.core.leases import State, step
from agent.limits import LEASE_REPORT_GRACE_S, MAX_NODES, NODE_FORGOTTEN_S, NODE_LOST_LEASE_S


def test_a_silent_node_keeps_its_lease_for_a_while() -> None:
    """Renewals are answered meanwhile; then it ends with the node's name, its device waits for the node."""
    state, effects = run(active(), Tick(20.0), Renewed(L1, "uni-b", 25.0), Tick(NODE_LOST_LEASE_S))
    assert kinds(effects) == ["Save", "Granted"]
    state, effects = run(state, Tick(NODE_LOST_LEASE_S + 0.1))
    assert kinds(effects) == ["Save", "Stop", "Ended"]
    assert ended(effects) == [(L1, "its node n1 has not been heard of for 30 s")]
    assert GPU0 in state.book.taken()
    state, effects = run(state, heard(L1, now_s=100.0))
    assert kinds(effects) == ["Stop"]
    assert GPU0 in state.book.taken()
    assert run(state, heard(now_s=110.0))[0].book.taken() == frozenset()


def test_a_word_of_the_node_counts_before_its_silence() -> None:
    """What arrives before the clock is looked at keeps the lease, however late it comes."""
    state, effects = run(active(), heard(L1, now_s=100.0), Tick(100.0 + NODE_LOST_LEASE_S))
    assert effects == []
    assert kinds(run(state, Tick(100.1 + NODE_LOST_LEASE_S))[1]) == ["Save", "Stop", "Ended"]


@pytest.mark.parametrize(("ttl_s", "lost_s"), [(1.0, 10.0), (20.0, 20.0), (600.0, 30.0)])
def test_a_short_lease_waits_no_longer_for_its_node_than_its_time(ttl_s: float, lost_s: float) -> None:
    """By then the node has ended it by itself; but five reports may be missing whatever the time."""
    assert Book(ttl_s).node_lost_s == lost_s


def test_a_node_that_is_never_heard_after_a_start_loses_its_lease() -> None:
    """Its silence counts from the start of the gateway."""
    lease = replace(active().book.leases[L1], deadline_s=1000.0)
    state, effects = run(State(), Restored((lease,), 50.0), Tick(50.0 + NODE_LOST_LEASE_S))
    assert effects == []
    state, effects = run(state, Tick(50.1 + NODE_LOST_LEASE_S))
    assert ended(effects) == [(L1, "its node n1 has not been heard of for 30 s")]
    assert GPU0 in state.book.taken()


def test_a_node_that_does_not_name_its_lease_no_longer_runs_it() -> None:
    """Not by a report that may be older than the start, but by the first that cannot be."""
    state, effects = run(active(), heard(now_s=1.0 + LEASE_REPORT_GRACE_S - 0.1))
    assert effects == []
    state, effects = run(state, heard(now_s=1.0 + LEASE_REPORT_GRACE_S))
    assert kinds(effects) == ["Save", "Ended"]
    assert ended(effects) == [(L1, "its node no longer runs it")]


def test_a_start_may_take_long() -> None:
    """Before it has started, a lease is not missed in reports."""
    assert run(committed(), heard(now_s=300.0), heard(L1, now_s=302.0))[1] == []


def test_a_lease_that_has_ended_is_stopped_at_each_report_and_its_device_waits() -> None:
    """The device is free with a report that was surely made after the end and does not name the lease."""
    state, _ = run(active(), Released(L1, "uni-b", "done", 20.0))
    state, effects = run(state, heard(L1, now_s=40.0), heard(L1, now_s=42.0))
    assert [(one.node, one.lease_id) for one in effects if isinstance(one, Stop)] == [("n1", L1)] * 2
    assert GPU0 in state.book.taken()
    assert GPU0 in run(state, heard(now_s=43.0, node="n2"))[0].book.taken(), (
        "another node knows nothing of it"
    )
    assert run(state, heard(now_s=43.0))[0].book.taken() == frozenset()
    early, _ = run(active(), Released(L1, "uni-b", "done", 20.0), heard(now_s=21.0))
    assert GPU0 in early.book.taken(), "this report may be older than the end"


def test_a_node_that_runs_what_nobody_gave_it_is_told_to_stop() -> None:
    """Be the lease unknown, or given to another node."""
    state = active()
    _, effects = run(state, heard("l7", L1, now_s=5.0))
    assert [(one.node, one.lease_id) for one in effects if isinstance(one, Stop)] == [("n1", "l7")]
    _, effects = run(state, heard(L1, now_s=5.0, node="n2"))
    assert [(one.node, one.lease_id) for one in effects if isinstance(one, Stop)] == [("n2", L1)]


def test_a_fleet_has_a_bound() -> None:
    """One node more is refused; the known ones go on reporting."""
    state = State()
    for number in range(MAX_NODES):
        state, effects = step(state, heard(now_s=0.0, node=f"m{number}"))
        assert effects == ()
    after, effects = step(state, heard(now_s=1.0, node="more"))
    assert refusal(effects) == "full"
    assert after.fleet == state.fleet
    assert step(state, heard(now_s=1.0, node="m0"))[1] == ()


def test_a_node_that_is_silent_for_long_is_forgotten() -> None:
    """With it goes what was to be stopped there; when it comes back, it reports that itself."""
    state, _ = run(active(), Released(L1, "uni-b", "done", 20.0))
    state, _ = run(state, Tick(NODE_FORGOTTEN_S))
    assert "n1" in state.fleet.nodes
    state, _ = run(state, Tick(NODE_FORGOTTEN_S + 1.0))
    assert state.fleet.nodes == {}
    assert state.book.taken() == frozenset()


def test_an_owner_takes_a_device_back() -> None:
    """Its lease ends, its offer is void, and it is not offered again before its node has spoken."""
    state, effects = run(active(), Reclaimed("n1", "gpu0", "its owner needs it", 5.0))
    assert kinds(effects) == ["Save", "Stop", "Ended"]
    state, _ = run(state, RunnerEnded(L1, "stopped", 6.0))
    assert refusal(run(state, OfferAsked(REQUEST, "o2", 7.0))[1]) == "no-device"
    assert kinds(run(state, heard(now_s=8.0), OfferAsked(REQUEST, "o2", 9.0))[1]) == ["Offered"]
    state, _ = run(State(), heard(now_s=0.0), OfferAsked(REQUEST, "o1", 0.0))
    state, effects = run(state, Reclaimed("n1", None, "its owner needs it", 1.0))
    assert effects == []
    assert refusal(run(state, OfferCommitted("o1", "uni-b", 2.0))[1]) == "offer-expired"
    after = run(state, Withdrawn("r1", "uni-b", 2.0), OfferAsked(REQUEST, "o2", 2.0))[1]
    assert refusal(after) == "not-donating"


@pytest.mark.parametrize(("node", "device"), [("n2", None), ("n1", "gpu1")])
def test_a_reclaim_touches_nothing_else(node: str, device: str | None) -> None:
    """Leases of other nodes and devices go on."""
    state = active()
    after, effects = run(state, Reclaimed(node, device, "its owner needs it", 5.0))
    assert effects == []
    assert after.book == state.book


def test_an_owner_that_changes_its_mind_does_not_stop_a_guest_from_making_room() -> None:
    """The owner wanted one device, another guest is to have the other one: that notice is given again."""
    both = (GPU0, DeviceRef("n1", "gpu1"))
    victim = replace(
        active().book.leases[L1],
        devices=both,
        deadline_s=900.0,
        terms=Terms(grace_s=10.0),
        notice_deadline_s=45.0,
        notice_cause=Cause.RECLAIMED,
        notice_reason="its owner needs the device",
    )
    heir = replace(victim, id="l2", request=replace(REQUEST, id="r2"), state=LeaseState.WAITING)
    heir = replace(heir, devices=(GPU0,), notice_deadline_s=None, notice_cause=None, watched_from_s=None)
    report = replace(REPORT, devices=tuple(Device(one.device, "gpu", 80) for one in both), leases=(L1,))
    state = State(Book(leases={L1: victim, "l2": heir}))
    state, effects = run(state, NodeHeard(report, 40.0))
    (notice,) = [one for one in effects if isinstance(one, Notice)]
    assert (notice.lease.notice_cause, notice.deadline_s) == (Cause.PREEMPTED, 50.0)
    state, _ = run(state, Tick(50.0), RunnerEnded(L1, "stopped", 51.0))
    assert state.book.leases["l2"].state is LeaseState.COMMITTED
