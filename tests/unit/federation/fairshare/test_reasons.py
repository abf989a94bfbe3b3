"""Reasons: their order, their sentences, and what of them may come over the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import FederationInputError
from federation.fairshare.reasons import (
    ORDER,
    DonorPaused,
    EgressExhausted,
    ExceedsLimit,
    LedgerStale,
    LowerThan,
    Misconfigured,
    NoMatchingDevice,
    NotPermitted,
    OverShareCap,
    Reason,
    Reserved,
    WaitingForCapacity,
    WaitingForReclaim,
    from_dict,
    in_order,
    to_dict,
)
from federation.limits import MAX_REASON_CHARS, MAX_REASON_NUMBER

EACH: tuple[Reason, ...] = (
    Misconfigured("the policy cannot be read.", "tell the donor"),
    NotPermitted("no-mining", "rule no-mining: no mining.", "run another model"),
    NoMatchingDevice("80 GB in one device"),
    ExceedsLimit("devices", 16, 8),
    DonorPaused("uni-a lends at night only.", 3600),
    EgressExhausted("uni-a", 10**12, 7200),
    OverShareCap("/uni-b", 8, 8, 0, 0),
    Reserved("student", 2),
    LowerThan("/uni-c", 400, 1600, 3),
    WaitingForReclaim(12),
    WaitingForCapacity(4),
    LedgerStale(5400),
)


def test_every_reason_of_the_model_is_there() -> None:
    """In its order, each under its own code."""
    assert tuple(type(one) for one in EACH) == ORDER
    assert len({one.code for one in EACH}) == len(ORDER)


@given(st.permutations(EACH))
def test_the_first_in_the_order_decides(reasons: list[Reason]) -> None:
    """Whatever order they were found in."""
    assert in_order(reasons) == EACH


@pytest.mark.parametrize("reason", EACH, ids=lambda one: one.code)
def test_a_reason_comes_back_from_the_wire(reason: Reason) -> None:
    """The same value, with a sentence and what would change it; fields of later versions are passed over."""
    assert from_dict({**to_dict(reason), "later": 1}) == reason
    assert reason.sentence().endswith(".")
    assert reason.change


def test_figures_are_said_in_percent() -> None:
    """People read percent."""
    assert LowerThan("/uni-c", 400, 1604, 3).sentence() == (
        "3 requests go first: /uni-c has used 40 % of its due, you 160 %."
    )


BAD: list[dict[str, Any]] = [
    {},
    {"code": "no-such-reason"},
    {"code": 5},
    {"code": ["misconfigured"]},
    {"code": "waiting-for-capacity"},
    {"code": "waiting-for-capacity", "place": "1"},
    {"code": "waiting-for-capacity", "place": True},
    {"code": "waiting-for-capacity", "place": -1},
    {"code": "waiting-for-capacity", "place": 1.5},
    {"code": "waiting-for-capacity", "place": MAX_REASON_NUMBER + 1},
    {"code": "no-matching-device", "wanted": 5},
    {"code": "no-matching-device", "wanted": "x" * (MAX_REASON_CHARS + 1)},
    {"code": "no-matching-device", "wanted": "\x1b[2J"},
    {"code": "no-matching-device", "wanted": "two\nlines"},
]


@pytest.mark.parametrize("table", BAD, ids=repr)
def test_a_bad_reason_is_refused(table: dict[str, Any]) -> None:
    """Unknown codes, wrong types, numbers and texts out of bounds, control characters."""
    with pytest.raises(FederationInputError):
        from_dict(table)


@given(
    st.dictionaries(
        st.sampled_from(("code", "why", "change", "place", "wanted", "left_s", "account")),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(
            [one.code for one in EACH])),
    )
)  # fmt: skip
def test_whatever_comes_is_a_reason_or_refused(table: dict[str, object]) -> None:
    """Nothing else escapes; what is accepted can be sent on as it came."""
    try:
        reason = from_dict(table)
    except FederationInputError:
        return
    assert to_dict(reason).items() <= table.items()
