"""Guests that take guests' devices: past the minimum time, below the victim after it, in no circle (I6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.fairshare.charging import Charges
from federation.fairshare.freshness import Split
from federation.fairshare.preemption import Running, below_after_move, may_preempt
from federation.fairshare.standing import Standing, standing_of
from federation.fairshare.usage import Usage
from federation.policy.policy import Caps, Policy

EPOCH = 3_000_000
TREES = (("/a", "/b", "/c", "/d"), ("/a/x", "/a/y", "/b/x", "/b/y/p", "/b/y/q", "/b"))
Verdict = Callable[[Standing, Charges, str, int, Running], bool]
Job = tuple[str, int]
"""Account, charge."""

CASES = st.sampled_from(TREES).flatmap(
    lambda accounts: st.tuples(
        st.fixed_dictionaries(dict.fromkeys(accounts, st.integers(1, 4))),
        st.fixed_dictionaries(dict.fromkeys(accounts, st.integers(0, 300))),
        st.lists(st.tuples(st.sampled_from(accounts), st.integers(1, 100)), min_size=2, max_size=5),
        st.integers(1, 2),
    )
)


def _standing(policy: Policy, used: dict[str, int]) -> Standing:
    return standing_of(
        policy, EPOCH, usage=Usage().add_all((path, EPOCH, msgs) for path, msgs in used.items())
    )


def _running(job: Job) -> Running:
    return Running(job[0], job[1], 1000, 900)


def _charges(jobs: list[Job], running: frozenset[int]) -> Charges:
    charges = Charges()
    for at in running:
        charges = charges.add(*jobs[at])
    return charges


def _has_circle(standing: Standing, jobs: list[Job], devices: int, verdict: Verdict) -> bool:
    """Whether some set of running jobs comes back by preemptions alone; time stands still."""
    running = frozenset(range(min(devices, len(jobs))))
    done: set[frozenset[int]] = set()
    on_path: set[frozenset[int]] = set()

    def visit(state: frozenset[int]) -> bool:
        if state in on_path:
            return True
        if state in done:
            return False
        on_path.add(state)
        own = _charges(jobs, state)
        for waiting in set(range(len(jobs))) - state:
            for victim in state:
                account, charge = jobs[waiting]
                if verdict(standing, own, account, charge, _running(jobs[victim])) and visit(
                    state - {victim} | {waiting}
                ):
                    return True
        on_path.discard(state)
        done.add(state)
        return False

    return visit(running)


def _before_the_move(standing: Standing, own: Charges, account: str, charge: int, victim: Running) -> bool:
    """A planted bug: whoever is below now may preempt, however far above it is then."""
    relieved = replace(victim, charge_msgs=0)
    return below_after_move(standing, own, account, 0, relieved)


def _circle_law(verdict: Verdict, make_policy: Callable[..., Policy]) -> Callable[[], None]:
    @given(CASES)
    def law(case: tuple[dict[str, int], dict[str, int], list[Job], int]) -> None:
        weights, used, jobs, devices = case
        assert not _has_circle(_standing(make_policy(weights), used), jobs, devices, verdict)

    return law


def test_preemptions_never_come_back_to_where_they_were(
    make_policy: Callable[..., Policy], is_caught: Callable[..., bool]
) -> None:
    """I6, flat and hierarchical, whatever each job is charged; comparing before the move is caught."""
    _circle_law(may_preempt, make_policy)()
    assert is_caught(_circle_law(_before_the_move, make_policy))


@given(CASES)
def test_whoever_preempts_is_still_below_its_victim(
    make_policy: Callable[..., Policy], case: tuple[dict[str, int], dict[str, int], list[Job], int]
) -> None:
    """After the move the victim may not preempt the preemptor."""
    weights, used, jobs, _ = case
    standing = _standing(make_policy(weights), used)
    taker, victim = jobs[0], jobs[1]
    if may_preempt(standing, Charges().add(*victim), *taker, _running(victim)):
        assert not may_preempt(standing, Charges().add(*taker), *victim, _running(taker))


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({}, True),
        ({"ran_s": 899}, False),
        ({"preempted_before_s": 3599}, False),
        ({"preempted_before_s": 3600}, True),
    ],
)
def test_a_victim_is_past_its_minimum_time_and_hour(
    make_policy: Callable[..., Policy], change: dict[str, int], allowed: bool
) -> None:
    """I8: what it may count on is kept, and nobody is preempted twice within the hour."""
    standing = _standing(make_policy({"/a": 1, "/b": 1}), {"/a": 10, "/b": 1000})
    victim = replace(Running("/b", 10, 900, 900), **change)
    assert may_preempt(standing, Charges().add("/b", 10), "/a", 10, victim) is allowed


@pytest.mark.parametrize(
    ("theirs", "charge", "victims_charge", "allowed"),
    [
        (33, 10, 10, True),
        (32, 10, 10, False),
        (32, 5, 10, False),
        (32, 10, 5, False),
        (33, 10, 5, True),
    ],
)
def test_the_preemptor_is_a_tenth_below_after_the_move(
    make_policy: Callable[..., Policy], theirs: int, charge: int, victims_charge: int, allowed: bool
) -> None:
    """20 after the move, and a tenth more, are less than the victim has then; the larger charge counts."""
    standing = _standing(make_policy({"/a": 1, "/b": 1}), {"/a": 10, "/b": theirs - victims_charge})
    own = Charges().add("/b", victims_charge)
    assert may_preempt(standing, own, "/a", charge, Running("/b", victims_charge, 900, 900)) is allowed


def test_inside_an_institution_a_move_makes_it_no_dearer(make_policy: Callable[..., Policy]) -> None:
    """Between institutions a dear lease may take a cheap one's devices; between projects it may not."""
    policy = make_policy({"/a": 1, "/a/x": 1, "/a/y": 1, "/b": 1})
    standing = _standing(policy, {"/a/x": 10, "/a/y": 10**6, "/b": 10**9})
    own = Charges().add("/a/y", 10).add("/b", 10)
    assert may_preempt(standing, own, "/a/x", 10, Running("/a/y", 10, 900, 900))
    assert not may_preempt(standing, own, "/a/x", 11, Running("/a/y", 10, 900, 900))
    assert may_preempt(standing, own, "/a/x", 11, Running("/b", 10, 900, 900))


