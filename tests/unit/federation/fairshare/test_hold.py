"""The hold for wide requests: until enough devices of a node are free; none idles for long."""

from __future__ import annotations

import pytest

from federation.fairshare.hold import HOLD_PAUSES, HOLD_SLACK_S, Hold, may_backfill, may_hold

WIDE = ("site", "wide")
OTHER = ("site", "other")
HOLD = Hold(WIDE, 7200.0, 900.0)


def test_a_hold_lasts_until_enough_devices_are_free() -> None:
    """While its devices work it may last for hours; what ran there has a moment to stop."""
    assert HOLD.seen(3600.0, idle=False) is HOLD
    assert HOLD.in_force(7200.0 + HOLD_SLACK_S - 1)
    assert not HOLD.in_force(7200.0 + HOLD_SLACK_S)


def test_a_hold_is_given_up_when_a_device_has_idled_for_its_time() -> None:
    """However often a lease goes there in between; after the end no look changes it."""
    idle = HOLD.seen(100.0, idle=True)
    assert idle.over_s == 1000.0
    assert idle.seen(500.0, idle=True) is idle
    works = idle.seen(500.0, idle=False)
    assert works.over_s == HOLD.over_s
    assert works.seen(3000.0, idle=True).over_s == 3500.0, "it idled for 400 s before"
    assert idle.in_force(999.0)
    assert not idle.in_force(1000.0)
    assert idle.seen(1001.0, idle=False) is idle
    assert Hold(WIDE, 7200.0, 0.0).seen(100.0, idle=True).over_s == 100.0, "the policy lets none idle"


def test_the_same_request_has_its_next_hold_after_a_pause() -> None:
    """Three times as long as a device may idle; another head of the line waits for nothing."""
    over = HOLD.seen(100.0, idle=True)
    assert may_hold(None, WIDE, 0.0, 900)
    assert not may_hold(HOLD, WIDE, 3600.0, 900)
    assert not may_hold(over, WIDE, 1000.0 + HOLD_PAUSES * 900 - 1, 900)
    assert may_hold(over, WIDE, 1000.0 + HOLD_PAUSES * 900, 900)
    assert may_hold(over, OTHER, 500.0, 900)


@pytest.mark.parametrize(
    ("key", "duration_s", "now_s", "may"),
    [
        (OTHER, 100, 0.0, True),
        (OTHER, 7200, 0.0, True),
        (OTHER, 7201, 0.0, False),
        (OTHER, 600, 6601.0, False),
        (OTHER, 0, 0.0, False),
        (OTHER, 1, 7200.0, False),
        (OTHER, 0, 7200.0 + HOLD_SLACK_S, True),
        (WIDE, 0, 0.0, True),
    ],
)
def test_only_what_ends_before_is_let_past(
    key: tuple[str, str], duration_s: int, now_s: float, may: bool
) -> None:
    """A lease without an end would outlast it; the one it is kept for goes in."""
    assert may_backfill(HOLD, key, duration_s, now_s) is may
    assert may_backfill(None, key, duration_s, now_s)
