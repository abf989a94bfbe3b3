"""How long a registry is believed, and how its members are found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import NotAdmittedError
from federation.registry.documents import GatewayAddress, SiteDocument
from federation.registry.membership import Membership, freshness

HOUR_S, DAY_S = 3600.0, 86400.0
SITE = SiteDocument(
    "uni-a", "uni-a.example", ("-----BEGIN",), (GatewayAddress("g", "g:1"),), "-----BEGIN", ""
)
MEMBERSHIP = Membership("lab", 1, 0.0, 72 * HOUR_S, (SITE,), {}, {})


@pytest.mark.parametrize(
    ("refreshed_s", "now_s", "expected"),
    [
        (0.0, 0.0, "fresh"),
        (0.0, 72 * HOUR_S - 1, "fresh"),
        (0.0, 72 * HOUR_S, "stale"),
        (0.0, 7 * DAY_S, "stale"),
        (0.0, 7 * DAY_S + 1, "local"),
        (2 * DAY_S, 9 * DAY_S, "stale"),
        (2 * DAY_S, 9 * DAY_S + 1, "local"),
        (4 * DAY_S, DAY_S, "stale"),
    ],
)
def test_trust_ends_in_steps(refreshed_s: float, now_s: float, expected: str) -> None:
    """Fresh for as long as it is signed, stale for a week after the last refresh, then this site alone."""
    assert freshness(MEMBERSHIP, refreshed_s, now_s) == expected


@given(refreshed_s=st.floats(0, 20 * DAY_S), now_s=st.floats(0, 40 * DAY_S), back_s=st.floats(0, 40 * DAY_S))
def test_a_clock_set_back_never_says_more_than_it_did_at_the_refresh(
    refreshed_s: float, now_s: float, back_s: float
) -> None:
    """Setting the clock back gains at most the state of the last refresh itself."""
    order = ["local", "stale", "fresh"]
    at_refresh = freshness(MEMBERSHIP, refreshed_s, refreshed_s)
    assert order.index(freshness(MEMBERSHIP, refreshed_s, now_s - back_s)) <= order.index(at_refresh)


def test_members_are_found_by_name_and_by_trust_domain() -> None:
    """And whoever is none is named in the refusal."""
    assert MEMBERSHIP.site("uni-a") is SITE
    assert MEMBERSHIP.by_trust_domain("uni-a.example") is SITE
    with pytest.raises(NotAdmittedError, match="uni-b"):
        MEMBERSHIP.site("uni-b")
    with pytest.raises(NotAdmittedError, match=r"uni-b\.example"):
        MEMBERSHIP.by_trust_domain("uni-b.example")
