"""Pulls over real UCX on loopback: whole, with sources that die, stall or lie, and what a stranger can do.

Where a fault must come at an exact piece, both ends of the lane are held by this process (``lane_bench``) and
the source is a worker of ``lane_workers.py``; everything else goes through weight-cache processes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from pyrdma.attach import receive_attachment
from pyrdma.cache.client import PullSource, SourceGrant
from pyrdma.errors import ChannelError, LaneError, LocalError, NoSourceError, SourceError
from pyrdma.limits import (
    FIRST_PIECE_DEADLINE_S,
    LANE_DATA_BYTES,
    MIB,
    MIN_PIECE_DEADLINE_S,
    PIECE_BYTES,
    RING_SLOTS,
)
from pyrdma.transport.ucx import UcxTransport
from pyrdma.transport.worker_process import WORKER_COMMAND
from pyrdma.wire import Channel

pytestmark = pytest.mark.usefixtures("needs_ucx")

PIECES = 6


async def granted(name: str, source: Any, image_id: Any, puller: Any) -> PullSource:
    """Let one cache pull from another."""
    return PullSource(name, await source.open_source(image_id, await puller.lane_address()))


async def worker_pid(cache: Any) -> int:
    """The process of a cache's lane worker."""
    (worker,) = (await cache.status()).workers
    return int(worker.pid)


async def content_of(cache: Any, manifest: Any) -> bytes:
    """The image as a process that attaches to it reads it."""
    parcel = await cache.attach(manifest.image_id)
    channel, theirs = Channel.pair()
    await asyncio.to_thread(parcel.send_to, Channel(theirs))
    attachment = await asyncio.to_thread(receive_attachment, channel, 10)
    try:
        assert attachment.manifest == manifest
        return bytes(attachment.buffer)
    finally:
        attachment.close()
        channel.close()
        theirs.close()


async def idle_again(source: Any, manifest: Any, wait_until: Any) -> None:
    """Wait until no session holds the image, by dropping it."""

    async def dropped() -> bool:
        try:
            await source.drop(manifest.image_id)
        except LocalError as error:
            return "not in this node" in error.message
        return True

    await wait_until(dropped, "for the source's sessions to end")


# --- whole pulls
# ------------------------------------------------------------------------------------------------


def test_a_published_image_arrives_byte_by_byte(
    caches: Any, loop_runner: asyncio.Runner, lane_bench: Any, wait_until: Any
) -> None:
    """Two caches, one lane: what the puller's processes map equals what the publisher read from disk."""

    async def run() -> None:
        source, manifest = await caches.source("a")
        puller = await caches.get("puller")
        reports: list[Any] = []
        report = await puller.pull(
            manifest, [await granted("uni-a", source, manifest.image_id, puller)], reports.append
        )
        assert report.bytes == manifest.layout.total_bytes
        assert report.lane == "tcp"
        assert [(one.name, one.state, one.bytes) for one in report.sources] == [
            ("uni-a", "done", report.bytes)
        ]
        assert reports[-1].done_bytes == reports[-1].total_bytes == report.bytes
        assert await content_of(puller, manifest) == lane_bench.flat.read_bytes()
        again = await puller.pull(manifest, [], lambda _: None)
        assert again.bytes == 0, "what is whole is not pulled again"
        # Once the source has heard that the puller left, its image can go.
        await idle_again(source, manifest, wait_until)

    loop_runner.run(run())


def test_a_pull_costs_little_memory_beside_the_image(
    caches: Any, loop_runner: asyncio.Runner, memory_of: Any, wait_until: Any
) -> None:
    """Anonymous memory of cache and worker and the ring between them stay within 256 MiB."""

    async def run() -> None:
        source, manifest = await caches.source("a")
        puller = await caches.get("puller")
        sources = [await granted("a", source, manifest.image_id, puller)]
        pids = [puller.pid, await worker_pid(puller)]
        peak = 0

        def measure(_: Any) -> None:
            nonlocal peak
            peak = max(peak, sum(memory_of(pid, "RssAnon") for pid in pids))

        await puller.pull(manifest, sources, measure)
        measure(None)
        assert 0 < peak + RING_SLOTS * PIECE_BYTES <= 256 * MIB
        await idle_again(source, manifest, wait_until)

    loop_runner.run(run())


