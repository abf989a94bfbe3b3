"""Weight caches that forward an image while they pull it, with real lane workers.

The first source of a chain is a worker whose gate this process holds: it lets out each piece when a test says
so. Behind it are weight-cache processes, each pulling from the one before.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import pytest

from pyrdma.attach import receive_attachment
from pyrdma.cache.client import PullReport, PullSource, SourceGrant
from pyrdma.errors import LaneError, LocalError, NoSourceError
from pyrdma.limits import MIN_PIECE_DEADLINE_S, PIECE_BYTES, WAIT_EVERY_S
from pyrdma.transport.ucx import UcxTransport
from pyrdma.wire import Channel

pytestmark = pytest.mark.usefixtures("needs_ucx")

PIECES = 6
PACE_S = 0.3


@dataclass
class Upstream:
    """A source whose pieces come out when they are allowed; it notes what it is asked for."""

    lane: UcxTransport
    session: int

    async def allow(self, *pieces: int) -> None:
        """Let pieces out."""
        assert await self.lane.allow(self.session, pieces)

    @property
    def source(self) -> PullSource:
        """What its only reader pulls from."""
        return PullSource("upstream", SourceGrant(self.session, self.lane.lane, self.lane.address))


async def upstream_of(lane_bench: Any, cache: Any) -> Upstream:
    """Start a gated source for one cache."""
    lane = await lane_bench.worker("honest", lane_bench.log_folder / "upstream", slots=1)
    lane_bench.session += 1
    await lane.serve(
        lane_bench.session,
        await cache.lane_address(),
        lane_bench.image,
        lane_bench.nbytes,
        gated=True,
        on_end=lambda: lane_bench.ended.append("upstream"),
    )
    return Upstream(lane, lane_bench.session)


async def replica_of(cache: Any) -> Any:
    """What a cache says of its only image; None while there is none."""
    replicas = (await cache.status()).replicas
    return replicas[0] if replicas else None


async def has(cache: Any, pieces: int) -> bool:
    """Whether so many pieces are proven at a cache."""
    replica = await replica_of(cache)
    return replica is not None and replica.verified_pieces == pieces


async def is_pulling(cache: Any) -> bool:
    """Whether a cache is filling its image."""
    replica = await replica_of(cache)
    return replica is not None and bool(replica.pulling)


async def worker_pid(cache: Any) -> int:
    """The process of a cache's lane worker."""
    (worker,) = (await cache.status()).workers
    return int(worker.pid)


async def from_cache(name: str, cache: Any, image_id: Any, puller: Any) -> PullSource:
    """Let one cache pull from another."""
    return PullSource(name, await cache.open_source(image_id, await puller.lane_address()))


async def content_of(cache: Any, manifest: Any) -> bytes:
    """The image as a process that attaches to it reads it."""
    parcel = await cache.attach(manifest.image_id)
    channel, theirs = Channel.pair()
    await asyncio.to_thread(parcel.send_to, Channel(theirs))
    attachment = await asyncio.to_thread(receive_attachment, channel, 10)
    try:
        return bytes(attachment.buffer)
    finally:
        attachment.close()
        channel.close()
        theirs.close()


def pulling(cache: Any, manifest: Any, *sources: PullSource) -> asyncio.Task[PullReport]:
    """Begin a pull."""
    return asyncio.create_task(cache.pull(manifest, list(sources), lambda _: None))


@dataclass
class Chain:
    """An upstream, a cache that pulls from it, and one that pulls from that one."""

    upstream: Upstream
    middle: Any
    last: Any
    first_pull: asyncio.Task[PullReport]
    second_pull: asyncio.Task[PullReport]


async def chain_of_two(caches: Any, lane_bench: Any, wait_until: Any, *, lead: int = 0) -> Chain:
    """Begin both pulls; the middle has so many pieces before the last one comes."""
    manifest = lane_bench.manifest
    middle, last = await caches.get("middle"), await caches.get("last")
    upstream = await upstream_of(lane_bench, middle)
    first_pull = pulling(middle, manifest, upstream.source)
    if lead:
        await upstream.allow(*range(lead))
        await wait_until(lambda: has(middle, lead))
    await wait_until(lambda: is_pulling(middle), "for the pull to begin")
    source = await from_cache("middle", middle, manifest.image_id, last)
    return Chain(upstream, middle, last, first_pull, pulling(last, manifest, source))


async def can_be_dropped(cache: Any, manifest: Any, wait_until: Any) -> None:
    """Wait until nothing holds an image, by dropping it."""

    async def dropped() -> bool:
        try:
            await cache.drop(manifest.image_id)
        except LocalError as error:
            return "not in this node" in error.message
        return True

    await wait_until(dropped, "for everything that uses the image to end")


