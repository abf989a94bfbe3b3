"""Signed requests and carbon series."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from federation.errors import ReceiptError
from federation.ledger.carbon import CarbonSeries, SignedCarbon, carbon_of, open_carbon, sign_carbon
from federation.ledger.request import (
    RequestBody,
    SignedRequest,
    decode_request,
    encode_request,
    open_request,
    sign_request,
)
from federation.limits import LEDGER_CLOCK_LEAD_S, MAX_CARBON_HOURS, REQUEST_LIFE_S

REQUEST = RequestBody(
    id="r-1", borrower="south", account="/south/nlp", purpose="research", model="north/minilm",
    image_id="cd" * 32, devices=1, duration_s=3600, min_runtime_s=None, instant=False,
    asked_at_s=1_800_000_000, nonce="0f" * 16,
)  # fmt: skip
SERIES = CarbonSeries(
    site="north", from_s=3600 * 500_000, g_per_kwh=(100, None, 0), source="grid operator",
    made_at_s=1_800_000_000,
)  # fmt: skip


def test_a_signed_request_opens_as_it_was_made(kit: Any) -> None:
    """Every field, from the one form."""
    for request in (REQUEST, replace(REQUEST, min_runtime_s=60, instant=True, duration_s=0)):
        signed = sign_request(kit.key_of("south"), request)
        assert decode_request(encode_request(request)) == request
        assert open_request(signed, kit.keys, borrower="south", now_s=REQUEST.asked_at_s + 5) == request


def test_a_request_counts_for_the_site_that_signed_it(kit: Any) -> None:
    """Not when another brings it, another has signed it, or a field was edited."""
    now_s = REQUEST.asked_at_s
    good = sign_request(kit.key_of("south"), REQUEST)
    bad = [
        ("west", good),
        ("south", sign_request(kit.key_of("west"), REQUEST)),
        ("south", SignedRequest(good.body.replace(b'"devices":1', b'"devices":8'), good.signature)),
        ("south", SignedRequest(good.body + b" ", good.signature)),
        ("south", SignedRequest(good.body, bytes(64))),
    ]
    for borrower, signed in bad:
        with pytest.raises(ReceiptError):
            open_request(signed, kit.keys, borrower=borrower, now_s=now_s)


def test_a_request_has_its_time(kit: Any) -> None:
    """Neither from beyond the skew nor older than it may wait: that is a replay."""
    signed = sign_request(kit.key_of("south"), REQUEST)
    for now_s in (REQUEST.asked_at_s - LEDGER_CLOCK_LEAD_S, REQUEST.asked_at_s + REQUEST_LIFE_S):
        assert open_request(signed, kit.keys, borrower="south", now_s=now_s)
    for now_s in (REQUEST.asked_at_s - LEDGER_CLOCK_LEAD_S - 1, REQUEST.asked_at_s + REQUEST_LIFE_S + 1):
        with pytest.raises(ReceiptError):
            open_request(signed, kit.keys, borrower="south", now_s=now_s)


@pytest.mark.parametrize(
    "changes",
    [
        {"devices": 0},
        {"devices": 17},
        {"devices": True},
        {"nonce": "xy"},
        {"account": "south"},
        {"image_id": "cd"},
        {"model": "a b"},
        {"id": ""},
        {"duration_s": -1},
        {"min_runtime_s": "soon"},
        {"instant": 1},
        {"asked_at_s": 1.5},
    ],
    ids=str,
)
def test_a_request_out_of_bounds_is_not_written(changes: dict[str, Any]) -> None:
    """Each field has its form."""
    with pytest.raises(ReceiptError):
        encode_request(replace(REQUEST, **changes))


def test_a_carbon_series_says_the_present_hour(kit: Any) -> None:
    """Nothing before and after its hours, nor where it has no figure."""
    series = open_carbon(sign_carbon(kit.key_of("north"), SERIES), kit.keys)
    assert series == SERIES
    figures = [carbon_of(series, SERIES.from_s + at) for at in (-1, 0, 3599, 3600, 7200, 3 * 3600)]
    assert figures == [None, 100, 100, None, 0, None]


def test_a_carbon_series_is_its_sites(kit: Any) -> None:
    """Another key, or an edited figure, gives nothing."""
    good = sign_carbon(kit.key_of("north"), SERIES)
    for signed in (
        sign_carbon(kit.key_of("west"), SERIES),
        SignedCarbon(good.body.replace(b"100", b"001"), good.signature),
        SignedCarbon(good.body.replace(b"100", b"101"), good.signature),
    ):
        with pytest.raises(ReceiptError):
            open_carbon(signed, kit.keys)


@pytest.mark.parametrize(
    "changes",
    [
        {"g_per_kwh": ()},
        {"g_per_kwh": (5001,)},
        {"g_per_kwh": (-1,)},
        {"g_per_kwh": (True,)},
        {"g_per_kwh": (1.5,)},
        {"g_per_kwh": (1,) * (MAX_CARBON_HOURS + 1)},
        {"from_s": 3601},
        {"source": "x" * 201},
        {"source": "a\x1b[2J"},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_carbon_series_has_bounds(kit: Any, changes: dict[str, Any]) -> None:
    """Figures that no grid has, too many hours, or a source that moves a cursor."""
    with pytest.raises(ReceiptError):
        sign_carbon(kit.key_of("north"), replace(SERIES, **changes))