def test_a_source_does_not_grow_with_sessions(
    lane_bench: Any, loop_runner: asyncio.Runner, memory_of: Any, wait_until: Any
) -> None:
    """Memory, descriptors and sockets of both workers are after 60 sessions what they were after 20."""

    async def run() -> None:
        puller = await lane_bench.worker(slots=1)
        source = await lane_bench.worker(slots=1)

        def held() -> list[tuple[int, int]]:
            return [
                (memory_of(lane.pid, "RssAnon"), len(list(Path(f"/proc/{lane.pid}/fd").iterdir())))
                for lane in (source, puller)
            ]

        async def sessions(count: int) -> None:
            for _ in range(count):
                one = await lane_bench.grant("s", source, puller)
                peer = await puller.connect(one.grant, on_wait=lambda: None)
                await puller.fetch(peer, one.grant, 0, PIECE_BYTES, 0)
                await puller.disconnect(peer)
            await wait_until(lambda: not source._sessions, "for all sessions to end")

        await sessions(20)
        before = held()
        await sessions(40)
        for (rss, fds), (rss_before, fds_before) in zip(held(), before, strict=True):
            assert rss - rss_before < 2 * MIB
            assert fds <= fds_before + 3, "a connection may still be closing, not one of each session"

    loop_runner.run(run())


# --- sources that die
# -------------------------------------------------------------------------------------------


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


# --- sources that lie, strangers
# --------------------------------------------------------------------------------


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


def test_a_worker_listens_on_loopback_alone(
    lane_bench: Any, loop_runner: asyncio.Runner, listeners_of: Any
) -> None:
    """The kernel's own table says so."""

    async def run() -> None:
        lane = await lane_bench.worker(slots=1)
        found = listeners_of(lane.pid)
        assert found
        assert {address for address, _ in found} == {"0100007F"}

    loop_runner.run(run())


def test_a_worker_sees_nothing_of_the_node(lane_bench: Any, loop_runner: asyncio.Runner) -> None:
    """No rights, no other process, no file of the machine but what Python needs; the network stays."""

    async def run() -> None:
        lane = await lane_bench.worker(slots=1)
        status = Path(f"/proc/{lane.pid}/status").read_text()
        rows = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert rows["CapEff"] == rows["CapPrm"] == rows["CapBnd"] == "0" * 16
        assert rows["NoNewPrivs"] == "1"
        assert rows["NSpid"].split()[-1] == "1"
        limits = Path(f"/proc/{lane.pid}/limits").read_text()
        assert f"Max data size             {LANE_DATA_BYTES} " in limits
        root = Path(f"/proc/{lane.pid}/root")
        assert (root / "proc/1/status").exists()
        assert not {"home", "var", "run", "boot", "opt"} & {path.name for path in root.iterdir()}
        assert not (root / Path(__file__).relative_to("/")).exists()
        for name, shared in (("pid", False), ("mnt", False), ("ipc", False), ("net", True)):
            same = Path(f"/proc/{lane.pid}/ns/{name}").readlink() == Path(f"/proc/self/ns/{name}").readlink()
            assert same is shared

    loop_runner.run(run())


def test_an_interface_that_does_not_exist_is_refused(caches: Any, loop_runner: asyncio.Runner) -> None:
    """The sentence names it; the cache lives on without a lane."""

    async def run() -> None:
        cache = await caches.get("nowhere", interfaces=("nosuch0",))
        for _ in range(2):
            with pytest.raises(LaneError, match="'nosuch0'") as caught:
                await cache.lane_address()
            assert "--interface" in caught.value.fix
        assert (await cache.status()).workers == ()

    loop_runner.run(run())


def test_a_ucx_that_does_not_come_up_is_a_sentence_with_a_fix(
    loop_runner: asyncio.Runner, count_descriptors: Any
) -> None:
    """An interface that UCX cannot use: what the worker says of it reaches the caller, no traceback."""
    before = count_descriptors()
    command = ["/usr/bin/env", "UCX_TLS=tcp", *WORKER_COMMAND]  # without 'self', on which it would come up

    async def run() -> None:
        with pytest.raises(LaneError) as caught:
            await UcxTransport.start("nosuch0", command=command)
        assert caught.value.message == "UCX did not come up on the interface 'nosuch0' (No such device)."
        assert "--interface" in caught.value.fix

    loop_runner.run(run())
    assert count_descriptors() == before


