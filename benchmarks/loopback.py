"""``loopback``: a verified pull over UCX/TCP on loopback, against one plain socket stream with digests.

Both sides hold their memory touched; pulls and streams alternate, the ratio is the median over the pairs.
Beside it the memory that a pull costs beyond the image.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Sequence

from benchmarks.process_tree import Sampler
from benchmarks.report import Figure, spread
from benchmarks.socket_stream import SocketPair
from benchmarks.weights import weight_folder
from pyrdma.cache.client import CacheClient, CacheConfig, PullSource
from pyrdma.image import Manifest
from pyrdma.limits import MIB, PIECE_BYTES, RING_SLOTS

SLACK_BYTES = 256 * MIB


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks loopback")
    parser.add_argument("--size", type=float, default=2e9, help="bytes of the image")
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args(arguments)
    asyncio.run(_run(int(options.size), options.pairs))


async def _run(nbytes: int, pairs: int) -> None:
    with weight_folder(nbytes) as folder:
        config = CacheConfig(nbytes + SLACK_BYTES)
        holder, receiver = await CacheClient.start(config), await CacheClient.start(config)
        try:
            manifest = await holder.publish(folder, lambda _: None)
            await _faulted(receiver)
            await _measure(holder, receiver, manifest, pairs)
        finally:
            await receiver.close()
            await holder.close()


async def _measure(holder: CacheClient, receiver: CacheClient, manifest: Manifest, pairs: int) -> None:
    total = manifest.layout.total_bytes
    stream = await asyncio.to_thread(SocketPair, total)
    pulls, streams = [], []
    try:
        await _pull(holder, receiver, manifest)
        await asyncio.to_thread(stream.run)
        with Sampler(receiver.pid) as sampler:
            before = sampler.own_bytes()
            for _ in range(pairs):
                pulls.append(total / await _pull(holder, receiver, manifest) / 1e9)
                streams.append(total / await asyncio.to_thread(stream.run) / 1e9)
    finally:
        stream.close()
    ratios = [pull / plain for pull, plain in zip(pulls, streams, strict=True)]
    Figure(
        "loopback",
        statistics.median(pulls),
        "GB/s",
        statistics.median(streams),
        "one plain Python socket stream, same digests in a thread",
        statistics.median(ratios),
        {"bytes": total, "pull": spread(pulls), "stream": spread(streams), "ratio": spread(ratios)},
    ).emit()
    ring = RING_SLOTS * PIECE_BYTES
    Figure(
        "loopback_memory",
        (sampler.peak_bytes + ring) / MIB,
        "MiB",
        detail={
            "meaning": "private memory of the receiving cache and its lane worker, and the ring between them",
            "before_pull_private_mib": round(before / MIB),
            "ring_mib": ring // MIB,
        },
    ).emit()


async def _pull(holder: CacheClient, receiver: CacheClient, manifest: Manifest) -> float:
    grant = await holder.open_source(manifest.image_id, await receiver.lane_address())
    report = await receiver.pull(manifest, [PullSource("holder", grant)], lambda _: None)
    await receiver.drop(manifest.image_id)
    return report.seconds


async def _faulted(cache: CacheClient) -> None:
    while (status := await cache.status()).faulted_bytes < status.budget_bytes:
        await asyncio.sleep(0.1)
