"""Pulls over real UCX whose puller dies, or that nobody waits for: the source holds nothing for them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest
from cache_pulls import granted, idle_again, worker_pid

from pyrdma.cache.client import PullSource, SourceGrant
from pyrdma.errors import ChannelError, LaneError, LocalError
from pyrdma.limits import FIRST_PIECE_DEADLINE_S, PIECE_BYTES

pytestmark = pytest.mark.usefixtures("needs_ucx")


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