def test_a_chain_gives_every_node_the_right_bytes_and_asks_upstream_once(
    caches: Any, loop_runner: asyncio.Runner, lane_bench: Any, wait_until: Any
) -> None:
    """The last cache comes when the middle has two pieces; both end whole, with one journey from upstream."""

    async def run() -> None:
        chain = await chain_of_two(caches, lane_bench, wait_until, lead=2)
        await wait_until(lambda: has(chain.last, 2), "for what was there before")
        await chain.upstream.allow(*range(2, PIECES))
        reports = await asyncio.wait_for(asyncio.gather(chain.first_pull, chain.second_pull), 20)
        assert [report.bytes for report in reports] == [lane_bench.nbytes] * 2
        assert sorted(lane_bench.asked("upstream")) == list(range(PIECES))
        content = lane_bench.flat.read_bytes()
        for cache in (chain.middle, chain.last):
            assert await content_of(cache, lane_bench.manifest) == content
            assert not (await replica_of(cache)).pulling
        await can_be_dropped(chain.middle, lane_bench.manifest, wait_until)

    loop_runner.run(run())


def test_nothing_of_a_piece_leaves_before_it_is_proven(
    caches: Any, loop_runner: asyncio.Runner, lane_bench: Any, wait_until: Any
) -> None:
    """Upstream stops before piece 3: the next node gets exactly 0 to 2, hears that it has to wait, and waits.

    Piece 3 is asked for by hand: not one byte of it lands before it is proven in the middle.
    """

    async def run() -> None:
        chain = await chain_of_two(caches, lane_bench, wait_until)
        await chain.upstream.allow(0, 1, 2)
        await wait_until(lambda: has(chain.last, 3))
        assert await has(chain.middle, 3)
        reader = await lane_bench.worker(slots=2)
        manifest = lane_bench.manifest
        grant = await chain.middle.open_source(manifest.image_id, reader.address)
        waits: list[float] = []
        peer = await reader.connect(grant, on_wait=lambda: waits.append(time.monotonic()))
        for slot in range(2):
            ctypes.memset(reader.slot_address(slot), 0x5A, PIECE_BYTES)
        early = asyncio.create_task(reader.fetch(peer, grant, 3 * PIECE_BYTES, PIECE_BYTES, 0))
        await reader.fetch(peer, grant, 2 * PIECE_BYTES, PIECE_BYTES, 1)  # the line itself is open
        await wait_until(lambda: len(waits) >= 2, "for two signs that the middle waits")
        assert waits[1] - waits[0] > WAIT_EVERY_S / 2
        assert not early.done()
        assert ctypes.string_at(reader.slot_address(0), PIECE_BYTES) == b"\x5a" * PIECE_BYTES
        assert await has(chain.last, 3)
        await chain.upstream.allow(3)
        await asyncio.wait_for(early, 10)
        with lane_bench.flat.open("rb") as flat:
            flat.seek(2 * PIECE_BYTES)
            for slot in (1, 0):
                assert ctypes.string_at(reader.slot_address(slot), PIECE_BYTES) == flat.read(PIECE_BYTES)
        await reader.disconnect(peer)
        await chain.upstream.allow(4, 5)
        await asyncio.wait_for(asyncio.gather(chain.first_pull, chain.second_pull), 20)

    loop_runner.run(run())


def test_a_source_that_waits_longer_than_a_silent_one_may_is_kept(
    caches: Any, loop_runner: asyncio.Runner, lane_bench: Any, wait_until: Any
) -> None:
    """Upstream pauses beyond the allowance of a silent source; nobody in the chain is dropped."""

    async def run() -> None:
        chain = await chain_of_two(caches, lane_bench, wait_until, lead=2)
        await wait_until(lambda: has(chain.last, 2))
        until_s = time.monotonic() + MIN_PIECE_DEADLINE_S + 1
        await wait_until(lambda: time.monotonic() > until_s, "for the pause to pass")
        assert not chain.first_pull.done()
        assert not chain.second_pull.done()
        await chain.upstream.allow(*range(2, PIECES))
        reports = await asyncio.wait_for(asyncio.gather(chain.first_pull, chain.second_pull), 20)
        assert [one.state for report in reports for one in report.sources] == ["done", "done"]

    loop_runner.run(run())


