"""A donor's leases, rule by rule; the scenarios in tests/scenarios tell whole stories."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from agent.errors import InternalError
from agent.gateway.core.book import Book, Cause, Lease, LeaseState, Offer, Terms, lease_id_of
from agent.gateway.core.events import (
    Effect,
    Ended,
    Event,
    Granted,
    NodeHeard,
    Notice,
    OfferAsked,
    OfferCommitted,
    Offered,
    Queued,
    Receipted,
    Reclaimed,
    Record,
    Refuse,
    Released,
    Renewed,
    Restored,
    RunnerEnded,
    Started,
    StartFailed,
    Stop,
    Tick,
    Withdrawn,
)
from agent.gateway.core.fleet import Device, DeviceRef, NodeReport
from agent.gateway.core.leases import State, next_deadline_s, step
from agent.gateway.core.request import LeaseRequest
from agent.limits import (
    LEASE_REPORT_GRACE_S,
    LEASE_TTL_S,
    MAX_ENDED_KEPT,
    MAX_NODES,
    MAX_OFFERS,
    MAX_SITE_LEASES,
    NODE_FORGOTTEN_S,
    NODE_LOST_LEASE_S,
    OFFER_TTL_S,
)

REQUEST = LeaseRequest(
    id="r1",
    borrower_site="uni-b",
    borrower_node="b1",
    model="uni-a/llama",
    image_id="a" * 64,
    total_bytes=10,
    account="",
    purpose="",
)
REPORT = NodeReport("n1", "n1:7400", (Device("gpu0", "gpu", 80),), (), (), 0, True, 0.0)
GPU0 = DeviceRef("n1", "gpu0")


def lease_id(request: LeaseRequest, offer_id: str) -> str:
    """The id of the lease that an offer becomes."""
    return lease_id_of(Offer(offer_id, request, (GPU0,), warm=False, expires_at_s=0.0))


L1 = lease_id(REQUEST, "o1")


def run(state: State, *events: Event) -> tuple[State, list[Effect]]:
    """All effects of some events, one after the other."""
    effects: list[Effect] = []
    for event in events:
        state, more = step(state, event)
        effects += (one for one in more if not isinstance(one, Record))
    return state, effects


def kinds(effects: Iterable[Effect]) -> list[str]:
    """The effects by the names of their classes."""
    return [type(one).__name__ for one in effects]


def refusal(effects: Iterable[Effect]) -> str:
    """The code of the one refusal."""
    (one,) = effects
    assert isinstance(one, Refuse)
    assert one.refused.sentence.endswith(".")
    assert one.refused.fix
    return one.refused.code


def heard(*leases: str, now_s: float, node: str = "n1") -> NodeHeard:
    """A report of the one node."""
    return NodeHeard(replace(REPORT, node=node, leases=leases), now_s)


def committed(*, ttl_s: float = LEASE_TTL_S) -> State:
    """A lease l1 from the offer o1, committed at 0."""
    state = State(Book(ttl_s))
    commit = OfferCommitted("o1", "uni-b", 0.0)
    return run(state, heard(now_s=0.0), OfferAsked(REQUEST, "o1", 0.0), commit)[0]


def active() -> State:
    """The lease l1, started at 1."""
    return run(committed(), Started(L1, 1.0))[0]


def ended(effects: Iterable[Effect]) -> list[tuple[str, str]]:
    """The leases that ended, with their reasons."""
    return [(one.lease.id, one.reason) for one in effects if isinstance(one, Ended)]


# --- offers -----------------------------------------------------------------------------------------------


def test_an_offered_device_is_offered_to_nobody_else_until_the_offer_is_over() -> None:
    """The second borrower waits, and is offered the device at the moment at which the offer ends."""
    state, effects = run(State(), heard(now_s=0.0), OfferAsked(REQUEST, "o1", 0.0))
    (offered,) = effects
    assert isinstance(offered, Offered)
    assert (offered.offer.device, offered.offer.expires_at_s) == (GPU0, OFFER_TTL_S)
    other = replace(REQUEST, borrower_site="uni-c")
    state, effects = run(state, heard(now_s=29.0), OfferAsked(other, "o2", 29.9))
    (queued,) = effects
    assert isinstance(queued, Queued)
    assert (queued.place.position, queued.place.waiting) == (1, 1)
    state, effects = run(state, Tick(OFFER_TTL_S))
    assert kinds(effects) == ["Offered"]
    assert set(state.book.offers) == {"o2"}


def test_the_same_request_gets_the_same_offer_again() -> None:
    """A question that is repeated after a lost answer holds one device, and no longer than the first."""
    state, first = run(State(), heard(now_s=0.0), OfferAsked(REQUEST, "o1", 0.0))
    state, second = run(state, OfferAsked(REQUEST, "o2", 10.0))
    assert second == first
    assert len(state.book.offers) == 1


def test_a_request_that_has_its_lease_gets_no_second_one() -> None:
    """Neither while it starts nor while it runs; when it has ended, the same request may come again."""
    assert refusal(run(active(), OfferAsked(REQUEST, "o2", 5.0))[1]) == "granted-already"
    over = run(active(), RunnerEnded(L1, "gone", 5.0))[0]
    assert kinds(run(over, OfferAsked(REQUEST, "o2", 6.0))[1]) == ["Offered"]


def test_open_offers_and_leases_have_bounds() -> None:
    """A book that is full offers nothing more, whatever devices there are: who asks waits."""
    devices = tuple(Device(f"gpu{number}", "gpu", 80) for number in range(MAX_SITE_LEASES + 1))
    state, _ = run(State(), NodeHeard(replace(REPORT, devices=devices), 0.0))
    for number in range(MAX_OFFERS):
        state, effects = run(state, OfferAsked(replace(REQUEST, id=f"r{number}"), f"o{number}", 0.0))
        assert kinds(effects) == ["Offered"]
    more = OfferAsked(replace(REQUEST, borrower_site="uni-z", id="more"), "more", 0.0)
    assert kinds(run(state, more)[1]) == ["Queued"]
    lease = next(iter(active().book.leases.values()))
    leases = {
        f"l{number}": replace(
            lease,
            id=f"l{number}",
            request=replace(REQUEST, id=f"r{number}"),
            devices=(DeviceRef("n1", f"gpu{number}"),),
        )
        for number in range(MAX_SITE_LEASES)
    }
    state = replace(state, book=Book(leases=leases))
    assert kinds(run(state, more)[1]) == ["Queued"]


# --- commit -----------------------------------------------------------------------------------------------


def test_a_commit_is_saved_before_it_is_answered_and_answered_before_it_is_started() -> None:
    """The order of the effects is the order of carrying them out."""
    state, _ = run(State(), heard(now_s=0.0), OfferAsked(REQUEST, "o1", 0.0))
    state, effects = run(state, OfferCommitted("o1", "uni-b", 3.0))
    assert kinds(effects) == ["Save", "Granted", "Start"]
    lease = state.book.leases[L1]
    assert (lease.state, lease.device, lease.deadline_s) == (LeaseState.COMMITTED, GPU0, 3.0 + LEASE_TTL_S)
    assert state.book.offers == {}


def test_a_second_commit_repeats_the_lease() -> None:
    """It starts nothing, and the id that came with it is not used."""
    state, effects = run(active(), OfferCommitted("o1", "uni-b", 20.0))
    assert effects == [Granted(state.book.leases[L1])]
    assert set(state.book.leases) == {L1}


def test_a_second_commit_of_a_lease_that_ended_is_refused() -> None:
    """Nothing is started again for it."""
    state, _ = run(active(), Released(L1, "uni-b", "done", 5.0))
    assert refusal(run(state, OfferCommitted("o1", "uni-b", 6.0))[1]) == "lease-ended"


@pytest.mark.parametrize("late_s", [OFFER_TTL_S, OFFER_TTL_S + 100])
def test_an_offer_that_is_over_cannot_be_committed(late_s: float) -> None:
    """From the moment at which it ends, tick or no tick; an offer that never was is answered alike."""
    state, _ = run(State(), heard(now_s=0.0), OfferAsked(REQUEST, "o1", 0.0))
    assert refusal(run(state, OfferCommitted("o1", "uni-b", late_s))[1]) == "offer-expired"
    assert refusal(run(state, OfferCommitted("o9", "uni-b", 1.0))[1]) == "offer-expired"


def test_another_site_cannot_commit() -> None:
    """Neither an open offer, which stays its borrower's, nor one that became a lease."""
    state, _ = run(State(), heard(now_s=0.0), OfferAsked(REQUEST, "o1", 0.0))
    after, effects = run(state, OfferCommitted("o1", "uni-c", 1.0))
    assert refusal(effects) == "not-yours"
    assert after.book == state.book
    assert refusal(run(active(), OfferCommitted("o1", "uni-c", 1.0))[1]) == "not-yours"