def test_nobody_preempts_with_old_books_or_where_the_policy_forbids_it(
    make_policy: Callable[..., Policy],
) -> None:
    """A frozen split does not say who has too much."""
    fresh = _standing(make_policy({"/a": 1, "/b": 1}), {"/a": 10, "/b": 1000})
    never = _standing(make_policy({"/a": 1, "/b": 1}, caps=Caps(preempt_every_s=0)), {"/a": 10, "/b": 1000})
    victim = Running("/b", 10, 900, 900)
    assert may_preempt(fresh, Charges(), "/a", 10, victim)
    stale = replace(fresh, split=Split(EPOCH), local=fresh.usage)
    assert below_after_move(stale, Charges(), "/a", 10, victim)
    assert not may_preempt(stale, Charges(), "/a", 10, victim)
    assert not may_preempt(never, Charges(), "/a", 10, victim)


def test_an_account_does_not_preempt_itself(make_policy: Callable[..., Policy]) -> None:
    """Its own jobs are its own affair."""
    standing = _standing(make_policy({"/a": 1, "/b": 1}), {"/a": 10, "/b": 1000})
    assert not may_preempt(standing, Charges(), "/b", 10, Running("/b", 10, 900, 900))


def test_accounts_that_are_even_leave_each_other_alone(make_policy: Callable[..., Policy]) -> None:
    """Being a little below is no reason to take a lease that runs; being below by more than a tenth is."""
    policy = make_policy({"/a": 1, "/b": 1})
    for used, may in ((1000, False), (1080, False), (1200, True)):
        standing = _standing(policy, {"/a": 1000, "/b": used})
        own = Charges().add("/b", 10)
        assert may_preempt(standing, own, "/a", 10, Running("/b", 10, 1000, 900)) is may, used
