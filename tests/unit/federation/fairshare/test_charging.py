"""Charges: whole numbers that anyone can count again."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.fairshare.charging import (
    EXPECTED_AT_MOST_S,
    Charges,
    charge_of,
    expected_msgs,
    outstanding_msgs,
    rate_of,
    share_of,
)
from federation.policy.policy import Policy

PERMILLE = st.integers(1, 4000)
ONES = st.integers(1, 64)


@given(st.integers(0, 10**10), st.integers(0, 1000), PERMILLE, PERMILLE, PERMILLE, PERMILLE, ONES)
def test_a_charge_is_its_formula_rounded_down(
    busy_ms: int, part: int, rho: int, share: int, factor: int, discount: int, devices: int
) -> None:
    """SGS x f in thousandths, with the discounted part at the discount; rounded once."""
    discount_ms = busy_ms * part // 1000
    exact = (
        (busy_ms - discount_ms + discount_ms * Fraction(discount, 1000))
        * Fraction(rho, 1000)
        * Fraction(share, 1000)
        * Fraction(factor, 1000)
        * devices
    )
    charge = charge_of(
        busy_ms=busy_ms,
        discount_ms=discount_ms,
        rho_permille=rho,
        share_permille=share,
        factor_permille=factor,
        idle_discount_permille=discount,
        devices=devices,
    )
    assert charge == exact.numerator // exact.denominator


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=6))
def test_a_cumulative_charge_never_falls(steps_ms: list[int]) -> None:
    """However often receipts are written, the last one charges for the whole time."""
    charges, busy_ms = [], 0
    for step_ms in steps_ms:
        busy_ms += step_ms
        charges.append(
            charge_of(
                busy_ms=busy_ms,
                discount_ms=0,
                rho_permille=777,
                share_permille=333,
                factor_permille=500,
                idle_discount_permille=500,
                devices=1,
            )
        )
    assert charges == sorted(charges)


def test_a_second_of_the_standard_device_is_a_thousand_msgs(make_policy: Callable[..., Policy]) -> None:
    """The unit; a larger class, an urgent purpose, half a device, two devices multiply it."""
    policy = make_policy({"/a": 1})

    def rate(device_class: str, purpose: str, devices: int, share: int) -> int:
        return rate_of(
            policy, device_class=device_class, purpose=purpose, devices=devices, share_permille=share
        )

    assert rate("standard", "research", 1, 1000) == 1000
    assert rate("large", "research", 1, 1000) == 2500
    assert rate("large", "urgent", 2, 500) == 3750
    assert rate("unknown", "unknown", 1, 1000) == 1000


@pytest.mark.parametrize(
    ("duration_s", "counted_s"), [(60, 60), (10**6, EXPECTED_AT_MOST_S), (0, EXPECTED_AT_MOST_S)]
)
def test_a_lease_is_charged_at_its_admission_for_a_bounded_time(
    make_policy: Callable[..., Policy], duration_s: int, counted_s: int
) -> None:
    """Days that were asked for are not charged at once; without an end it is the bound."""
    expected = expected_msgs(
        make_policy({"/a": 1}), device_class="standard", purpose="research", devices=2, duration_s=duration_s
    )
    assert expected == 2000 * counted_s
    assert outstanding_msgs(expected, 500) == expected - 500
    assert outstanding_msgs(expected, expected + 1) == 0


@pytest.mark.parametrize(
    ("parts", "share"),
    [
        (((1, 2), (1, 4)), 500),
        (((1, 3),), 334),
        (((0, 8),), 1),
        (((9, 8),), 1000),
        (((1, 2), (5, 0)), 500),
        ((), 1000),
    ],
)
def test_a_share_is_the_largest_rounded_up(parts: tuple[tuple[int, int], ...], share: int) -> None:
    """Between one thousandth and the whole; what there is none of does not count."""
    assert share_of(*parts) == share


@given(st.lists(st.tuples(st.sampled_from(("/a", "/a/b", "/a/b/c", "/d")), st.integers(-9, 9)), max_size=12))
def test_charges_add_up_the_tree(charged: list[tuple[str, int]]) -> None:
    """One by one or at once; what is taken back leaves nothing."""
    charges, sums = Charges(), dict.fromkeys(("/a", "/a/b", "/a/b/c", "/d"), 0)
    for account, msgs in charged:
        charges = charges.add(account, msgs)
        sums[account] += msgs
    assert charges == Charges.of(sums)
    assert charges.on("/a") == sums["/a"] + sums["/a/b"] + sums["/a/b/c"]
    assert charges.on("/a/") == sums["/a"]