def test_random_frames_on_the_port_cost_a_worker_at_most(
    caches: Any, loop_runner: asyncio.Runner, listeners_of: Any, wait_until: Any
) -> None:
    """A stranger on loopback sends frames that UCX does not check; the cache lives, the next pull works."""
    chance = random.Random(21)

    def fuzz(port: int) -> None:
        for _ in range(60):
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1) as stranger:
                    stranger.sendall((0xCAFEBABE).to_bytes(8, "little") if chance.random() < 0.5 else b"")
                    for _ in range(10):
                        size = chance.randrange(1, 300)
                        head = bytes([chance.randrange(32)]) + size.to_bytes(4, "little")
                        stranger.sendall(head + chance.randbytes(size))
            except OSError:
                continue

    async def run() -> None:
        source, manifest = await caches.source("a")
        puller = await caches.get("puller")
        await granted("a", source, manifest.image_id, puller)
        for _, port in listeners_of(await worker_pid(source)):
            await asyncio.to_thread(fuzz, port)

        async def pulled() -> bool:
            one = await granted("a", source, manifest.image_id, puller)
            try:
                await puller.pull(manifest, [one], lambda _: None)
            except (NoSourceError, LaneError):
                return False  # a worker that was killed is started again by the next call
            return True

        await wait_until(pulled)
        assert not source.closed.is_set()
        # The puller never connected for the first grant; its session is closed by hand, as an owner does.
        await source.close()
        await caches.get("a")

    loop_runner.run(run())


# --- pullers that die
# -------------------------------------------------------------------------------------------


def test_a_puller_killed_in_mid_pull_holds_nothing_at_the_source(
    caches: Any, loop_runner: asyncio.Runner, lane_bench: Any, wait_until: Any
) -> None:
    """After SIGKILL of the puller's cache its session ends by itself, once the source's worker runs again."""

    async def run() -> None:
        puller = await caches.get("short-lived")
        source, pulling = await half_a_pull(puller, lane_bench, wait_until)
        os.kill(puller.pid, signal.SIGKILL)
        with pytest.raises(ChannelError, match="not running"):
            await asyncio.wait_for(pulling, 10)
        assert lane_bench.ended == []
        os.kill(source.pid, signal.SIGCONT)
        await wait_until(lambda: lane_bench.ended == ["sleeper"], "for the session to end")
        assert source.alive

    loop_runner.run(run())


def test_a_pull_whose_own_worker_dies_goes_on_with_the_next_try(
    caches: Any, loop_runner: asyncio.Runner, lane_bench: Any, wait_until: Any
) -> None:
    """SIGKILL of the puller's own worker is a LaneError at once; a new one fetches what is missing."""

    async def run() -> None:
        puller = await caches.get("puller")
        _, pulling = await half_a_pull(puller, lane_bench, wait_until)
        os.kill(await worker_pid(puller), signal.SIGKILL)
        with pytest.raises(LaneError, match="died") as caught:
            await asyncio.wait_for(pulling, 3)
        assert caught.value.fix
        source, manifest = await caches.source("a")
        one = await granted("a", source, manifest.image_id, puller)
        report = await puller.pull(manifest, [one], lambda _: None)
        assert report.bytes <= manifest.layout.total_bytes - PIECE_BYTES
        await idle_again(source, manifest, wait_until)

    loop_runner.run(run())


async def half_a_pull(puller: Any, lane_bench: Any, wait_until: Any) -> tuple[Any, asyncio.Task[Any]]:
    """Start a pull from a source that stops after two pieces, and wait until one is proven."""
    source = await lane_bench.worker("sleeper", lane_bench.log_folder / "sleeper", slots=1)
    await source.serve(
        9,
        await puller.lane_address(),
        lane_bench.image,
        lane_bench.nbytes,
        on_end=lambda: lane_bench.ended.append("sleeper"),
    )
    sources = [PullSource("sleeper", SourceGrant(9, "tcp", source.address))]
    pulling = asyncio.create_task(puller.pull(lane_bench.manifest, sources, lambda _: None))

    async def begun() -> bool:
        return any(one.verified_pieces for one in (await puller.status()).replicas)

    await wait_until(begun)
    return source, pulling


def test_a_pull_that_nobody_waits_for_stops(
    caches: Any, loop_runner: asyncio.Runner, wait_until: Any
) -> None:
    """A cancelled call ends its pull at once, although its source stands still; the memory can be dropped."""

    async def run() -> None:
        holder, manifest = await caches.source("holder")
        puller = await caches.get("puller")
        grant = await holder.open_source(manifest.image_id, await puller.lane_address())
        source = await worker_pid(holder)
        os.kill(source, signal.SIGSTOP)
        try:
            pull = asyncio.create_task(puller.pull(manifest, [PullSource("holder", grant)], lambda _: None))

            async def begun() -> bool:
                return bool((await puller.status()).replicas)

            async def dropped() -> bool:
                try:
                    await puller.drop(manifest.image_id)
                except LocalError:
                    return False  # still in use
                return True

            await wait_until(begun)
            pull.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pull
            began_s = time.monotonic()
            await wait_until(dropped)
            assert time.monotonic() - began_s < FIRST_PIECE_DEADLINE_S / 2
        finally:
            os.kill(source, signal.SIGCONT)
        await holder.close_source(grant.session)

    loop_runner.run(run())
