"""Pulls over real UCX from sources that die, stall or lie.

Where a fault must come at an exact piece, both ends of the lane are held by this process (``lane_bench``) and
the source is a worker of ``lane_workers.py``; everything else goes through weight-cache processes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from typing import Any

import pytest
from cache_pulls import PIECES, content_of, granted, idle_again, worker_pid

from pyrdma.cache.client import PullSource, SourceGrant
from pyrdma.errors import NoSourceError, SourceError
from pyrdma.limits import MIN_PIECE_DEADLINE_S, PIECE_BYTES

pytestmark = pytest.mark.usefixtures("needs_ucx")


def test_a_worker_killed_in_mid_pull_is_replaced_and_its_pieces_are_kept(
    lane_bench: Any, loop_runner: asyncio.Runner
) -> None:
    """A source's worker gets SIGKILL after two pieces; the other one is asked only for what is missing."""

    async def run() -> None:
        puller = await lane_bench.worker()
        mortal, first = await lane_bench.source("mortal", puller, "mortal")
        _, second = await lane_bench.source("other", puller)
        began_s = time.monotonic()
        report = await lane_bench.pull(puller, [first, second])
        assert time.monotonic() - began_s < MIN_PIECE_DEADLINE_S - 1, "a death is seen, not waited out"
        assert report.bytes == lane_bench.nbytes
        assert [one.state for one in report.sources] == ["dropped", "done"]
        assert "source" in report.sources[0].reason
        assert puller.alive, "the death of a source is not the end of our lane"
        kept = report.sources[0].bytes // PIECE_BYTES
        assert kept >= 1
        asked = lane_bench.asked("other")
        assert len(asked) == len(set(asked)) == PIECES - kept
        assert not mortal.alive
        assert "mortal" in lane_bench.ended

    loop_runner.run(run())
    assert lane_bench.wrong() == []


def test_a_cache_killed_in_mid_pull_is_replaced(
    caches: Any, loop_runner: asyncio.Runner, wait_until: Any, has_ended: Any, lane_bench: Any
) -> None:
    """SIGKILL of a source's whole cache while it is asked: its worker goes too, another source finishes."""

    async def run() -> None:
        first, manifest = await caches.source("victim")
        second, _ = await caches.source("a")
        puller = await caches.get("puller")
        pid = await worker_pid_after(first, manifest, puller)
        sources = [
            await granted("victim", first, manifest.image_id, puller),
            await granted("a", second, manifest.image_id, puller),
        ]
        os.kill(pid, signal.SIGSTOP)  # it holds its window of pieces until it dies
        pulling = asyncio.create_task(puller.pull(manifest, sources, lambda _: None))

        async def begun() -> bool:
            return any(one.verified_pieces for one in (await puller.status()).replicas)

        await wait_until(begun)
        os.kill(first.pid, signal.SIGKILL)
        report = await asyncio.wait_for(pulling, 8)
        assert report.bytes == manifest.layout.total_bytes
        assert report.sources[1].state == "done"
        await wait_until(lambda: has_ended(pid), "for the worker to follow its cache")
        await first.closed.wait()
        assert await content_of(puller, manifest) == lane_bench.flat.read_bytes()
        await idle_again(second, manifest, wait_until)

    async def worker_pid_after(cache: Any, manifest: Any, puller: Any) -> int:
        grant = await cache.open_source(manifest.image_id, await puller.lane_address())
        await cache.close_source(grant.session)
        return await worker_pid(cache)

    loop_runner.run(run())