def test_an_id_is_used_once() -> None:
    """A shell that makes the same nonce twice is stopped, before one lease overwrites another."""
    state, _ = run(active(), Released(L1, "uni-b", "done", 5.0), RunnerEnded(L1, "stopped", 5.0))
    state, _ = run(state, OfferAsked(REQUEST, "o1", 6.0))
    with pytest.raises(InternalError):
        step(state, OfferCommitted("o1", "uni-b", 7.0))


# --- life and end -----------------------------------------------------------------------------------------


def test_a_lease_lives_from_renewal_to_renewal() -> None:
    """Each is saved and answered; without one it ends at its time, and its runner is stopped."""
    state, effects = run(active(), Renewed(L1, "uni-b", 500.0))
    assert kinds(effects) == ["Save", "Granted"]
    assert state.book.leases[L1].deadline_s == 500.0 + LEASE_TTL_S
    state, effects = run(state, heard(L1, now_s=1090.0), Tick(1099.9))
    assert effects == []
    state, effects = run(state, Tick(1100.0))
    assert kinds(effects) == ["Save", "Stop", "Ended"]
    assert ended(effects) == [(L1, "its borrower did not renew it in time")]
    assert next_deadline_s(state) is None


def test_a_renewal_that_comes_too_late_finds_the_lease_over() -> None:
    """The lease ends first, even if no tick came, and the renewal is refused."""
    _, effects = run(active(), Renewed(L1, "uni-b", LEASE_TTL_S))
    assert kinds(effects) == ["Save", "Stop", "Ended", "Refuse"]


