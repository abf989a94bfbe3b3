"""Lane workers that attack the weight cache: no wrong byte, a sentence, and the worker is gone.

The cache's side of the lane runs in this process; the worker is a program of ``lane_workers.py``.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from pyrdma.errors import LaneError, NoSourceError
from pyrdma.pull.engine import PullSource
from pyrdma.transport import SourceGrant

SOURCE = PullSource("some source", SourceGrant(1, "tcp", b"address"))


def attack(bench: Any, runner: asyncio.Runner, mode: str, **options: Any) -> Exception | None:
    """Pull through a hostile worker; the error, or None when the image came whole."""

    async def run() -> Exception | None:
        lane = await bench.worker(mode, bench.flat, **options)
        proven: set[int] = set()
        try:
            await asyncio.wait_for(bench.pull(lane, [SOURCE], proven), 30)
        except (NoSourceError, LaneError) as error:
            return error
        finally:
            assert bench.wrong(proven) == []
        return None

    return runner.run(run())


@pytest.mark.parametrize(
    "mode",
    [
        "unknown_fetch",
        "twice",
        "unhashable",
        "no_reason",
        "no_operation",
        "flood",
        "flood_of_strangers",
        "flood_of_waits",
        "waits_unasked",
    ],
)
def test_a_worker_that_breaks_its_contract_is_ended_at_once(
    lane_bench: Any, loop_runner: asyncio.Runner, has_ended: Any, mode: str
) -> None:
    """One message that was not waited for is enough; the pull ends with a sentence, nothing is proven."""
    error = attack(lane_bench, loop_runner, mode)
    assert isinstance(error, LaneError)
    assert error.message == "the UCX lane worker broke its contract and was ended."
    assert has_ended(lane_bench.lanes[0].pid)
    assert not lane_bench.lanes[0].alive


@pytest.mark.parametrize("mode", ["garbage", "not_an_object"])
def test_a_worker_that_sends_garbage_is_ended_at_once(
    lane_bench: Any, loop_runner: asyncio.Runner, has_ended: Any, mode: str
) -> None:
    """Packets that are no message end the lane."""
    error = attack(lane_bench, loop_runner, mode)
    assert isinstance(error, LaneError)
    assert error.message == "the UCX lane worker died."
    assert error.fix
    assert has_ended(lane_bench.lanes[0].pid)


@pytest.mark.parametrize("mode", ["no_data", "truncates"])
def test_data_that_never_came_proves_nothing(lane_bench: Any, loop_runner: asyncio.Runner, mode: str) -> None:
    """A worker that says "fetched" without bytes, or takes the ring away, gives wrong digests only."""
    error = attack(lane_bench, loop_runner, mode)
    assert isinstance(error, NoSourceError)
    assert error.message == (
        "no source is left for 6 of 6 pieces: some source sent 3 pieces with a wrong digest."
    )


def test_slots_that_are_rewritten_while_they_are_proven_give_no_wrong_byte(
    lane_bench: Any, loop_runner: asyncio.Runner
) -> None:
    """A worker that keeps writing after "fetched" gets a wrong digest or delivers a right piece."""
    error = attack(lane_bench, loop_runner, "rewrites")
    assert error is None or isinstance(error, NoSourceError)


def test_descriptors_that_a_worker_sends_are_closed(
    count_descriptors: Any, lane_bench: Any, loop_runner: asyncio.Runner
) -> None:
    """Two hundred descriptors with each message leave none behind."""
    before = count_descriptors()
    assert isinstance(attack(lane_bench, loop_runner, "descriptors"), NoSourceError)
    loop_runner.run(lane_bench.lanes[0].close())
    assert count_descriptors() <= before + 2


def test_what_a_worker_says_is_shown_cut_and_without_escapes(
    lane_bench: Any, loop_runner: asyncio.Runner
) -> None:
    """A reason is text that a stranger may have chosen: no control character reaches a terminal."""
    error = attack(lane_bench, loop_runner, "failed_with_escapes")
    assert isinstance(error, NoSourceError)
    assert error.message.isprintable()
    assert len(error.message) < 400
    assert lane_bench.lanes[0].lane.isprintable()


def own_children() -> set[str]:
    """Return this process' children; the helper of multiprocessing of an earlier test is one."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.parametrize("mode", ["exits", "mute", "huge_address"])
def test_a_worker_that_does_not_come_up_is_a_sentence(
    count_descriptors: Any, lane_bench: Any, loop_runner: asyncio.Runner, mode: str
) -> None:
    """Ending at once, saying nothing, or claiming an address that no lane has: LaneError, no process left."""
    before, children = count_descriptors(), own_children()

    async def start() -> None:
        with pytest.raises(LaneError, match=r"did not come up|broke its contract"):
            await lane_bench.worker(mode, start_deadline_s=1.0)

    loop_runner.run(start())
    assert own_children() <= children
    assert count_descriptors() == before


def test_a_worker_that_never_answers_costs_the_deadlines_and_no_more(
    lane_bench: Any, loop_runner: asyncio.Runner, has_ended: Any
) -> None:
    """Fetches that never end drop the source; then the worker that does not let go of it is ended."""
    loop = loop_runner.get_loop()
    began_s = loop.time()
    error = attack(lane_bench, loop_runner, "silent", order_deadline_s=0.5)
    assert isinstance(error, (LaneError, NoSourceError))
    assert loop.time() - began_s < 13
    assert has_ended(lane_bench.lanes[0].pid)


def test_a_worker_that_does_not_serve_in_time_is_ended(
    lane_bench: Any, loop_runner: asyncio.Runner, has_ended: Any
) -> None:
    """An order that is not obeyed within its deadline ends the worker."""

    async def run() -> None:
        lane = await lane_bench.worker("silent", order_deadline_s=0.3)
        with pytest.raises(LaneError, match="hangs"):
            await lane_bench.grant("x", lane, lane)
        assert has_ended(lane.pid)
        assert lane_bench.ended == ["x"]

    loop_runner.run(run())


def test_a_worker_cannot_get_a_way_to_write_into_an_image(
    lane_bench: Any, loop_runner: asyncio.Runner
) -> None:
    """Mapping, writing, truncating and reopening the descriptors of an image all fail in the worker."""

    async def run() -> None:
        lane = await lane_bench.worker("maps")
        with pytest.raises(LaneError) as caught:
            await lane_bench.grant("x", lane, lane)
        assert caught.value.message == "the lane cannot serve: worked: [] on 2."

    loop_runner.run(run())


def test_an_address_that_no_lane_has_fails_its_source_alone(
    lane_bench: Any, loop_runner: asyncio.Runner, needs_ucx: None
) -> None:
    """A grant with a huge or empty address drops that source; the worker never sees the huge one."""

    async def run() -> None:
        puller = await lane_bench.worker()
        _, good = await lane_bench.source("good", puller)
        huge = PullSource("huge", SourceGrant(1, "tcp", b"x" * 50_000))
        report = await lane_bench.pull(puller, [huge, good])
        assert [one.state for one in report.sources] == ["dropped", "done"]
        assert puller.alive

    loop_runner.run(run())
    assert lane_bench.wrong() == []
