"""A site that has sent what it may in a day, at real gateways: pulls end, requests wait, the count stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from institutions import POLICY

MIB = 1 << 20
QUOTA = """\
data:
  egress_per_day: 60MB
"""


@pytest.fixture(scope="module")
def sites(
    shared_federation: Any, two_sites: tuple[Any, Any], make_model: Callable[..., Path]
) -> tuple[Any, Any]:
    """North has two images of 40 MiB and may send 60 MB a day; south pulls."""
    north, south = two_sites
    for at, name in enumerate(("first", "second")):
        north.publish(make_model(name, seed=at, nbytes=40 * MIB), name)
    shared_federation.policy(POLICY + QUOTA, north, south)
    return north, south


def test_a_day_has_one_quota(sites: tuple[Any, Any], until: Callable[..., Any]) -> None:
    """The first image comes, the second does not; guests wait; a restart gives no second quota."""
    north, south = sites
    granted = south.run("north/first", site="south")
    south.stop(granted.lease.id)
    assert south.cli("run", "north/second", "--site", "south").returncode != 0
    refused = south.cli("run", "north/second", "--site", "south")
    assert refused.returncode != 0
    assert "policy lets it send 60.0 MB a day" in refused.stderr, refused.stderr

    def waits() -> Any:
        with south.cli_started("run", "north/first", "--site", "north"):
            return until(lambda: north.call(lambda client: client.queue()).requests, "the request waits")

    (request,) = waits()
    assert request.place.reasons[0].code == "egress-exhausted"
    assert north.end() == 0
    north.launch()
    until(lambda: south.federation().sites, "south hears of north")

    def still_refused() -> bool:
        south.call(lambda client: client.refresh())
        again = south.cli("run", "north/second", "--site", "south")
        assert again.returncode != 0
        return "policy lets it send 60.0 MB a day" in again.stderr

    until(still_refused, "north counts on from where it was")
