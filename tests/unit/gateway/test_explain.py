"""Why a request waits, each kind of reason by itself: without it the outcome is another one (I15)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from trials import OUTCOMES, explain, outcome_of, without

from agent.gateway.core.book import Cause
from agent.gateway.core.events import (
    EgressCounted,
    NodeHeard,
    OfferAsked,
    OfferCommitted,
    Offered,
    PolicyChanged,
    Released,
    RunnerEnded,
    StandingChanged,
)
from agent.gateway.core.fleet import Device, NodeReport
from agent.gateway.core.law import Law
from agent.gateway.core.leases import State, step
from agent.gateway.core.places import place_now
from agent.gateway.core.request import LeaseRequest
from federation.fairshare.decay import SCALE_BITS
from federation.fairshare.freshness import Split
from federation.fairshare.reasons import (
    DonorPaused,
    EgressExhausted,
    LedgerStale,
    LowerThan,
    OverShareCap,
    Reason,
    Reserved,
    WaitingForCapacity,
    WaitingForReclaim,
)
from federation.fairshare.standing import Standing
from federation.fairshare.usage import by_node
from federation.policy.policy import AccountRule, Caps, ClassRule, Data, Lend, Policy, PurposeRule

NOW_S = 1000.0
AGES_S = 20.0


def _account(path: str, *classes: str) -> AccountRule:
    return AccountRule(path, 1, classes, (path.split("/")[1],), {}, open=True)


POLICY = Policy(
    name="c",
    version=1,
    effective_at_s=0,
    digest="d",
    accounts={
        "/uni-b": _account("/uni-b"),
        "/uni-b/class": _account("/uni-b/class", "student"),
        "/uni-c": _account("/uni-c"),
    },
    classes={"student": ClassRule("student", 0, ("consortium",))},
    purposes={"teaching": PurposeRule("teaching", 1000, ("*",))},
    device_classes={"gpu": 1000},
    caps=Caps(over_share_permille=10**6),
    lend=Lend(10, 10, 4, 900, 7200),
)
RESERVING = replace(POLICY, classes={"student": ClassRule("student", 500, ("consortium",))})
CAPPED = replace(POLICY, caps=Caps(over_share_permille=1000))


def request(name: str, account: str = "/uni-b") -> LeaseRequest:
    """A request for one device."""
    return LeaseRequest(
        id=name,
        borrower_site=account.split("/")[1],
        borrower_node="b1",
        model="m",
        image_id="a" * 64,
        total_bytes=1,
        account=account,
        purpose="teaching",
    )


def report(count: int, *leases: str) -> NodeHeard:
    """A node with so many devices."""
    devices = tuple(Device(f"g{at}", "gpu", 80, "gpu") for at in range(count))
    return NodeHeard(NodeReport("n1", "n1", devices, (), leases, 0, True, 0.0), NOW_S)


def standing(policy: Policy, donated: int = 4, **used: int) -> Standing:
    """Where the two institutions stand, in hours."""
    usage = by_node({f"/uni-{one}": hours * 3_600_000 << SCALE_BITS for one, hours in used.items()})
    return Standing(epoch=1, policy=policy, usage=usage, donated={"gpu": donated}, ledger_digest="l")


def site(policy: Policy | None = POLICY, devices: int = 1, **used: int) -> State:
    """A donor with free devices."""
    state, _ = step(State(law=Law(site="uni-a")), PolicyChanged(policy, NOW_S))
    if policy is not None:
        state, _ = step(state, StandingChanged(standing(policy, **used), NOW_S))
    return step(state, report(devices))[0]


def asks(state: State, asked: LeaseRequest) -> State:
    """Somebody asks, and takes what is offered."""
    state, effects = step(state, OfferAsked(asked, f"o-{asked.id}", NOW_S))
    for one in effects:
        if isinstance(one, Offered) and one.offer.request.key == asked.key:
            state, _ = step(state, OfferCommitted(one.offer.id, asked.borrower_site, NOW_S))
    return state


MINE = request("mine")


def _paused() -> State:
    return asks(site(replace(POLICY, lend=replace(POLICY.lend, hours=("mon 08:00-09:00",)))), MINE)


def _egress() -> State:
    state = site(replace(POLICY, data=Data(egress_bytes_per_day=10)))
    state, _ = step(state, EgressCounted(11, 3600.0, NOW_S))
    return asks(state, MINE)


def _capped() -> State:
    state = asks(site(CAPPED, 4), request("a"))
    state = asks(asks(state, request("b")), request("c"))
    for at in range(4):
        state = asks(state, request(f"other{at}", "/uni-c"))
    return asks(state, MINE)


def _capped_unheard() -> State:
    """Three of sixteen devices are here; two leases of which nobody has heard stand for eight more."""
    state, _ = step(site(CAPPED, 3), StandingChanged(standing(CAPPED, donated=16), NOW_S))
    state = asks(asks(state, request("a")), request("b"))
    for at in range(4):
        state = asks(state, request(f"other{at}", "/uni-c"))
    return asks(state, MINE)


def _behind_a_wide_one(age_s: float = AGES_S) -> State:
    """Two leases of three at most; the account's older request for two would exceed that, mine would not."""
    policy = replace(CAPPED, caps=Caps(over_share_permille=1500, max_wait_s=int(AGES_S)))
    state, _ = step(site(policy, 4), StandingChanged(standing(policy, c=50), NOW_S))
    for name, account in (("a", "/uni-b"), ("b", "/uni-b"), ("c", "/uni-c"), ("d", "/uni-c")):
        state = asks(state, request(name, account))
    wide = replace(request("wide"), devices=2)
    state, _ = step(state, OfferAsked(wide, "o-wide", NOW_S - age_s))
    return asks(asks(state, request("other", "/uni-c")), MINE)


