"""Who lends, what a start costs, how late books are: as people write it, and as a trace suggests it."""

from __future__ import annotations

import pytest

from agent.errors import RequestError
from agent.replay.trace import Job
from agent.replay.world import (
    DonorSpec,
    Partition,
    StartCost,
    World,
    donors_of,
    parse_donors,
    parse_start,
)


def own_job(site: str, devices: int, duration_s: float, submit_s: float = 0.0) -> Job:
    return Job(submit_s, f"/{site}", devices, duration_s, "research", True, site)


def test_donors_are_written_with_their_devices_and_nodes() -> None:
    """A node has eight devices unless it is said, and a small site one node."""
    assert parse_donors("north=20, south=6x2,west=4") == (
        DonorSpec("north", 20, 8),
        DonorSpec("south", 6, 2),
        DonorSpec("west", 4, 4),
    )
    assert DonorSpec("north", 20, 8).nodes() == (8, 8, 4)


@pytest.mark.parametrize(
    "text", ["", "north", "north=0", "north=4x0", "North=4", "a=1,a=2", "a=1,", "a=9999999", "a=65536,b=1"]
)
def test_what_is_no_list_of_donors_is_refused(text: str) -> None:
    """Nothing is guessed from a text that is not as it should be."""
    with pytest.raises(RequestError):
        parse_donors(text)


def test_a_start_cost_has_a_name_and_a_time() -> None:
    """The name is what tables call it."""
    assert parse_start("disk=600s") == StartCost("disk", 600.0)
    assert parse_start("warm=1.5s") == StartCost("warm", 1.5)
    for text in ("disk", "disk=", "=5s", "disk=-5s", "disk=5"):
        with pytest.raises(RequestError):
            parse_start(text)


def test_a_trace_without_donors_suggests_them() -> None:
    """A site gets what its own jobs keep busy to six tenths, and no fewer devices than its widest needs."""
    jobs = [
        own_job("big", 2, 3000.0),
        own_job("big", 2, 3000.0),
        own_job("wide", 9, 1.0),
        own_job("big", 1, 1.0, 1000.0),
    ]
    assert donors_of(jobs) == (DonorSpec("big", 21, 8), DonorSpec("wide", 9, 8))
    guests = [Job(0.0, "/a", 1, 5.0, "research", False, "a")]
    with pytest.raises(RequestError, match="no local job"):
        donors_of(guests)


def test_a_partition_parts_sites_of_different_groups_in_its_time() -> None:
    """Inside a group books pass; a site in no group hears of nobody."""
    cut = Partition(10.0, 20.0, (frozenset({"a", "b"}), frozenset({"c"})))
    assert not cut.parts("a", "b", 15.0)
    assert cut.parts("a", "c", 15.0)
    assert cut.parts("a", "d", 15.0)
    assert not cut.parts("a", "c", 9.0)
    assert not cut.parts("a", "c", 20.0)


def test_books_may_become_later() -> None:
    """The last lag that has begun counts."""
    world = World(donors=(), lag_s=60.0, lags=((100.0, 7200.0), (200.0, 5.0)))
    assert [world.lag_at(at) for at in (0.0, 100.0, 199.0, 200.0)] == [60.0, 7200.0, 7200.0, 5.0]