def test_the_books_own_time_is_used() -> None:
    """A book that was given another time keeps to it."""
    state = committed(ttl_s=60.0)
    state, effects = run(state, heard(now_s=40.0), Tick(59.9))
    assert effects == []
    assert kinds(run(state, Tick(60.0))[1]) == ["Save", "Stop", "Ended"]


@pytest.mark.parametrize(
    "event", [Renewed(L1, "uni-c", 5.0), Released(L1, "uni-c", "mine now", 5.0)], ids=["renew", "release"]
)
def test_another_site_can_do_nothing_with_a_lease(event: Event) -> None:
    """It is refused, and the lease is as it was."""
    state = active()
    after, effects = run(state, event)
    assert refusal(effects) == "not-yours"
    assert after.book == state.book


@pytest.mark.parametrize("event", [Renewed("l9", "uni-b", 5.0), Released("l9", "uni-b", "", 5.0)])
def test_a_lease_that_never_was_is_unknown(event: Event) -> None:
    """There is nothing to renew or to give back."""
    assert refusal(run(active(), event)[1]) == "unknown-lease"


def test_giving_back_twice_says_how_it_ended() -> None:
    """The first ends it and stops its runner; the second is told the reason."""
    state, effects = run(active(), Released(L1, "uni-b", "enough", 5.0))
    assert kinds(effects) == ["Save", "Stop", "Ended"]
    assert ended(effects) == [(L1, "enough")]
    state, effects = run(state, Released(L1, "uni-b", "enough", 6.0))
    assert refusal(effects) == "lease-ended"
    (refuse,) = effects
    assert isinstance(refuse, Refuse)
    assert "enough" in refuse.refused.sentence


def test_an_offer_that_is_not_taken_is_given_back() -> None:
    """Its device is free at once, nothing is stopped for it, and it cannot be committed any more."""
    state, _ = run(State(), heard(now_s=0.0), OfferAsked(REQUEST, "o1", 0.0))
    state, effects = run(state, Released("o1", "uni-b", "another offer was taken", 1.0))
    assert effects == []
    assert state.book.taken() == frozenset()
    assert refusal(run(state, OfferCommitted("o1", "uni-b", 2.0))[1]) == "offer-expired"


def test_another_sites_offer_cannot_be_given_back() -> None:
    """It is answered like one that never was, and stays open."""
    state, _ = run(State(), heard(now_s=0.0), OfferAsked(REQUEST, "o1", 0.0))
    after, effects = run(state, Released("o1", "uni-c", "mine now", 1.0))
    assert refusal(effects) == "unknown-lease"
    assert after.book == state.book


def test_a_start_that_fails_ends_the_lease_and_stops_what_may_still_come() -> None:
    """An order that nobody answered may be carried out later: the device waits for its node's word."""
    state, effects = run(committed(), StartFailed(L1, "no answer", 5.0))
    assert kinds(effects) == ["Save", "Stop", "Ended"]
    assert GPU0 in state.book.taken()


