"""Reserves: what classes lack is always there, free or on loan to leases that go at once (I10)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from federation.fairshare.reserve import Reserve, floors_of, reserve_class
from federation.policy.policy import Policy

RESERVES = {"student": 150, "newcomer": 100, "far": 200}
DRAWING = st.sampled_from((None, "student", "newcomer", "far"))


class Lending(RuleBasedStateMachine):
    """Leases come and go; whoever is admitted has them."""

    policy: Policy

    def __init__(self) -> None:
        super().__init__()
        self.reserve = Reserve()
        self.leases: list[tuple[str | None, int, bool]] = []

    def admits(self, drawing_on: str | None, devices: int, instant: bool) -> bool:
        return self.reserve.admits(drawing_on, devices, instant=instant)

    @initialize(donated=st.integers(0, 40))
    def donate(self, donated: int) -> None:
        self.reserve = Reserve(floors_of(self.policy, donated), {}, donated, 0)

    @rule(drawing_on=DRAWING, devices=st.integers(1, 8), instant=st.booleans())
    def ask(self, drawing_on: str | None, devices: int, instant: bool) -> None:
        if self.admits(drawing_on, devices, instant):
            self.reserve = self.reserve.after(drawing_on, devices, instant=instant)
            self.leases.append((drawing_on, devices, instant))

    @rule(at=st.integers(0, 30))
    def end(self, at: int) -> None:
        if at < len(self.leases):
            drawing_on, devices, instant = self.leases.pop(at)
            self.reserve = self.reserve.after(drawing_on, -devices, instant=instant)

    @invariant()
    def every_class_can_have_what_it_lacks(self) -> None:
        assert self.reserve.free >= 0
        if sum(self.reserve.floors.values()) <= self.reserve.free + sum(one for _, one, _ in self.leases):
            assert self.reserve.covered


def test_a_reserved_request_waits_for_instant_leases_at_most(make_policy: Callable[..., Policy]) -> None:
    """I10: after whatever was lent to whom, all that classes lack is free or goes at once."""

    class Careful(Lending):
        policy = make_policy({"/a": 1}, reserves=RESERVES)

    run_state_machine_as_test(
        Careful, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )


def test_lending_idle_reserve_to_anyone_is_caught(
    make_policy: Callable[..., Policy], is_caught: Callable[..., bool]
) -> None:
    """A planted bug: whatever is free is lent, instant or not."""

    class Careless(Lending):
        policy = make_policy({"/a": 1}, reserves=RESERVES)

        def admits(self, drawing_on: str | None, devices: int, instant: bool) -> bool:
            return devices <= self.reserve.free

    assert is_caught(Careless)


@pytest.mark.parametrize(("donated", "floor"), [(0, 0), (1, 1), (6, 1), (7, 2), (100, 15)])
def test_a_floor_is_rounded_up(make_policy: Callable[..., Policy], donated: int, floor: int) -> None:
    """15 % of one device is one device."""
    policy = make_policy({"/a": 1}, reserves={"student": 150, "guest": 0})
    assert floors_of(policy, donated) == {"student": floor}


def test_an_account_draws_on_one_reserve(make_policy: Callable[..., Policy]) -> None:
    """The largest of its classes', then the first by name; a class without one is none."""
    policy = make_policy({"/a": 1}, reserves={"student": 150, "newcomer": 150, "far": 200, "guest": 0})
    assert reserve_class(policy, ("newcomer", "student")) == "newcomer"
    assert reserve_class(policy, ("student", "far")) == "far"
    assert reserve_class(policy, ("guest", "unknown")) is None


def test_what_classes_lack_is_lent_to_instant_leases_alone() -> None:
    """Two free, two reserved: an instant one may have them, a lasting one may not, a student may."""
    reserve = Reserve({"student": 2}, {}, 2, 0)
    assert reserve.deficits == {"student": 2}
    assert not reserve.admits(None, 1, instant=False)
    assert reserve.admits(None, 2, instant=True)
    assert reserve.admits("student", 2, instant=False)
    lent = reserve.after(None, 2, instant=True)
    assert (lent.free, lent.instant, lent.covered) == (0, 2, True)


def test_more_donated_devices_may_leave_a_reserve_uncovered() -> None:
    """Nothing is taken for it; the next free device is for the class alone."""
    reserve = Reserve({"student": 1}, {}, 0, 0)
    assert not reserve.covered
    freed = reserve.after(None, -1, instant=False)
    assert not freed.admits(None, 1, instant=False)
    assert freed.admits("student", 1, instant=False)
