"""``resident_map``: mapping an image that the weight cache holds, in a process that has torch loaded.

From the order to attach until every tensor is there, at two sizes, against safetensors reading the same
files from the page cache.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import statistics
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.report import Figure, spread
from benchmarks.weights import weight_folder
from pyrdma.cache.client import CacheClient, CacheConfig
from pyrdma.limits import MIB
from pyrdma.wire import Channel


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks resident_map")
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.25e9, 2e9], help="bytes of the images")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args(arguments)
    for size in options.sizes:
        asyncio.run(_run(int(size), options.runs))


async def _run(nbytes: int, runs: int) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    channel, sock = Channel.pair()
    # Started without the folder's page cache in the way: it gets both orders over the pipe.
    user = context.Process(target=_use, args=(sock, theirs), daemon=True)
    user.start()
    sock.close()
    with weight_folder(nbytes) as folder:
        cache = await CacheClient.start(CacheConfig(nbytes + 256 * MIB, prefault=False))
        try:
            manifest = await cache.publish(folder, lambda _: None)
            maps, reads = [], []
            await asyncio.to_thread(ours.recv)
            for _ in range(runs):
                ours.send("map")
                started_s = time.perf_counter()
                (await cache.attach(manifest.image_id)).send_to(channel)
                ended_s = await asyncio.to_thread(ours.recv)
                maps.append(ended_s - started_s)
                ours.send(folder)
                reads.append(await asyncio.to_thread(ours.recv))
        finally:
            user.kill()
            user.join()
            channel.close()
            await cache.close()
    value, reference = statistics.median(maps), statistics.median(reads)
    Figure(
        "resident_map",
        value * 1e3,
        "ms",
        reference * 1e3,
        "safetensors.torch.load_file, which maps the file, from the page cache",
        value / reference,
        {
            "bytes": manifest.layout.total_bytes,
            "tensors": len(manifest.layout.tensors),
            "map_s": spread(maps),
            "read_s": spread(reads),
        },
    ).emit()


def _use(sock: socket.socket, pipe: Connection) -> None:
    from safetensors.torch import load_file

    from pyrdma.attach import receive_attachment
    from pyrdma.tensors import image_tensors

    channel = Channel(sock)
    pipe.send("ready")
    while True:
        order = pipe.recv()
        if isinstance(order, Path):
            started_s = time.perf_counter()
            read = load_file(order / "model.safetensors")
            pipe.send(time.perf_counter() - started_s)
            del read
        else:
            attachment = receive_attachment(channel)
            tensors = image_tensors(attachment)
            # perf_counter is the machine's monotonic clock: comparable between processes of one Linux host.
            pipe.send(time.perf_counter())
            del tensors
            attachment.close()
