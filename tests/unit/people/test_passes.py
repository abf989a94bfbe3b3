"""Passes: whose they are, and when they end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BusyError, NotAllowedError
from agent.limits import MAX_PASSES, MAX_PASSES_PER_USER, PASS_LIFE_S
from agent.people.model import Who
from agent.people.passes import Passes

ALICE, BOB = Who(1001, "alice"), Who(1002, "bob")


def test_a_pass_means_whoever_it_was_given_to() -> None:
    """Two users at once are not mixed up."""
    passes = Passes()
    one, two = passes.issue(ALICE, 0.0), passes.issue(BOB, 0.0)
    assert passes.who(one, 1.0) == ALICE
    assert passes.who(two, 1.0) == BOB


def test_a_pass_ends_with_its_connection_and_with_its_time() -> None:
    """Afterwards it is as unknown as one that never was."""
    passes = Passes()
    struck, old = passes.issue(ALICE, 0.0), passes.issue(ALICE, 0.0)
    passes.strike(struck)
    with pytest.raises(NotAllowedError) as gone:
        passes.who(struck, 0.0)
    with pytest.raises(NotAllowedError) as over:
        passes.who(old, PASS_LIFE_S)
    with pytest.raises(NotAllowedError) as never:
        passes.who("a.b", 0.0)
    assert gone.value.message == over.value.message == never.value.message


def test_the_secret_of_one_pass_under_the_name_of_another_is_nothing() -> None:
    """Bob's secret does not make him Alice."""
    passes = Passes()
    alices, bobs = passes.issue(ALICE, 0.0), passes.issue(BOB, 0.0)
    mixed = alices.partition(".")[0] + "." + bobs.partition(".")[2]
    with pytest.raises(NotAllowedError):
        passes.who(mixed, 0.0)
    assert passes.who(alices, 0.0) == ALICE


@given(st.text(max_size=200))
def test_no_text_is_a_pass_by_chance(text: str) -> None:
    """Whatever is shown: it is refused, whatever it consists of."""
    passes = Passes()
    good = passes.issue(ALICE, 0.0)
    for shown in (text, f"{good.partition('.')[0]}.{text}", good[:-1] + "\ud800"):
        with pytest.raises(NotAllowedError):
            passes.who(shown, 0.0)


def test_one_user_cannot_lock_others_out() -> None:
    """A user has a bound of its own; what ended makes room."""
    passes = Passes()
    for _ in range(MAX_PASSES_PER_USER):
        passes.issue(ALICE, 0.0)
    with pytest.raises(BusyError):
        passes.issue(ALICE, 1.0)
    passes.issue(BOB, 1.0)
    passes.issue(ALICE, PASS_LIFE_S)
    assert len(passes) == 2


def test_all_users_together_have_a_bound() -> None:
    """However many users there are, memory is bounded."""
    passes = Passes()
    for uid in range(MAX_PASSES):
        passes.issue(Who(uid, ""), 0.0)
    with pytest.raises(BusyError):
        passes.issue(BOB, 0.0)


def test_nothing_that_is_kept_shows_a_pass() -> None:
    """Neither the pass nor its digest is in a repr that could reach a log."""
    passes = Passes()
    given_pass = passes.issue(ALICE, 0.0)
    shown = repr(vars(passes)["_given"])
    assert given_pass.partition(".")[2] not in shown
    assert "digest" not in shown
