"""A donor's leases rule by rule, from offer to end; the scenarios in tests/scenarios tell whole stories."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lease_steps import (
    GPU0,
    L1,
    REPORT,
    REQUEST,
    active,
    committed,
    ended,
    heard,
    kinds,
    lease_id,
    refusal,
    run,
    saved,
)

from agent.errors import InternalError
from agent.gateway.core.book import Book, Cause, LeaseState, Terms
from agent.gateway.core.events import (
    Event,
    Granted,
    NodeHeard,
    OfferAsked,
    OfferCommitted,
    Offered,
    Queued,
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
)
from agent.gateway.core.fleet import Device, DeviceRef
from agent.gateway.core.leases import State, next_deadline_s, step
from agent.limits import LEASE_TTL_S, MAX_ENDED_KEPT, MAX_OFFERS, MAX_SITE_LEASES, OFFER_TTL_S


def test_what_is_due_next_is_what_time_alone_would_do() -> None:
    """An offer's end, then its lease's notice, then the lease's end, without a tick between; then nothing."""
    two_hours = replace(REQUEST, duration_s=7200)
    state, _ = run(State(Book(1e9)), heard(now_s=0.0), OfferAsked(two_hours, "o1", 0.0))
    assert next_deadline_s(state) == OFFER_TTL_S
    state, _ = run(state, OfferCommitted("o1", "uni-b", 5.0))
    assert next_deadline_s(state) == 5.0 + 7200 - 10
    state, effects = run(state, heard(L1, now_s=7194.0), Tick(7195.0))
    assert kinds(effects) == ["Save", "Notice"]
    assert next_deadline_s(state) == 7205.0
    assert next_deadline_s(run(state, RunnerEnded(L1, "done", 7200.0))[0]) is None


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


def test_a_step_changes_nothing_that_was() -> None:
    """The state before a step is the state before it, whatever the step does."""
    state = active()
    book = state.book
    copies = [dict(one) for one in (book.offers, book.leases, book.stopping, book.ended)]
    run(state, Released(L1, "uni-b", "done", 5.0), Tick(9999.0))
    assert [dict(one) for one in (book.offers, book.leases, book.stopping, book.ended)] == copies
