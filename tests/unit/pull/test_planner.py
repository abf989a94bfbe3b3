"""The rules of a pull, one by one, and all of them under random schedules."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyrdma.limits import (
    FIRST_PIECE_DEADLINE_S,
    MAX_BAD_PIECES,
    MAX_PIECE_DEADLINE_S,
    MIN_PIECE_DEADLINE_S,
    WAIT_EVERY_S,
    WINDOW_PIECES,
)
from pyrdma.pull.planner import Drop, Effect, Fetch, PullPlan, SourceState


def fetches(effects: list[Effect]) -> list[tuple[int, int]]:
    """The (piece, source) pairs that are asked for."""
    return [(one.piece, one.source) for one in effects if isinstance(one, Fetch)]


def drops(effects: list[Effect]) -> list[int]:
    """The sources that are let go of."""
    return [one.source for one in effects if isinstance(one, Drop)]


def bring(plan: PullPlan, piece: int, source: int, now_s: float) -> list[Effect]:
    """A piece arrives and is right."""
    assert plan.arrived(piece, source, now_s)
    return plan.judged(piece, source, True, now_s)


def test_rule_1_a_proven_piece_is_never_asked_for() -> None:
    """What is there from an earlier pull is left out, and a plan with everything there asks for nothing."""
    plan = PullPlan(6, 8, proven={0, 2, 5})
    assert fetches(plan.add_source("a", 0.0)) == [(1, 0), (3, 0), (4, 0)]
    whole = PullPlan(2, 8, proven={0, 1})
    assert whole.complete
    assert whole.add_source("a", 0.0) == []


def test_rule_2_a_source_has_a_window_and_all_together_the_slots() -> None:
    """One source gets the window; further ones only what slots are left, until a piece is proven."""
    plan = PullPlan(100, WINDOW_PIECES + 1)
    assert len(fetches(plan.add_source("a", 0.0))) == WINDOW_PIECES
    assert fetches(plan.add_source("b", 0.0)) == [(WINDOW_PIECES, 1)]
    assert plan.add_source("c", 0.0) == []
    assert plan.arrived(0, 0, 1.0)
    assert plan.surplus(1.0) == [], "a piece that is being proven still holds its slot"
    assert len(fetches(plan.judged(0, 0, True, 1.0))) == 1


def test_rule_2_a_slow_source_has_a_smaller_window() -> None:
    """A source four times slower than the best has one piece in flight, not four."""
    plan = PullPlan(1000, 8)
    plan.add_source("fast", 0.0)
    plan.add_source("slow", 0.0)
    now_s, fast, slow = 0.0, {0, 1, 2, 3}, [4, 5, 6, 7]
    for _ in range(10):
        for _ in range(8):
            now_s += 0.1
            piece = min(fast)
            fast.discard(piece)
            effects = bring(plan, piece, 0, now_s)
            fast |= {piece for piece, source in fetches(effects) if source == 0}
            slow += [piece for piece, source in fetches(effects) if source == 1]
        effects = bring(plan, slow.pop(0), 1, now_s)
        fast |= {piece for piece, source in fetches(effects) if source == 0}
        slow += [piece for piece, source in fetches(effects) if source == 1]
    assert len(slow) == 1
    assert len(fast) == WINDOW_PIECES


def test_rule_3_a_source_that_sends_nothing_is_dropped_at_its_first_allowance() -> None:
    """Not before, and with a reason that a person can read."""
    plan = PullPlan(2, 8)
    plan.add_source("a", 100.0)
    assert plan.next_deadline_s() == 100.0 + FIRST_PIECE_DEADLINE_S
    assert plan.tick(100.0 + FIRST_PIECE_DEADLINE_S - 0.01) == []
    (drop,) = plan.tick(100.0 + FIRST_PIECE_DEADLINE_S)
    assert drop == Drop(0, "stalled: no piece for 10 s")
    assert plan.failed


@pytest.mark.parametrize(
    ("pace_s", "allowance_s"),
    [(0.01, MIN_PIECE_DEADLINE_S), (2.0, 16.0), (9.0, 72.0), (9.9, 79.2), (100.0, MAX_PIECE_DEADLINE_S)],
)
def test_rule_3_later_allowances_follow_the_sources_own_pace(pace_s: float, allowance_s: float) -> None:
    """Eight times its pace, within the named bounds."""
    plan = PullPlan(50, 1)
    plan.add_source("a", 0.0)
    bring(plan, 0, 0, pace_s)
    assert plan.next_deadline_s() == pytest.approx(pace_s + allowance_s)
    assert drops(plan.tick(pace_s + allowance_s - 0.01)) == []
    assert drops(plan.tick(pace_s + allowance_s + 0.01)) == [0]


def test_rule_3_a_source_that_is_asked_for_nothing_cannot_stall() -> None:
    """Idle time does not count: the clock of a source starts when it is asked again."""
    plan = PullPlan(3, 1)
    plan.add_source("a", 0.0)
    plan.add_source("b", 0.0)
    bring(plan, 0, 0, 0.1)
    assert drops(plan.tick(3.9)) == []
    assert plan.sources[1].state is SourceState.ACTIVE
    assert drops(plan.tick(1000.0)) == [0], "the one with the slot is late, the other was asked for nothing"


def test_rule_3_a_source_that_waits_itself_is_given_more_time() -> None:
    """Each sign gives it another allowance, and the next piece is as good as any."""
    plan = PullPlan(6, 8)
    plan.add_source("forwards", 0.0)
    bring(plan, 0, 0, 1.0)
    for now_s in (4.0, 11.0, 18.0, 25.0):
        plan.waits(0, now_s)
        assert plan.next_deadline_s() == now_s + 8.0
        assert plan.tick(now_s + 7.9) == []
    bring(plan, 1, 0, 30.0)
    assert drops(plan.tick(37.9)) == []
    assert plan.sources[0].state is SourceState.ACTIVE


def test_rule_3_a_source_that_stops_saying_that_it_waits_is_stalled() -> None:
    """Its allowance runs from its last sign; the reason counts from its last piece."""
    plan = PullPlan(6, 8)
    plan.add_source("a", 0.0)
    plan.waits(0, 9.0)
    assert plan.tick(18.9) == []
    assert plan.tick(19.0) == [Drop(0, "stalled: no piece for 19 s")]


def test_rule_3_a_source_that_always_says_it_waits_is_dropped_at_the_bound() -> None:
    """Its word is worth no more than the longest time for one piece, before its first piece and later."""
    plan = PullPlan(6, 8)
    plan.add_source("says so", 0.0)
    now_s = 0.0
    while now_s < 50.0:
        plan.waits(0, now_s)
        now_s += WAIT_EVERY_S
    bring(plan, 0, 0, now_s)
    began_s = now_s
    while not (effects := plan.tick(now_s)):
        assert now_s <= began_s + MAX_PIECE_DEADLINE_S
        plan.waits(0, now_s)
        now_s += WAIT_EVERY_S
    assert now_s == began_s + MAX_PIECE_DEADLINE_S
    assert effects == [Drop(0, "stalled: no piece for 120 s")]


def test_rule_3_a_source_that_waits_while_it_is_asked_for_nothing_gains_nothing() -> None:
    """Signs from before it was asked give no time."""
    plan = PullPlan(2, 1)
    plan.add_source("a", 0.0)
    plan.add_source("b", 0.0)
    plan.waits(1, 0.5)
    assert plan.next_deadline_s() == FIRST_PIECE_DEADLINE_S
    assert drops(plan.tick(FIRST_PIECE_DEADLINE_S)) == [0]
    assert plan.next_deadline_s() is None, "the slot is free only when the lane has let go"
    plan.refused(0, 0, "gone", 11.0)
    assert plan.next_deadline_s() == 11.0 + FIRST_PIECE_DEADLINE_S


def test_rule_3_a_dropped_source_sets_no_deadline() -> None:
    """While the lane lets go of a source, nobody is woken for it: the shell would spin."""
    plan = PullPlan(8, 8)
    plan.add_source("a", 0.0)
    plan.tick(FIRST_PIECE_DEADLINE_S)
    assert plan.next_deadline_s() is None
    assert plan.tick(FIRST_PIECE_DEADLINE_S + 1) == []


def test_rule_4_three_wrong_digests_drop_a_source_for_good() -> None:
    """The third wrong piece drops it, with the count as the reason; right ones between do not clear it."""
    plan = PullPlan(20, 8)
    plan.add_source("liar", 0.0)
    for count, piece in enumerate((0, 1), start=1):
        assert plan.arrived(piece, 0, 1.0)
        assert drops(plan.judged(piece, 0, False, 1.0)) == []
        assert plan.sources[0].wrong == count
    bring(plan, 2, 0, 1.0)
    assert plan.arrived(3, 0, 1.0)
    assert plan.judged(3, 0, False, 1.0) == [Drop(0, f"sent {MAX_BAD_PIECES} pieces with a wrong digest")]
    assert plan.failed
    assert plan.proven == {2}


def test_rule_4_three_refusals_drop_a_source_with_its_reason() -> None:
    """Refusals count like lies; the last reason is kept."""
    plan = PullPlan(20, 8)
    plan.add_source("a", 0.0)
    assert drops(plan.refused(0, 0, "no", 1.0)) == []
    assert drops(plan.refused(1, 0, "no", 1.0)) == []
    assert plan.refused(2, 0, "not you", 1.0) == [Drop(0, "not you")]


def test_rule_5_what_a_dropped_source_had_goes_to_the_others_at_once() -> None:
    """A survivor is asked for the pieces of a stalled source before the lane has let go of that one."""
    plan = PullPlan(5, 8)
    plan.add_source("stalls", 0.0)
    assert fetches(plan.add_source("lives", 0.0)) == [(4, 1)]
    assert fetches(bring(plan, 4, 1, 9.0)) == [(0, 1)]  # rule 6: it is idle
    effects = plan.tick(10.0)
    assert drops(effects) == [0]
    assert sorted(fetches(effects)) == [(1, 1), (2, 1), (3, 1)]
    assert plan.refused(1, 0, "gone", 10.5) == [], "it is asked for elsewhere already"
    for piece in (0, 1, 2, 3):
        bring(plan, piece, 1, 11.0)
    assert plan.complete


def test_rule_5_without_a_source_the_pull_has_failed_and_keeps_what_is_proven() -> None:
    """Failure waits for a piece that is being proven, and nothing proven is lost."""
    plan = PullPlan(3, 8)
    assert PullPlan(3, 8).failed, "nobody to ask"
    plan.add_source("a", 0.0)
    assert plan.arrived(1, 0, 9.0)
    plan.tick(9.0 + 80.0)
    assert not plan.failed
    plan.judged(1, 0, True, 90.0)
    assert plan.failed
    assert plan.proven == {1}


def test_rule_6_an_idle_source_takes_over_the_last_piece_of_a_much_slower_one() -> None:
    """The piece is asked for twice, by two sources at most; the first copy wins, the other is surplus."""
    plan = PullPlan(3, 8)
    plan.add_source("slow", 0.0)
    assert plan.add_source("fast", 0.0) == []
    assert bring(plan, 0, 0, 5.0) == []
    assert plan.add_source("late", 5.0) == []
    effects = plan.refused(2, 0, "busy", 5.5)
    assert len(fetches(effects)) == 1
    (_, taker), *_ = fetches(effects)
    second = [(1, source) for source in (1, 2) if source == taker]
    effects = bring(plan, 2, taker, 5.6)
    assert fetches(effects) == second
    assert plan.arrived(1, taker, 5.7)
    assert not plan.arrived(1, 0, 5.71), "a piece is proven in one place at a time"
    plan.judged(1, taker, True, 5.8)
    assert plan.complete
    assert plan.surplus(5.9) == []


def test_rule_6_an_idle_source_behind_one_that_never_sent_is_still_asked() -> None:
    """That the first idle source is no candidate does not keep the second from helping."""
    plan = PullPlan(2, 1, proven={1})
    plan.add_source("slow", 0.0)
    plan.add_source("unknown", 0.0)
    plan.add_source("fast", 0.0)
    plan.sources[2].arrived, plan.sources[2].pace_s = 5, 0.1
    plan._slots = 8
    assert fetches(plan.surplus(1.0)) == [(0, 2)]


def test_a_wrong_copy_does_not_lose_a_piece_that_is_still_on_its_way() -> None:
    """When the hedged copy is wrong, the other is still taken; when both fail, it is asked for again."""
    plan = PullPlan(2, 8)
    plan.add_source("slow", 0.0)
    plan.sources[0].arrived, plan.sources[0].pace_s = 1, 5.0
    plan.add_source("fast", 0.0)
    plan.sources[1].arrived, plan.sources[1].pace_s = 1, 0.1
    assert fetches(plan.surplus(1.0)) == [(0, 1)]
    assert plan.arrived(0, 1, 1.2)
    assert plan.judged(0, 1, False, 1.3) != [], "it is asked for once more"
    assert plan.arrived(0, 0, 2.0)
    plan.judged(0, 0, True, 2.1)
    assert 0 in plan.proven


class World:
    """Random sources around a plan: each delivers, lies, refuses, is silent or says that it waits."""

    def __init__(self, seed: int, *, slots: int, pieces: int, kinds: list[str]) -> None:
        self.random = random.Random(seed)
        self.now_s = self.quiet_since_s = 1000.0
        self.slots = slots
        self.had = set(self.random.sample(range(pieces), self.random.randrange(pieces)))
        self.plan = PullPlan(pieces, slots, proven=self.had)
        self.kinds = kinds
        self.flying: list[tuple[int, int]] = []
        self.proving: list[tuple[int, int]] = []
        self.letting_go: list[int] = []
        for index, _ in enumerate(kinds):
            self.carry_out(self.plan.add_source(f"s{index}", self.now_s))

    def carry_out(self, effects: list[Effect]) -> None:
        """Check each effect against the promises and remember it."""
        for effect in effects:
            if isinstance(effect, Drop):
                assert self.plan.sources[effect.source].state is SourceState.DROPPED
                self.letting_go.append(effect.source)
                continue
            pair = (effect.piece, effect.source)
            assert effect.piece not in self.plan.proven
            assert effect.piece not in {piece for piece, _ in self.proving}
            assert pair not in self.flying
            assert self.plan.sources[effect.source].state is SourceState.ACTIVE
            self.flying.append(pair)
            in_use = {source for piece, source in self.flying if piece == effect.piece} - set(self.letting_go)
            assert len(in_use) <= 2
            assert sum(source == effect.source for _, source in self.flying) <= WINDOW_PIECES
        assert len(self.flying) + len(self.proving) <= self.slots

    def run(self) -> None:
        """Let events happen until the plan ends; a plan that cannot end fails here."""
        plan = self.plan
        for _ in range(20_000):
            if plan.complete or plan.failed:
                return
            self.now_s += self.random.choice((0.0, 0.01, 0.5))
            self.step()
        raise AssertionError("this plan does not end")

    def step(self) -> None:
        """One event: a verdict, the end of a dropped source's fetch, a source's answer, or the clock."""
        plan = self.plan
        live = [
            (piece, source)
            for piece, source in self.flying
            if source in self.letting_go or self.kinds[source] not in ("silent", "waits")
        ]
        if live or self.proving:
            self.quiet_since_s = self.now_s
        if self.proving and self.random.random() < 0.5:
            piece, source = self.proving.pop(self.random.randrange(len(self.proving)))
            right = not (self.kinds[source] == "liar" and self.random.random() < 0.7)
            assert piece not in plan.proven
            self.carry_out(plan.judged(piece, source, right, self.now_s))
        elif live:
            piece, source = self.random.choice(live)
            self.flying.remove((piece, source))
            refuses = self.kinds[source] == "refuses" and self.random.random() < 0.7
            if refuses or (source in self.letting_go and self.random.random() < 0.8):
                self.carry_out(plan.refused(piece, source, "no", self.now_s))
            elif plan.arrived(piece, source, self.now_s):
                assert piece not in plan.proven
                assert piece not in {one for one, _ in self.proving}
                self.proving.append((piece, source))
            else:
                self.carry_out(plan.surplus(self.now_s))
        elif not self.proving:
            deadline_s = plan.next_deadline_s()
            assert deadline_s is not None, "nothing is under way and nothing is waited for"
            assert deadline_s <= self.quiet_since_s + MAX_PIECE_DEADLINE_S
            waiting = {source for _, source in self.flying if self.kinds[source] == "waits"}
            for source in waiting:
                plan.waits(source, self.now_s)
            until_s = min(self.now_s + WAIT_EVERY_S, deadline_s) if waiting else deadline_s
            self.now_s = max(self.now_s, until_s)
            self.carry_out(plan.tick(self.now_s))


_kinds = st.lists(st.sampled_from(["honest", "liar", "refuses", "silent", "waits"]), min_size=1, max_size=6)


@settings(max_examples=400, deadline=None)
@example(255, 3, 4, ["liar", "waits", "waits", "waits", "liar", "waits"])
@given(st.integers(0, 2**32), st.integers(1, 10), st.integers(1, 40), _kinds)
def test_any_schedule_ends_and_keeps_every_promise(
    seed: int, slots: int, pieces: int, kinds: list[str]
) -> None:
    """With one honest source a pull completes; without one it completes or fails, with nothing lost."""
    world = World(seed, slots=slots, pieces=pieces, kinds=kinds)
    world.run()
    assert world.had <= world.plan.proven
    if "honest" in kinds:
        assert world.plan.complete
    for source, kind in zip(world.plan.sources, kinds, strict=True):
        assert kind != "honest" or source.state is SourceState.ACTIVE