def test_a_runner_that_dies_ends_its_lease_and_frees_the_device() -> None:
    """There is nothing to stop; the next borrower has the device at once."""
    state, effects = run(active(), RunnerEnded(L1, "killed by signal 9", 5.0))
    assert kinds(effects) == ["Save", "Ended"]
    assert state.book.taken() == frozenset()
    named, _ = run(active(), heard(L1, now_s=4.0), RunnerEnded(L1, "killed by signal 9", 5.0))
    again = OfferAsked(replace(REQUEST, id="r2"), "o2", 5.1)
    assert kinds(run(named, again)[1]) == ["Offered"], "the last report names it still, its node knows better"
    assert kinds(run(named, heard(L1, now_s=5.1), again)[1]) == ["Stop", "Queued"], "it names it again"


@pytest.mark.parametrize("ran_s", [5.0, 900.0])
def test_an_end_for_the_owner_is_one_though_his_notice_was_not_heard(ran_s: float) -> None:
    """A gateway that started again knows it from the node's word alone, and charges as if it had heard it."""
    terms = Terms(grace_s=0.0, min_runtime_s=900.0)
    lease = replace(saved(), terms=terms, granted_at_s=0.0, deadline_s=2000.0)
    state, _ = run(State(), Restored((lease,), 1.0))
    state, effects = step(state, RunnerEnded(L1, "the owner of cpu0 needs it", ran_s, for_owner=True))
    over = state.book.ended[L1]
    assert (over.cause, over.reason) == (Cause.RECLAIMED, "its owner needs the device")
    assert over.refunded is (ran_s < 900.0)
    assert state.book.taken() == frozenset()
    decisions = [(one.decision.kind, one.decision.code) for one in effects if isinstance(one, Record)]
    assert decisions == [("reclaim", "its owner needs the device"), ("end", "reclaimed")]
    alone, _ = run(active(), RunnerEnded(L1, "killed by signal 9", 5.0))
    assert (alone.book.ended[L1].cause, alone.book.ended[L1].refunded) == (Cause.GONE, False)


def test_an_end_after_the_end_is_nothing() -> None:
    """What its node says of a lease that is over changes nothing but that its device is free."""
    state, _ = run(active(), Released(L1, "uni-b", "done", 5.0))
    assert GPU0 in state.book.taken()
    state, effects = run(state, RunnerEnded(L1, "told to", 6.0), RunnerEnded(L1, "again", 7.0))
    assert effects == []
    assert state.book.taken() == frozenset()
    assert run(state, Started(L1, 8.0), StartFailed(L1, "late", 9.0))[1] == []


def test_a_start_that_ends_after_its_lease_is_called_off_again() -> None:
    """The stop may have come before what it was to stop."""
    state, _ = run(committed(), Released(L1, "uni-b", "done", 5.0))
    assert run(state, Started(L1, 6.0))[1] == [Stop("n1", L1, "its lease has ended")]


def test_ended_leases_are_remembered_up_to_a_bound() -> None:
    """The oldest is forgotten first; a question for it is answered like one for a lease that never was."""
    state = active()
    state, _ = run(state, RunnerEnded(L1, "gone", 5.0))
    for number in range(MAX_ENDED_KEPT):
        now_s = 6.0
        request = replace(REQUEST, id=f"x{number}")
        lease = lease_id(request, f"x{number}")
        ask = OfferAsked(request, f"x{number}", now_s)
        commit = OfferCommitted(f"x{number}", "uni-b", now_s)
        state, effects = run(state, ask, commit, RunnerEnded(lease, "gone", now_s))
        assert ended(effects) == [(lease, "gone")]
    assert len(state.book.ended) == MAX_ENDED_KEPT
    assert refusal(run(state, Released(L1, "uni-b", "", 7.0))[1]) == "unknown-lease"
    assert (
        refusal(run(state, Released(lease_id(replace(REQUEST, id="x0"), "x0"), "uni-b", "", 7.0))[1])
        == "lease-ended"
    )


# --- nodes ------------------------------------------------------------------------------------------------


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


# --- after a start of the gateway -------------------------------------------------------------------------


def saved() -> Lease:
    """The lease as it is on disk."""
    return active().book.leases[L1]


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


def test_a_step_changes_nothing_that_was() -> None:
    """The state before a step is the state before it, whatever the step does."""
    state = active()
    book = state.book
    copies = [dict(one) for one in (book.offers, book.leases, book.stopping, book.ended)]
    run(state, Released(L1, "uni-b", "done", 5.0), Tick(9999.0))
    assert [dict(one) for one in (book.offers, book.leases, book.stopping, book.ended)] == copies
