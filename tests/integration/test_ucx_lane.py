"""A lane over real UCX on loopback: whole pulls, what its worker sees, and what a stranger can do."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path
from typing import Any

import pytest
from cache_pulls import content_of, granted, idle_again, worker_pid

from pyrdma.errors import LaneError, NoSourceError
from pyrdma.limits import LANE_DATA_BYTES, MIB, PIECE_BYTES, RING_SLOTS
from pyrdma.transport.ucx import UcxTransport
from pyrdma.transport.worker_process import WORKER_COMMAND

pytestmark = pytest.mark.usefixtures("needs_ucx")


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