def test_a_chain_behind_a_slow_source_is_as_fast_as_its_first_link(
    caches: Any, loop_runner: asyncio.Runner, lane_bench: Any, wait_until: Any
) -> None:
    """Pieces come at a fixed pace from upstream; three caches in a row end almost together."""

    async def run() -> None:
        manifest = lane_bench.manifest
        row = [await caches.get(name) for name in ("middle", "last", "very last")]
        upstream = await upstream_of(lane_bench, row[0])
        ended_s: dict[int, float] = {}

        async def pull(place: int, source: PullSource) -> None:
            await row[place].pull(manifest, [source], lambda _: None)
            ended_s[place] = time.monotonic()

        pulls = [asyncio.create_task(pull(0, upstream.source))]
        for place in (1, 2):
            await wait_until(lambda place=place: is_pulling(row[place - 1]))
            source = await from_cache("before", row[place - 1], manifest.image_id, row[place])
            pulls.append(asyncio.create_task(pull(place, source)))
        began_s = time.monotonic()
        for piece in range(PIECES):
            await asyncio.sleep(PACE_S)  # this is the throttle, no wait for something to happen
            await upstream.allow(piece)
        await asyncio.wait_for(asyncio.gather(*pulls), 20)
        took_s = [ended_s[place] - began_s for place in range(3)]
        assert took_s[0] >= PIECES * PACE_S
        assert took_s[2] <= 1.35 * took_s[0], took_s
        for cache in row[1:]:
            assert await content_of(cache, manifest) == lane_bench.flat.read_bytes()

    loop_runner.run(run())


def test_only_an_image_that_is_whole_or_on_its_way_can_be_pulled_from(
    caches: Any, loop_runner: asyncio.Runner, lane_bench: Any, wait_until: Any
) -> None:
    """Part of an image that nobody is pulling is offered to nobody."""

    async def run() -> None:
        image_id = lane_bench.manifest.image_id
        middle, last = await caches.get("middle"), await caches.get("last")
        upstream = await upstream_of(lane_bench, middle)
        pull = pulling(middle, lane_bench.manifest, upstream.source)
        await upstream.allow(0, 1)
        await wait_until(lambda: has(middle, 2))
        with pytest.raises(LocalError, match="not whole"):
            await middle.attach(image_id)
        pull.cancel()
        await asyncio.gather(pull, return_exceptions=True)

        async def ended() -> bool:
            return not await is_pulling(middle)

        await wait_until(ended)
        with pytest.raises(LocalError, match="not whole"):
            await from_cache("middle", middle, image_id, last)
        assert await has(middle, 2)

    loop_runner.run(run())


def test_a_session_holds_its_memory_until_the_worker_has_let_go_of_it(
    lane_bench: Any, loop_runner: asyncio.Runner
) -> None:
    """Withdrawing returns, and tells that the session is over, once the worker reads nothing for it."""

    async def run() -> None:
        reader = await lane_bench.worker(slots=1)
        upstream = await lane_bench.worker("honest", lane_bench.log_folder / "upstream", slots=1)
        one = await lane_bench.grant("upstream", upstream, reader)
        os.kill(upstream.pid, signal.SIGSTOP)
        leaving = [asyncio.create_task(upstream.withdraw(one.grant.session)) for _ in range(2)]
        done, _ = await asyncio.wait(leaving, timeout=0.2)
        assert not done
        assert lane_bench.ended == []
        assert not await upstream.allow(one.grant.session, [0])
        os.kill(upstream.pid, signal.SIGCONT)
        await asyncio.wait_for(asyncio.gather(*leaving), 5)
        assert lane_bench.ended == ["upstream"]
        await upstream.withdraw(one.grant.session)
        assert lane_bench.ended == ["upstream"]
        assert upstream.alive

    loop_runner.run(run())


# --- links that break


async def break_upstream(chain: Chain) -> None:
    os.kill(chain.upstream.lane.pid, signal.SIGKILL)
    with pytest.raises(NoSourceError, match="3 of 6 pieces"):
        await asyncio.wait_for(chain.first_pull, 5)


async def break_middle_worker(chain: Chain) -> None:
    os.kill(await worker_pid(chain.middle), signal.SIGKILL)
    with pytest.raises(LaneError, match="died"):
        await asyncio.wait_for(chain.first_pull, 5)


async def break_middle_call(chain: Chain) -> None:
    chain.first_pull.cancel()
    await asyncio.gather(chain.first_pull, return_exceptions=True)


