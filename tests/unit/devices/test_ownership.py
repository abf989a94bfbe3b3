"""Who has a device: examples of a reclaim, its promises under any interleaving, and bugs that are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import Phase as Stage
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from agent.devices import ownership
from agent.devices.ownership import (
    Claimed,
    Effect,
    Event,
    GuestCame,
    GuestLeft,
    HandedOver,
    Held,
    Kill,
    LentAgain,
    MakeRoom,
    MemorySeen,
    Notify,
    Phase,
    Tick,
    Unclaimed,
    Withdraw,
    next_deadline_s,
)
from agent.limits import KILL_S, VERIFY_S

Step = Callable[[Held, Event], tuple[Held, tuple[Effect, ...]]]


def run(*events: Event) -> tuple[Held, list[Effect]]:
    """Return how a fresh device stands after events, and all effects."""
    held, told = Held(), []
    for event in events:
        held, effects = ownership.step(held, event)
        told += effects
    return held, told


def test_a_reclaim_from_demand_to_hand_over_and_back() -> None:
    """Room is made at once, the guest has its grace, is killed, memory is seen, the device is lent again."""
    held, told = run(GuestCame("l1", 10.0, 0.0), Claimed("use", "a process uses it", 5.0))
    assert held.phase is Phase.RECLAIMING
    assert told == [MakeRoom(), Notify("l1", 15.0)]
    held, told = ownership.step(held, Tick(14.9))  # type: ignore[assignment]
    assert (held.phase, told) == (Phase.RECLAIMING, ())
    held, told = ownership.step(held, Tick(15.0))  # type: ignore[assignment]
    assert held.phase is Phase.STOPPING
    assert Kill("l1") in told
    held, _ = ownership.step(held, GuestLeft("l1", 15.2))
    assert held.phase is Phase.VERIFYING
    held, told = ownership.step(held, MemorySeen(True, 15.4))  # type: ignore[assignment]
    assert held.phase is Phase.OWNED
    (over,) = told
    assert isinstance(over, HandedOver)
    assert (over.seconds, over.doubt) == (pytest.approx(10.4), False)
    assert not held.takes_guests
    held, told = ownership.step(held, Unclaimed("use", 60.0))  # type: ignore[assignment]
    assert (held.phase, told) == (Phase.LENT, (LentAgain(),))


def test_a_guest_that_leaves_early_ends_the_grace() -> None:
    """Nobody waits for a deadline when nothing runs any more."""
    held, _ = run(GuestCame("l1", 600.0, 0.0), Claimed("use", "", 1.0), GuestLeft("l1", 2.0))
    assert held.phase is Phase.VERIFYING


def test_a_device_without_guests_is_only_verified() -> None:
    """There is no grace for nobody."""
    held, told = run(Claimed("use", "", 1.0), MemorySeen(True, 1.2))
    assert held.phase is Phase.OWNED
    assert told[-1] == HandedOver(pytest.approx(0.2), doubt=False)  # type: ignore[arg-type]


def test_a_notice_is_withdrawn_when_the_last_claim_goes_within_the_grace() -> None:
    """The device is lent again at once, nobody is killed, and the next claim begins anew."""
    held, _ = run(
        GuestCame("l1", 10.0, 0.0), Claimed("use", "", 1.0), Claimed("mine", "", 2.0), Unclaimed("use", 3.0)
    )
    assert held.phase is Phase.RECLAIMING, "another claim stands"
    held, effects = ownership.step(held, Unclaimed("mine", 4.0))
    assert effects == (Withdraw("l1"), LentAgain())
    assert (held.phase, held.deadline_s, held.reclaims) == (Phase.LENT, None, 0)
    held, effects = ownership.step(held, Tick(40.0))
    assert effects == ()
    held, effects = ownership.step(held, Claimed("use", "", 50.0))
    assert effects == (MakeRoom(), Notify("l1", 60.0))


@pytest.mark.parametrize("late", [Tick(11.0), GuestLeft("l1", 10.5)])
def test_once_a_kill_was_due_or_nobody_is_left_the_device_goes_to_its_owner_first(late: Event) -> None:
    """What cannot be undone is gone through: a hand-over, and the device is lent after it."""
    held, told = run(GuestCame("l1", 10.0, 0.0), Claimed("use", "", 1.0), late, Unclaimed("use", 11.0))
    assert Withdraw("l1") not in told
    held, _ = ownership.step(held, GuestLeft("l1", 12.0))
    held, effects = ownership.step(held, MemorySeen(True, 12.0))
    assert [type(one) for one in effects] == [HandedOver, LentAgain]


def test_a_guest_that_cannot_be_killed_leaves_the_device_in_doubt() -> None:
    """It is handed over in time all the same, and not lent again before it was seen free."""
    held, told = run(GuestCame("l1", 5.0, 0.0), Claimed("use", "", 0.0), Tick(5.0), Tick(15.0), Tick(25.0))
    assert told[-1] == HandedOver(25.0, doubt=True)
    held, _ = ownership.step(held, Unclaimed("use", 26.0))
    held, _ = ownership.step(held, MemorySeen(True, 27.0))
    assert held.phase is Phase.OWNED, "its guest is still there"
    held, _ = ownership.step(held, GuestLeft("l1", 28.0))
    assert held.phase is Phase.OWNED, "its memory has not been seen since"
    held, told = ownership.step(held, MemorySeen(True, 29.0))
    assert (held.phase, told) == (Phase.LENT, (LentAgain(),))


def test_a_lease_that_slips_in_is_killed() -> None:
    """Whatever let it through, it does not stay beside the owner."""
    held, told = run(Claimed("use", "", 0.0), MemorySeen(True, 0.0), GuestCame("l1", 10.0, 1.0))
    assert told[-1] == Kill("l1")
    assert "l1" in held.guests


def test_a_late_clock_decides_as_a_punctual_one() -> None:
    """One look after all deadlines gives every kill, and the hand-over."""
    held, told = run(GuestCame("l1", 5.0, 0.0), Claimed("use", "", 0.0), Tick(3600.0))
    assert held.phase is Phase.OWNED
    assert [type(one) for one in told] == [MakeRoom, Notify, Kill, HandedOver]


class Reclaims(RuleBasedStateMachine):
    """Anything may happen in any order; the clock rings when it is asked to."""

    step: Step = staticmethod(ownership.step)

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.held = Held()
        self.demand_s: float | None = None
        self.grace_s = 0.0
        self.alive: set[str] = set()
        self.promised: set[str] = set()
        self.seen_free = False
        self.names = 0

    def feed(self, event: Event) -> None:
        was = self.held
        self.held, effects = self.step(was, event)
        if self.held.phase is was.phase:
            assert self.held.deadline_s == was.deadline_s, "a deadline was moved"
        for effect in effects:
            match effect:
                case MakeRoom():
                    assert self.demand_s is None
                    self.demand_s = self.now_s
                    self.grace_s = max(was.guests.values(), default=0.0)
                    self.promised = set(was.guests)  # whoever slips in later was promised nothing
                    self.seen_free = False
                case Notify(_, deadline_s):
                    assert self.demand_s is not None
                    assert deadline_s <= self.demand_s + self.grace_s
                case Kill(lease_id) if lease_id in self.promised and self.demand_s is not None:
                    assert self.now_s >= self.demand_s + self.grace_s, "killed within its grace"
                case HandedOver(_, doubt):
                    assert self.demand_s is not None
                    assert self.now_s <= self.demand_s + self.grace_s + KILL_S + VERIFY_S
                    assert doubt or not self.held.guests, "handed over beside a guest without a doubt"
                    self.demand_s = None
                case Withdraw(lease_id):
                    assert lease_id in was.guests
                    assert self.demand_s is not None
                    assert self.now_s < self.demand_s + self.grace_s, "it was to be killed by now"
                case LentAgain():
                    assert not self.held.claims
                    withdrawn = {one.lease_id for one in effects if isinstance(one, Withdraw)}
                    assert set(self.held.guests) == withdrawn, "a guest goes on that was told to go"
                    self.demand_s = None

    @rule(which=st.sampled_from("abc"))
    def claim(self, which: str) -> None:
        self.feed(Claimed(which, f"{which} wants it", self.now_s))

    @rule(which=st.sampled_from("abc"))
    def unclaim(self, which: str) -> None:
        self.feed(Unclaimed(which, self.now_s))

    @rule(grace_s=st.sampled_from([0.0, 5.0, 10.0, 120.0, 1800.0]), honest=st.booleans())
    def come(self, grace_s: float, honest: bool) -> None:
        if honest and not self.held.takes_guests:
            return
        self.names += 1
        self.alive.add(f"l{self.names}")
        self.feed(GuestCame(f"l{self.names}", grace_s, self.now_s))

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.alive:
            gone = data.draw(st.sampled_from(sorted(self.alive)))
            self.alive.discard(gone)
            self.feed(GuestLeft(gone, self.now_s))

    @rule(free=st.booleans())
    def see(self, free: bool) -> None:
        self.feed(MemorySeen(free, self.now_s))

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 60.0, 3600.0]))
    def pass_time(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while (due_s := next_deadline_s(self.held)) is not None and due_s <= end_s:
            self.now_s = max(self.now_s, due_s)
            self.feed(Tick(self.now_s))
        self.now_s = end_s
        self.feed(Tick(self.now_s))

    @invariant()
    def a_claimed_device_takes_no_guests(self) -> None:
        assert not (self.held.claims and self.held.takes_guests)

    @invariant()
    def nobody_waits_longer_than_promised(self) -> None:
        if self.demand_s is not None:
            assert self.now_s <= self.demand_s + self.grace_s + KILL_S + VERIFY_S

    @invariant()
    def a_doubt_is_not_lent(self) -> None:
        assert not (self.held.doubt and self.held.takes_guests)


Reclaims.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestReclaims = Reclaims.TestCase


def _guests_extend(held: Held, event: Event) -> tuple[Held, tuple[Effect, ...]]:
    after, effects = ownership.step(held, event)
    if isinstance(event, GuestCame) and after.deadline_s is not None and held.phase is Phase.RECLAIMING:
        after = replace(after, deadline_s=max(after.deadline_s, event.now_s + event.grace_s))
    return after, effects


def _claims_extend(held: Held, event: Event) -> tuple[Held, tuple[Effect, ...]]:
    after, effects = ownership.step(held, event)
    if isinstance(event, Claimed) and after.phase is Phase.VERIFYING and after.deadline_s is not None:
        after = replace(after, deadline_s=event.now_s + VERIFY_S)
    return after, effects


def _waits_for_guests(held: Held, event: Event) -> tuple[Held, tuple[Effect, ...]]:
    after, effects = ownership.step(held, event)
    if held.phase is Phase.STOPPING and after.phase is not Phase.STOPPING and after.guests:
        return replace(held, deadline_s=None), ()
    return after, effects


def _lends_in_doubt(held: Held, event: Event) -> tuple[Held, tuple[Effect, ...]]:
    after, effects = ownership.step(held, event)
    if after.phase is Phase.OWNED and after.doubt and not after.claims:
        after = replace(after, phase=Phase.LENT)
    return after, effects


def _kills_too_early(held: Held, event: Event) -> tuple[Held, tuple[Effect, ...]]:
    if isinstance(event, Claimed) and held.guests:
        return ownership.step(replace(held, guests=dict.fromkeys(held.guests, 0.0)), event)
    return ownership.step(held, event)


def _forgets_a_claim(held: Held, event: Event) -> tuple[Held, tuple[Effect, ...]]:
    after, effects = ownership.step(held, event)
    return (replace(after, claims={}), effects) if isinstance(event, Unclaimed) else (after, effects)


def _forgets_a_doubt(held: Held, event: Event) -> tuple[Held, tuple[Effect, ...]]:
    after, effects = ownership.step(held, event)
    if any(isinstance(one, HandedOver) for one in effects):
        effects = tuple(replace(one, doubt=False) if isinstance(one, HandedOver) else one for one in effects)
    return after, effects


def _lends_again_without_a_word(held: Held, event: Event) -> tuple[Held, tuple[Effect, ...]]:
    after, effects = ownership.step(held, event)
    return after, tuple(one for one in effects if not isinstance(one, Withdraw))


def _withdraws_too_late(held: Held, event: Event) -> tuple[Held, tuple[Effect, ...]]:
    after, effects = ownership.step(held, event)
    if held.phase is Phase.STOPPING and isinstance(event, Unclaimed) and not after.claims:
        after = replace(after, phase=Phase.LENT, deadline_s=None)
        effects = (*(Withdraw(one) for one in after.guests), LentAgain())
    return after, effects


@pytest.mark.parametrize(
    "bug",
    [
        _lends_again_without_a_word,
        _withdraws_too_late,
        _guests_extend,
        _claims_extend,
        _waits_for_guests,
        _lends_in_doubt,
        _kills_too_early,
        _forgets_a_claim,
        _forgets_a_doubt,
    ],
)
def test_a_planted_bug_is_found(bug: Step) -> None:
    """The machine above fails for each of them, so it holds what it says."""

    class Buggy(Reclaims):
        step = staticmethod(bug)

    search = settings(
        max_examples=1000,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Stage.generate],
    )
    with pytest.raises(Exception):  # noqa: B017 - an assertion, or hypothesis' group of them
        run_state_machine_as_test(Buggy, settings=search)