def _reserved() -> State:
    return asks(asks(site(RESERVING, 2), request("a")), MINE)


def _lower() -> State:
    state = site(b=50, c=1)
    state = asks(state, request("held", "/uni-c"))
    state = asks(state, request("rival", "/uni-c"))
    return asks(state, MINE)


def _reclaim() -> State:
    state = asks(site(None), request("held", "/uni-c"))
    (lease,) = state.book.leases.values()
    told = replace(lease, notice_deadline_s=NOW_S + 9.0, notice_cause=Cause.PREEMPTED)
    return asks(replace(state, book=replace(state.book, leases={lease.id: told}, known_index=None)), MINE)


def _capacity() -> State:
    return asks(asks(site(None), request("held", "/uni-c")), MINE)


WORLDS: tuple[tuple[type[Reason], Callable[[], State]], ...] = (
    (DonorPaused, _paused),
    (EgressExhausted, _egress),
    (OverShareCap, _capped),
    (OverShareCap, _capped_unheard),
    (OverShareCap, _behind_a_wide_one),
    (Reserved, _reserved),
    (LowerThan, _lower),
    (WaitingForReclaim, _reclaim),
    (WaitingForCapacity, _capacity),
)


@pytest.mark.parametrize(("kind", "world"), WORLDS, ids=[kind.code for kind, _ in WORLDS])
def test_the_first_reason_decides(kind: type[Reason], world: Callable[[], State]) -> None:
    """It is named first, it is true, and with it gone the request fares better."""
    state = world()
    assert outcome_of(state, MINE.key, NOW_S) in ("waits", "next")
    place = place_now(state, MINE.key, NOW_S)
    assert place is not None
    assert isinstance(place.reasons[0], kind), place.reasons
    first = explain(state, MINE.key, NOW_S)[0]
    assert isinstance(first.reason, kind)
    assert first.decides
    others = place.reasons[1:]
    kept = outcome_of(without(state, MINE.key, others, NOW_S), MINE.key, NOW_S)
    freed = outcome_of(without(state, MINE.key, place.reasons, NOW_S, room_for_all=True), MINE.key, NOW_S)
    assert OUTCOMES.index(freed) > OUTCOMES.index(kept)
    assert freed == "offered"


@pytest.mark.parametrize(("kind", "world"), WORLDS[:7], ids=[kind.code for kind, _ in WORLDS[:7]])
def test_a_reason_that_is_taken_away_is_gone(kind: type[Reason], world: Callable[[], State]) -> None:
    """Whoever asks again in the copy is not told it, and the copy fares no worse."""
    state = world()
    place = place_now(state, MINE.key, NOW_S)
    assert place is not None
    copy = without(state, MINE.key, (place.reasons[0],), NOW_S)
    again = place_now(copy, MINE.key, NOW_S)
    assert again is not None
    assert not any(isinstance(one, kind) for one in again.reasons)
    before, after = (OUTCOMES.index(outcome_of(one, MINE.key, NOW_S)) for one in (state, copy))
    assert after >= before


def test_a_wide_request_that_has_waited_long_is_not_outrun_by_its_own_account() -> None:
    """Freed devices go to another account until it fits; before it has aged, the narrow one has them."""
    for age_s, served in ((AGES_S, "other"), (AGES_S - 1.0, "mine")):
        state = _behind_a_wide_one(age_s)
        state, effects = step(state, Released(state_lease(state, "c"), "uni-c", "done", NOW_S))
        (lease_id,) = state.book.stopping
        state, more = step(state, RunnerEnded(lease_id, "stopped", NOW_S))
        offered = [one.offer.request.id for one in (*effects, *more) if isinstance(one, Offered)]
        assert offered == [served], age_s
    place = place_now(_behind_a_wide_one(), MINE.key, NOW_S)
    assert place is not None
    assert place.reasons[0] == OverShareCap("/uni-b", 2, 3, 0, older=2)
    assert place.reasons[0].sentence().endswith("3 are the most. Its older request for 2 comes first.")


def state_lease(state: State, name: str) -> str:
    """The lease of a request."""
    return next(one.id for one in state.book.leases.values() if one.request.id == name)


def test_a_trial_changes_nothing() -> None:
    """The state that is asked about is the one that was."""
    state = _lower()
    before = (state.book, state.queue, state.law, dict(state.debts))
    explain(state, MINE.key, NOW_S)
    assert (state.book, state.queue, state.law, dict(state.debts)) == before


def test_who_does_not_wait_has_no_reasons() -> None:
    """Neither a place."""
    assert explain(site(), MINE.key, NOW_S) == ()
    assert place_now(site(), MINE.key, NOW_S) is None
    assert outcome_of(site(), MINE.key, NOW_S) == "refused"


def test_old_books_are_named_last() -> None:
    """They only change the order; fresh ones take the reason away."""
    state = _lower()
    known = state.law.standing
    assert known is not None
    old = replace(known, split=Split(0, {"/uni-b": 50, "/uni-c": 1}), oldest_head_age_s=7200)
    state, _ = step(state, StandingChanged(old, NOW_S))
    place = place_now(state, MINE.key, NOW_S)
    assert place is not None
    assert isinstance(place.reasons[-1], LedgerStale)
    fresh = place_now(without(state, MINE.key, (place.reasons[-1],), NOW_S), MINE.key, NOW_S)
    assert fresh is not None
    assert not any(isinstance(one, LedgerStale) for one in fresh.reasons)
