"""``agent_idle``: what a node costs that does nothing: memory beside the donated budget, and processor time.

Without a spare runner, and with one, since a spare is most of what an idle node weighs. Memory is the
proportional set size of the process tree, less the shared memory of the donated budget.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.process_tree import cpu_seconds, tree
from benchmarks.report import Figure
from pyrdma.limits import MIB

BUDGET_MIB = 256


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks agent_idle")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long processor time is counted")
    options = parser.parse_args(arguments)
    for spares in (0, 1):
        with _agent(spares) as pid:
            parts = {_name(process.pid): _weight_mib(process.pid) for process in tree(pid)}
            before_s = cpu_seconds(pid)
            time.sleep(options.seconds)  # the measurement itself: how much is used while nothing happens
            used_s = cpu_seconds(pid) - before_s
        suffix = "_with_spare" if spares else ""
        Figure(
            f"agent_idle_memory{suffix}",
            sum(parts.values()),
            "MiB",
            detail={"beside_budget_mib": BUDGET_MIB, "parts_mib": parts},
        ).emit()
        Figure(
            f"agent_idle_cpu{suffix}",
            100 * used_s / options.seconds,
            "% of a core",
            detail={"over_s": options.seconds},
        ).emit()


@contextlib.contextmanager
def _agent(spares: int) -> Iterator[int]:
    with tempfile.TemporaryDirectory(prefix="pyrdma-idle-") as folder:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "agent", "serve", "--state-dir", folder),
                *("--memory", f"{BUDGET_MIB}MiB", "--spares", str(spares)),
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            _settle(Path(folder) / "run", spares)
            yield process.pid
        finally:
            process.terminate()
            process.wait()


def _settle(run_dir: Path, spares: int) -> None:
    """Wait until the budget is touched, the lane is up and the spare stands by."""
    import asyncio

    from agent.local.client import AgentClient, wait_until_ready
    from agent.paths import Paths

    async def settled() -> None:
        paths = Paths(run_dir.parent, run_dir)
        await wait_until_ready(paths, 60)
        async with AgentClient(paths) as client:
            while True:
                status = await client.status()
                faulted = status.cache.faulted_bytes == status.cache.budget_bytes
                if faulted and status.cache.workers and status.spares.ready == spares:
                    return
                await asyncio.sleep(0.1)

    asyncio.run(asyncio.wait_for(settled(), 180))


def _weight_mib(pid: int) -> float:
    rows = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        rows[name] = int(value.split()[0])
    return round((rows["Pss"] - rows["Pss_Shmem"]) * 1024 / MIB, 1)


def _name(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    module = words[words.index("-m") + 1] if "-m" in words else words[0]
    return f"{module} {pid}"
