"""What leaves a site through a lane worker: counted, at one pace for all, and not beyond the bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrdma.lanes.egress import BURST_S, Egress
from pyrdma.limits import MIB, PIECE_BYTES

steps = st.lists(st.tuples(st.integers(1, PIECE_BYTES), st.floats(0.0, 2.0)), min_size=1, max_size=80)


@given(steps, st.integers(MIB, 1 << 34))
def test_a_pace_is_kept_over_any_time(sizes: list[tuple[int, float]], bytes_per_s: int) -> None:
    """Whoever asks when: what went out by a moment is the pace's, and one burst and one piece at most."""
    egress = Egress(bytes_per_s)
    now_s = begun_s = 1000.0
    for nbytes, pause_s in sizes:
        now_s += pause_s + egress.wait_s(now_s + pause_s)
        egress.count(nbytes, now_s)
        allowed = bytes_per_s * (now_s - begun_s + BURST_S)
        assert egress.sent_bytes - nbytes <= allowed * (1 + 1e-9) + 1
    assert egress.sent_bytes == sum(nbytes for nbytes, _ in sizes)


def test_who_is_always_ready_gets_the_pace_and_one_burst() -> None:
    """A hundred pieces, each as soon as it may go: time that was not used is given back once."""
    egress, now_s = Egress(100 * MIB), 1000.0
    for _ in range(100):
        now_s += egress.wait_s(now_s)
        egress.count(MIB, now_s)
    assert now_s - 1000.0 == pytest.approx(0.99 - BURST_S)


def test_without_a_pace_nothing_waits() -> None:
    """A count is kept all the same."""
    egress = Egress()
    for _ in range(5):
        assert egress.wait_s(0.0) == 0.0
        egress.count(PIECE_BYTES, 0.0)
    assert egress.sent_bytes == 5 * PIECE_BYTES


def test_another_pace_counts_from_now_on() -> None:
    """What waited for a slow one goes out at once when there is none any more."""
    egress = Egress(MIB)
    egress.count(PIECE_BYTES, 10.0)
    assert egress.wait_s(10.0) == pytest.approx(16.0 - BURST_S)
    egress.bound(0, None, 11.0)
    assert egress.wait_s(11.0) == 0.0
    egress.bound(2 * MIB, None, 12.0)
    assert egress.wait_s(12.0) == 0.0


@given(st.integers(0, 10 * PIECE_BYTES), st.lists(st.integers(1, PIECE_BYTES), max_size=30))
def test_the_bound_is_never_exceeded(until_bytes: int, sizes: list[int]) -> None:
    """Not by a byte; a smaller piece may still go where a larger one does not."""
    egress = Egress(until_bytes=until_bytes)
    for nbytes in sizes:
        if egress.lets(nbytes):
            egress.count(nbytes, 0.0)
        assert egress.sent_bytes <= until_bytes
