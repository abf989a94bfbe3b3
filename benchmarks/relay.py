"""``relay``: a lease's endpoint at the borrower, through both gateways, against its runner asked directly.

Two institutions as real processes on this machine; the same requests, streamed, go alternately to the
borrower's port and to the runner's own socket. First token: one request at a time. Throughput: many at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from agent.demo.federation import DemoFederation
from agent.demo.models import generate_llama
from agent.demo.nodes import DemoNode
from agent.local.views import GrantedView
from benchmarks.report import Figure, spread
from pyrdma.limits import MIB

MODEL = "llama"
Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks relay")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--singles", type=int, default=30)
    options = parser.parse_args(arguments)
    asyncio.run(_run(options.streams, options.tokens, options.pairs, options.singles))


async def _run(streams: int, tokens: int, pairs: int, singles: int) -> None:
    with tempfile.TemporaryDirectory(prefix="pyrdma-relay-") as name:
        folder = Path(name)
        await asyncio.to_thread(generate_llama, folder / MODEL, 64 * MIB, 1)
        north, south = DemoNode("north-1", folder, 256 * MIB), DemoNode("south-1", folder, 256 * MIB)
        try:
            federation = DemoFederation(folder)
            await federation.begin()
            for site, gateway, spares in (("north", north, 0), ("south", south, 1)):
                await federation.found(site, gateway)
                gateway.launch(spares=spares)
            await asyncio.gather(north.ready(), south.ready())
            await north.sees("south")
            await north.publish(folder / MODEL, MODEL, lambda _: None)
            await south.spare_ready()
            granted = await north.run(MODEL, lambda _: None, site="south")
            await _measure(south, granted, streams, tokens, pairs, singles)
        finally:
            for node in (north, south):
                node.terminate()
            for node in (north, south):
                node.wait_ended()


async def _measure(
    south: DemoNode, granted: GrantedView, streams: int, tokens: int, pairs: int, singles: int
) -> None:
    socket = south.paths.runner_socket(granted.lease.id)
    port = int(granted.endpoint.rsplit(":", 1)[1].split("/")[0])
    ways: dict[str, Connect] = {
        "direct": lambda: asyncio.open_unix_connection(str(socket)),
        "relayed": lambda: asyncio.open_connection("127.0.0.1", port),
    }
    first: dict[str, list[float]] = {way: [] for way in ways}
    rate: dict[str, list[float]] = {way: [] for way in ways}
    for connect in ways.values():
        await _ask(connect, granted.api_key, tokens)
    for _ in range(singles):
        for way, connect in ways.items():
            first[way].append((await _ask(connect, granted.api_key, 2))[0])
    for _ in range(pairs):
        for way, connect in ways.items():
            begun = time.perf_counter()
            done = await asyncio.gather(*(_ask(connect, granted.api_key, tokens) for _ in range(streams)))
            rate[way].append(sum(count for _, count in done) / (time.perf_counter() - begun))
    added = [relayed - direct for relayed, direct in zip(first["relayed"], first["direct"], strict=True)]
    Figure(
        "relay_first_token_added",
        1e3 * statistics.median(added),
        "ms",
        5.0,
        "to reach: at most 5 ms and the round trip beyond the runner asked directly",
        detail={way: spread([1e3 * one for one in values]) for way, values in first.items()},
    ).emit()
    ratios = [one / other for one, other in zip(rate["relayed"], rate["direct"], strict=True)]
    Figure(
        "relay_throughput",
        statistics.median(rate["relayed"]),
        "tokens/s",
        statistics.median(rate["direct"]),
        "the runner asked directly on its own socket",
        statistics.median(ratios),
        {"streams": streams, "tokens_each": tokens, "ratio": spread(ratios)},
    ).emit()


async def _ask(connect: Connect, key: str, tokens: int) -> tuple[float, int]:
    """Stream one completion; return the seconds to its first token, and how many came."""
    asked = {"model": MODEL, "prompt": "one two three", "max_tokens": tokens, "stream": True}
    body = json.dumps(asked)
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    begun = time.perf_counter()
    reader, writer = await connect()
    writer.write((head + body).encode())
    first_s, count = 0.0, 0
    try:
        async for line in reader:
            if line.startswith(b"data: {"):
                count += 1
                first_s = first_s or time.perf_counter() - begun
            elif not count and line.startswith(b"HTTP/1.1") and b" 200 " not in line:
                raise RuntimeError(f"the endpoint answered {line.decode().strip()}")
    finally:
        writer.close()
    if not count:
        raise RuntimeError("the endpoint answered without a token")
    return first_s, count