def test_a_stopped_source_is_dropped_within_its_deadline_and_nothing_of_it_lands_later(
    lane_bench: Any, loop_runner: asyncio.Runner, wait_until: Any
) -> None:
    """A source that gets SIGSTOP after two pieces; once it goes on, no byte of it reaches a slot."""

    async def run() -> None:
        puller = await lane_bench.worker(slots=6)
        sleeper, first = await lane_bench.source("sleeper", puller, "sleeper")
        _, second = await lane_bench.source("other", puller)
        began_s = time.monotonic()
        report = await lane_bench.pull(puller, [first, second])
        assert time.monotonic() - began_s < MIN_PIECE_DEADLINE_S + 3
        assert report.sources[0].reason == "stalled: no piece for 4 s"
        assert report.sources[0].bytes >= PIECE_BYTES
        assert lane_bench.wrong() == []
        assert puller.alive
        for slot in range(puller.slots):
            ctypes.memset(puller.slot_address(slot), 0x5A, PIECE_BYTES)
        assert "sleeper" not in lane_bench.ended
        os.kill(sleeper.pid, signal.SIGCONT)
        await wait_until(lambda: "sleeper" in lane_bench.ended, "for the sleeper to see that it was left")
        for slot in range(puller.slots):
            assert ctypes.string_at(puller.slot_address(slot), PIECE_BYTES) == b"\x5a" * PIECE_BYTES
        assert sleeper.alive

    loop_runner.run(run())


def test_letting_go_of_a_stopped_source_is_quick(lane_bench: Any, loop_runner: asyncio.Runner) -> None:
    """Pieces that a stopped source was asked for end with the connection, in far less than a deadline."""

    async def run() -> None:
        puller = await lane_bench.worker()
        source, one = await lane_bench.source("stopped", puller)
        peer = await puller.connect(one.grant, on_wait=lambda: None)
        await puller.fetch(peer, one.grant, 0, PIECE_BYTES, 0)
        os.kill(source.pid, signal.SIGSTOP)
        waiting = [
            asyncio.create_task(puller.fetch(peer, one.grant, slot * PIECE_BYTES, PIECE_BYTES, slot))
            for slot in range(4)
        ]
        await asyncio.sleep(0)
        began_s = time.monotonic()
        await puller.disconnect(peer)
        assert time.monotonic() - began_s < 2
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 2)
        assert all("connection" in str(one) or "gone" in str(one) for one in results), results
        assert puller.alive
        os.kill(source.pid, signal.SIGCONT)

    loop_runner.run(run())


def test_pieces_asked_of_a_source_that_dies_end_by_themselves(
    lane_bench: Any, loop_runner: asyncio.Runner
) -> None:
    """Not even those that it had not begun to send wait for a deadline."""

    async def run() -> None:
        puller = await lane_bench.worker()
        source, one = await lane_bench.source("killed", puller)
        peer = await puller.connect(one.grant, on_wait=lambda: None)
        await puller.fetch(peer, one.grant, 0, PIECE_BYTES, 0)
        os.kill(source.pid, signal.SIGSTOP)
        waiting = [
            asyncio.create_task(puller.fetch(peer, one.grant, slot * PIECE_BYTES, PIECE_BYTES, slot))
            for slot in range(4)
        ]
        await asyncio.sleep(0)
        os.kill(source.pid, signal.SIGKILL)
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 2)
        assert all(isinstance(one, SourceError) for one in results), results
        assert puller.alive

    loop_runner.run(run())


def test_without_a_source_the_pieces_stay_and_a_new_source_sends_the_rest(
    lane_bench: Any, loop_runner: asyncio.Runner
) -> None:
    """The only source dies after two pieces: NoSourceError; the next pull asks for exactly the others."""

    async def run() -> None:
        puller = await lane_bench.worker()
        _, first = await lane_bench.source("mortal", puller, "mortal")
        proven: set[int] = set()
        with pytest.raises(NoSourceError) as caught:
            await lane_bench.pull(puller, [first], proven)
        assert "kept" in caught.value.fix
        assert lane_bench.wrong(proven) == []
        kept = set(proven)
        _, second = await lane_bench.source("other", puller)
        report = await lane_bench.pull(puller, [second], proven)
        assert sorted(lane_bench.asked("other")) == sorted(set(range(PIECES)) - kept)
        assert report.bytes == lane_bench.nbytes - len(kept) * PIECE_BYTES
        assert kept

    loop_runner.run(run())
    assert lane_bench.wrong() == []


