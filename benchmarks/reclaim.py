"""``reclaim``: how long an owner waits for a device of his, with real processes and a real model on it.

From the demand to the hand-over: notice, grace, kill, memory verified free. On each device a runner streams
answers that would go on for longer, so that the whole grace is used; ``frozen`` runners are stopped by
SIGSTOP before, so that they hear neither notice nor SIGTERM; ``gateway_dead`` is a lease of a site whose
gateway was killed before, with the borrower behind it; ``idle`` leases have no request open.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from agent.demo.federation import DemoFederation
from agent.demo.models import generate_llama
from agent.demo.nodes import DemoNode
from agent.devices.processes import started_ticks
from agent.devices.wishes import Claim
from agent.limits import GRACE_S
from agent.local.client import AgentClient, wait_until_ready
from agent.local.device_views import HandedOverView
from agent.local.people_views import Wanted
from agent.local.views import GrantedView
from agent.paths import Paths
from benchmarks.report import Figure, spread
from pyrdma.limits import MIB

MODEL = "llama"
_SLACK_S = 20.0
"""What may pass beyond 2 s and the grace: 10 s to kill, 10 s to see the memory free."""
_WAIT_S = 120.0


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks reclaim")
    parser.add_argument("--graces", default="0,2,10,30", help="seconds, separated by commas")
    parser.add_argument("--runs", type=int, default=3, help="reclaims for each figure")
    parser.add_argument("--no-gateway", action="store_true", help="leave out the lease whose gateway is dead")
    options = parser.parse_args(arguments)
    graces = [float(one) for one in options.graces.split(",")]
    asyncio.run(_run(graces, options.runs, gateway=not options.no_gateway))


async def _run(graces: list[float], runs: int, *, gateway: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="pyrdma-reclaim-") as name:
        folder = Path(name)
        await asyncio.to_thread(generate_llama, folder / MODEL, 64 * MIB, 1)
        for grace_s in graces:
            async with _node(folder / f"grace-{grace_s:g}", grace_s) as paths:
                await _publish(paths, folder / MODEL)
                for how in ("busy", "frozen") if grace_s != GRACE_S else ("busy", "frozen", "idle"):
                    waits = [await _reclaim(paths, how) for _ in range(runs)]
                    _emit(how, grace_s, waits)
        if gateway:
            _emit("gateway_dead", GRACE_S, [await _without_gateway(folder)])


def _emit(how: str, grace_s: float, waits: list[float]) -> None:
    bound_s = 2 + grace_s + _SLACK_S
    Figure(
        f"reclaim_{how}",
        max(waits),
        "s",
        bound_s,
        "to reach: at most 2 s, the grace and 20 s; with the default grace 15 s",
        max(waits) / bound_s,
        {"grace_s": grace_s, "seconds": spread(waits)},
    ).emit()


@asynccontextmanager
async def _node(folder: Path, grace_s: float) -> AsyncIterator[Paths]:
    command = [sys.executable, "-m", "agent", "serve", "--state-dir", str(folder), "--memory", "256MiB"]
    process = subprocess.Popen(
        [*command, "--spares", "1", "--devices", "1", "--grace", str(grace_s)], stderr=subprocess.DEVNULL
    )
    paths = Paths(folder, folder / "run")
    try:
        await wait_until_ready(paths, _WAIT_S)
        yield paths
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


async def _publish(paths: Paths, folder: Path) -> None:
    async with AgentClient(paths, change=True) as client:
        async for _ in client.publish(folder, MODEL):
            pass


async def _reclaim(paths: Paths, how: str) -> float:
    """Start a lease, take its device back, give it back; return the seconds from the demand on."""
    async with AgentClient(paths, change=True) as client:
        async with asyncio.timeout(_WAIT_S):
            while not any(one.state == "lent" for one in await client.devices()):
                await asyncio.sleep(0.05)
        granted = [event async for event in client.run(Wanted(MODEL))][-1]
        assert isinstance(granted, GrantedView)
        (lease,) = [one for one in await client.leases() if one.id == granted.lease.id]
        assert lease.pid is not None
        async with contextlib.AsyncExitStack() as ending:
            if how != "idle":
                await ending.enter_async_context(_streaming(granted))
            if how == "frozen":
                _freeze(lease.pid)
            seconds = await _take(client)
        assert not psutil.pid_exists(lease.pid), "nothing of the guest is left"
        assert (await client.status()).cache.used_bytes == 0, "its memory is free"
        return seconds


async def _take(client: AgentClient) -> float:
    """Take the device for a command of the owner's that ends at once afterwards."""
    command = subprocess.Popen(["sleep", "600"])
    try:
        started = started_ticks(command.pid)
        assert started is not None
        begun = time.monotonic()
        async for event in client.claim_devices(Claim((), 1, command.pid, started, "sleep 600")):
            if isinstance(event, HandedOverView):
                assert not event.doubt, event.doubt
        return time.monotonic() - begun
    finally:
        command.kill()
        command.wait()


@asynccontextmanager
async def _streaming(granted: GrantedView) -> AsyncIterator[None]:
    """Keep an answer going that does not end by itself for longer than any grace."""
    asked = {"model": MODEL, "prompt": "one two three", "max_tokens": 2000, "stream": True}
    port = int(granted.endpoint.rsplit(":", 1)[1].split("/")[0])
    streams = []
    for _ in range(4):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(asked)
        writer.write(
            (
                "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {granted.api_key}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            ).encode()
        )
        streams.append((reader, writer))
        first = await reader.readline()
        assert b"200" in first, first
    try:
        yield
    finally:
        for _, writer in streams:
            writer.close()


def _freeze(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGSTOP)


async def _without_gateway(folder: Path) -> float:
    """Reclaim a lease of a site's node whose gateway, the borrower's agent, was killed."""
    gateway, node = DemoNode("north-1", folder, 256 * MIB), DemoNode("north-2", folder, 256 * MIB)
    federation = DemoFederation(folder)
    await federation.begin()
    await federation.found("north", gateway)
    try:
        gateway.launch(spares=0)
        await gateway.ready()
        await federation.join(gateway, node)
        node.launch(spares=1)
        await node.ready()
        await gateway.has_node("north-2")
        await node.publish(folder / MODEL, MODEL, lambda _: None)
        await node.spare_ready()
        granted = await gateway.run(MODEL, lambda _: None, site="north", node="north-2")
        async with _streaming(granted), AgentClient(node.paths, change=True) as client:
            gateway.kill()
            return await _take(client)
    finally:
        for one in (gateway, node):
            one.terminate()
        for one in (gateway, node):
            one.wait_ended()