@pytest.mark.parametrize("fault", [break_upstream, break_middle_worker, break_middle_call])
def test_when_the_pull_in_the_middle_ends_early_the_last_one_hears_it_and_resumes_elsewhere(
    caches: Any, loop_runner: asyncio.Runner, lane_bench: Any, wait_until: Any, fault: Any
) -> None:
    """Upstream dies, the middle's worker dies, or its owner gives up: NoSourceError at once, not a stall.

    The middle's memory is in use by nobody afterwards, and another source is asked for what is missing only.
    """

    async def run() -> None:
        chain = await chain_of_two(caches, lane_bench, wait_until, lead=3)
        manifest = lane_bench.manifest
        await wait_until(lambda: has(chain.last, 3))
        began_s = time.monotonic()
        await fault(chain)
        with pytest.raises(NoSourceError, match="no source is left for 3 of 6 pieces: middle ") as caught:
            await asyncio.wait_for(chain.second_pull, 5)
        assert "kept" in caught.value.fix
        assert time.monotonic() - began_s < MIN_PIECE_DEADLINE_S - 1
        await can_be_dropped(chain.middle, manifest, wait_until)
        other = await lane_bench.worker("honest", lane_bench.log_folder / "other", slots=1)
        address = await chain.last.lane_address()
        await other.serve(77, address, lane_bench.image, lane_bench.nbytes, on_end=lambda: None)
        source = PullSource("other", SourceGrant(77, "tcp", other.address))
        report = await chain.last.pull(manifest, [source], lambda _: None)
        assert sorted(lane_bench.asked("other")) == [3, 4, 5]
        assert report.bytes == lane_bench.nbytes - 3 * PIECE_BYTES
        assert await content_of(chain.last, manifest) == lane_bench.flat.read_bytes()

    loop_runner.run(run())


def test_a_pull_with_another_source_goes_on_when_the_one_that_forwards_fails(
    caches: Any, loop_runner: asyncio.Runner, lane_bench: Any, wait_until: Any
) -> None:
    """The forwarding source is dropped; the other one finishes within the same pull, no piece comes twice."""

    async def run() -> None:
        manifest = lane_bench.manifest
        middle, last = await caches.get("middle"), await caches.get("last")
        upstream = await upstream_of(lane_bench, middle)
        first_pull = pulling(middle, manifest, upstream.source)
        await upstream.allow(0, 1)
        await wait_until(lambda: has(middle, 2))
        other = await lane_bench.worker("honest", lane_bench.log_folder / "other", slots=1)
        address = await last.lane_address()
        await other.serve(78, address, lane_bench.image, lane_bench.nbytes, gated=True, on_end=lambda: None)
        second_pull = pulling(
            last,
            manifest,
            await from_cache("middle", middle, manifest.image_id, last),
            PullSource("other", SourceGrant(78, "tcp", other.address)),
        )
        await wait_until(lambda: has(last, 2))
        os.kill(upstream.lane.pid, signal.SIGKILL)
        with pytest.raises(NoSourceError):
            await asyncio.wait_for(first_pull, 5)
        assert await other.allow(78, range(PIECES))
        report = await asyncio.wait_for(second_pull, 10)
        assert [one.state for one in report.sources] == ["dropped", "done"]
        assert [one.bytes for one in report.sources] == [2 * PIECE_BYTES, lane_bench.nbytes - 2 * PIECE_BYTES]
        assert sorted(lane_bench.asked("other")) == [2, 3, 4, 5]
        assert await content_of(last, manifest) == lane_bench.flat.read_bytes()

    loop_runner.run(run())


def test_a_middle_with_another_source_goes_on_and_its_readers_with_it(
    caches: Any, loop_runner: asyncio.Runner, lane_bench: Any, wait_until: Any
) -> None:
    """The death of one of two upstream sources is nothing that the end of the chain notices."""

    async def run() -> None:
        manifest = lane_bench.manifest
        middle, last = await caches.get("middle"), await caches.get("last")
        upstream = await upstream_of(lane_bench, middle)
        other = await lane_bench.worker("honest", lane_bench.log_folder / "other", slots=1)
        await other.serve(
            79, await middle.lane_address(), lane_bench.image, lane_bench.nbytes, on_end=lambda: None
        )
        first_pull = pulling(
            middle, manifest, upstream.source, PullSource("other", SourceGrant(79, "tcp", other.address))
        )
        await wait_until(lambda: is_pulling(middle))
        second_pull = pulling(last, manifest, await from_cache("middle", middle, manifest.image_id, last))

        async def some() -> bool:
            return (await replica_of(middle)).verified_pieces > 0

        await wait_until(some)
        os.kill(upstream.lane.pid, signal.SIGKILL)
        await asyncio.wait_for(first_pull, 10)
        report = await asyncio.wait_for(second_pull, 10)
        assert [(one.state, one.bytes) for one in report.sources] == [("done", lane_bench.nbytes)]
        assert await content_of(last, manifest) == lane_bench.flat.read_bytes()

    loop_runner.run(run())
