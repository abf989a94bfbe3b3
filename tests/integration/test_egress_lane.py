"""What leaves a site, over real UCX: counted to the byte, one pace for all peers, not beyond a quota."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pyrdma.cache.client import PullSource
from pyrdma.errors import LocalError, NoSourceError
from pyrdma.lanes.egress import BURST_S
from pyrdma.limits import MIB, PIECE_BYTES

pytestmark = pytest.mark.usefixtures("needs_ucx")


async def metered(name: str, source: Any, image_id: Any, puller: Any) -> PullSource:
    """Let the cache of another site pull."""
    grant = await source.open_source(image_id, await puller.lane_address(), metered=True)
    return PullSource(name, grant)


async def counted(source: Any, at_least: int, wait_until: Any, *, until_bytes: int | None = None) -> int:
    """Wait until a source has counted so much; return its count, which begins with its cache."""
    found = 0

    async def there() -> bool:
        nonlocal found
        found = await source.egress(0, until_bytes)
        return found >= at_least

    await wait_until(there, "for the count")
    return found


async def idle_again(source: Any, manifest: Any, wait_until: Any, *refused: PullSource) -> None:
    """End the calls of those who were refused, as their agents do, and wait until no session is left."""
    for one in refused:
        await source.close_source(one.grant.session)

    async def dropped() -> bool:
        try:
            await source.drop(manifest.image_id)
        except LocalError as error:
            return "not in this node" in error.message
        return True

    await wait_until(dropped, "for the last session to end")


def test_what_goes_to_other_sites_counts_and_nothing_else(
    caches: Any, loop_runner: asyncio.Runner, wait_until: Any
) -> None:
    """Two pulls of one image, one by a node of the site: its bytes are counted once."""

    async def run() -> None:
        source, manifest = await caches.source("a")
        total = manifest.layout.total_bytes
        before = await source.egress(0, None)
        own, other = await caches.get("own"), await caches.get("other")
        grant = await source.open_source(manifest.image_id, await own.lane_address())
        await own.pull(manifest, [PullSource("uni-a", grant)], lambda _: None)
        await other.pull(manifest, [await metered("uni-a", source, manifest.image_id, other)], lambda _: None)
        assert await counted(source, before + total, wait_until) == before + total
        await idle_again(source, manifest, wait_until)

    loop_runner.run(run())


def test_a_pace_holds_for_all_peers_together(
    caches: Any, loop_runner: asyncio.Runner, wait_until: Any
) -> None:
    """Two sites pull at once: what both got by the end took as long as the pace says, and is whole."""

    async def run() -> None:
        source, manifest = await caches.source("a")
        total, pace = manifest.layout.total_bytes, 64 * MIB
        before = await source.egress(pace, None)
        pullers = [await caches.get("b"), await caches.get("c")]
        sources = [await metered("uni-a", source, manifest.image_id, one) for one in pullers]
        begun_s = time.monotonic()
        reports = await asyncio.gather(
            *(
                one.pull(manifest, [wanted], lambda _: None)
                for one, wanted in zip(pullers, sources, strict=True)
            )
        )
        took_s = time.monotonic() - begun_s
        assert [one.bytes for one in reports] == [total, total]
        assert took_s >= (2 * total - PIECE_BYTES) / pace - BURST_S
        assert await counted(source, before + 2 * total, wait_until) == before + 2 * total
        await idle_again(source, manifest, wait_until)

    loop_runner.run(run())


def test_beyond_the_quota_a_puller_goes_to_another_source(
    caches: Any, loop_runner: asyncio.Runner, wait_until: Any
) -> None:
    """One site sends what it may and not a byte more, the other one the rest; alone it is not enough."""

    async def run() -> None:
        source, manifest = await caches.source("a")
        second, _ = await caches.source("b")
        total = manifest.layout.total_bytes
        before = await source.egress(0, None)
        quota = before + 2 * PIECE_BYTES + 1
        await source.egress(0, quota)
        puller, alone = await caches.get("puller"), await caches.get("alone")
        first = await metered("uni-a", source, manifest.image_id, puller)
        grant = await second.open_source(manifest.image_id, await puller.lane_address())
        report = await puller.pull(manifest, [first, PullSource("uni-b", grant)], lambda _: None)
        assert report.bytes == total
        sent = await counted(source, before + PIECE_BYTES, wait_until, until_bytes=quota)
        assert sent <= quota
        last = await metered("uni-a", source, manifest.image_id, alone)
        with pytest.raises(NoSourceError):
            await alone.pull(manifest, [last], lambda _: None)
        assert await source.egress(0, None) <= quota
        await idle_again(source, manifest, wait_until, first, last)

    loop_runner.run(run())