def test_a_cache_resumes_with_what_it_has(caches: Any, loop_runner: asyncio.Runner, lane_bench: Any) -> None:
    """The same through a cache process: the second pull's report counts only what was missing."""

    async def run() -> None:
        puller = await caches.get("puller")
        address = await puller.lane_address()
        mortal = await lane_bench.worker("mortal", lane_bench.log_folder / "mortal", slots=1)
        await mortal.serve(7, address, lane_bench.image, lane_bench.nbytes, on_end=lambda: None)
        source = PullSource("mortal", SourceGrant(7, "tcp", mortal.address))
        with pytest.raises(NoSourceError):
            await puller.pull(lane_bench.manifest, [source], lambda _: None)
        (part,) = (await puller.status()).replicas
        honest = await lane_bench.worker("honest", lane_bench.log_folder / "honest", slots=1)
        await honest.serve(8, address, lane_bench.image, lane_bench.nbytes, on_end=lambda: None)
        source = PullSource("honest", SourceGrant(8, "tcp", honest.address))
        report = await puller.pull(lane_bench.manifest, [source], lambda _: None)
        assert report.bytes == lane_bench.nbytes - part.verified_pieces * PIECE_BYTES
        assert len(lane_bench.asked("honest")) == PIECES - part.verified_pieces
        assert await content_of(puller, lane_bench.manifest) == lane_bench.flat.read_bytes()

    loop_runner.run(run())


@pytest.mark.parametrize("mode", ["liar", "short"])
def test_a_liar_is_named_and_dropped(lane_bench: Any, loop_runner: asyncio.Runner, mode: str) -> None:
    """A source that flips a bit of each piece, or leaves out its end, gives nothing; another gives all."""

    async def run() -> None:
        puller = await lane_bench.worker()
        _, liar = await lane_bench.source("liar", puller, mode)
        _, honest = await lane_bench.source("honest", puller)
        report = await lane_bench.pull(puller, [liar, honest])
        assert [(one.state, one.bytes) for one in report.sources] == [
            ("dropped", 0),
            ("done", lane_bench.nbytes),
        ]
        assert report.sources[0].reason == "sent 3 pieces with a wrong digest"

    loop_runner.run(run())
    assert lane_bench.wrong() == []


def test_only_a_liar_gives_an_error_with_its_name(lane_bench: Any, loop_runner: asyncio.Runner) -> None:
    """Nothing of it is kept."""

    async def run() -> None:
        puller = await lane_bench.worker()
        _, liar = await lane_bench.source("uni-x", puller, "liar")
        proven: set[int] = set()
        with pytest.raises(NoSourceError, match="uni-x sent 3 pieces with a wrong digest"):
            await lane_bench.pull(puller, [liar], proven)
        assert proven == set()

    loop_runner.run(run())


def test_a_range_beyond_the_image_is_refused_and_the_source_lives(
    lane_bench: Any, loop_runner: asyncio.Runner
) -> None:
    """A peer that asks past the end gets nothing; others are served as before."""

    async def run() -> None:
        puller = await lane_bench.worker()
        source, one = await lane_bench.source("s", puller)
        peer = await puller.connect(one.grant, on_wait=lambda: None)
        for offset, nbytes in ((lane_bench.nbytes - 1, 2), (2**63, 1), (0, PIECE_BYTES + 1)):
            with pytest.raises(Exception, match="fetch failed"):
                await asyncio.wait_for(puller.fetch(peer, one.grant, offset, nbytes, 0), 5)
            await puller.disconnect(peer)
            peer = await puller.connect(one.grant, on_wait=lambda: None)
        _, two = source, await lane_bench.grant("t", source, puller)
        await lane_bench.pull(puller, [two])

    loop_runner.run(run())
    assert lane_bench.wrong() == []
