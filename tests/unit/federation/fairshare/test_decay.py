"""The table of decay: exact on every machine, by integers alone."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import FederationInputError
from federation.fairshare.decay import EPOCH_S, SCALE_BITS, DecayTable, decay_table

WEEK_S = 7 * 86400


def _is_nearest(weight: int, age: int, half_life_s: int) -> bool:
    """Whether ``weight`` is 2^(40 - age * 600 / H), rounded: by whole powers of what bounds it."""
    common = math.gcd(age * EPOCH_S, half_life_s)
    over, under = age * EPOCH_S // common, half_life_s // common
    exact = 1 << (under + SCALE_BITS * under - over)
    return (2 * weight - 1) ** under <= exact < (2 * weight + 1) ** under


@given(st.integers(0, 10_080))
def test_each_entry_of_the_weekly_table_is_the_nearest_integer(age: int) -> None:
    """Proven by integer powers, which know nothing of how the table is made."""
    assert _is_nearest(decay_table(WEEK_S, 10).weight(age), age, WEEK_S)


@given(st.integers(600, 50_000), st.data())
def test_each_entry_of_any_table_is_the_nearest_integer(half_life_s: int, data: st.DataObject) -> None:
    """Also where the half life is no multiple of an epoch."""
    table = DecayTable(half_life_s, 3)
    age = data.draw(st.integers(0, len(table.weights) - 1))
    common = math.gcd(age * EPOCH_S, half_life_s)
    if half_life_s // common < 5000:
        assert _is_nearest(table.weight(age), age, half_life_s)


def test_the_proof_catches_floats() -> None:
    """A table off by one in one place is not the nearest one."""
    weight = decay_table(WEEK_S, 10).weight(1234)
    assert not _is_nearest(weight + 1, 1234, WEEK_S)
    assert not _is_nearest(weight - 1, 1234, WEEK_S)


def test_use_is_halved_after_a_half_life_and_gone_after_the_window() -> None:
    """The whole powers of two stand where they should; nothing counts beyond the window."""
    table = decay_table(WEEK_S, 10)
    assert [table.weight(at * 1008) for at in range(11)] == [1 << (40 - at) for at in range(11)]
    assert table.weight(10_081) == 0
    assert table.weight(-3) == 1 << 40


def test_older_use_counts_less() -> None:
    """Each entry is below the one before it."""
    weights = decay_table(WEEK_S, 10).weights
    assert all(later < earlier for earlier, later in pairwise(weights))


@pytest.mark.parametrize(("half_life_s", "window"), [(0, 10), (599, 10), (600, 0), (600, 40), (10**9, 39)])
def test_a_table_that_would_be_empty_or_endless_is_refused(half_life_s: int, window: int) -> None:
    """Bounds hold whoever wrote the policy."""
    with pytest.raises(FederationInputError):
        DecayTable(half_life_s, window)
