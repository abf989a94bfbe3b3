"""``replay_s``: a made trace of 100,000 jobs replayed on four donors, on one core, beside its limit.

The jobs are those of four institutions of 64 devices, local and guest, that keep three of four devices busy;
every decision is the gateway's own. ``steps`` are the events that the decision cores were given.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

from agent.replay.alike import alike
from agent.replay.generate import Institution, generate
from agent.replay.simulation import Simulation
from agent.replay.summary import summarise
from agent.replay.world import WARM, DonorSpec, World
from benchmarks.report import Figure, spread

LIMIT_S = 60.0
LIMIT_JOBS = 100_000
NAMES = ("alder", "birch", "cedar", "dogwood")


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks replay")
    parser.add_argument("--jobs", type=int, default=LIMIT_JOBS)
    parser.add_argument("--devices", type=int, default=64, help="devices of each donor")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(arguments)
    institutions = tuple(
        Institution(
            name=name,
            devices=options.devices,
            local_load=0.5,
            guest_devices=0.25 * options.devices,
            zone_h=6.0 * at,
        )
        for at, name in enumerate(NAMES)
    )
    jobs = list(generate(options.seed, options.jobs, institutions))
    world = World(donors=tuple(DonorSpec(one.name, one.devices) for one in institutions))
    policy = alike(jobs)
    runs = []
    for _ in range(options.runs):
        started_s = time.perf_counter()
        outcome = Simulation(world, policy, span_s=jobs[-1].submit_s + 1.0).run(jobs)
        runs.append(time.perf_counter() - started_s)
    summary = summarise(outcome, policy="all alike", start=WARM.name, start_s=WARM.seconds)
    value = statistics.median(runs)
    limit_s = LIMIT_S * options.jobs / LIMIT_JOBS
    Figure(
        "replay_s",
        value,
        "s",
        limit_s,
        f"the limit of {LIMIT_S:g} s for {LIMIT_JOBS:,} jobs",
        value / limit_s,
        {
            "jobs": options.jobs,
            "donors": len(NAMES),
            "devices": world.devices,
            "days": round(jobs[-1].submit_s / 86400, 1),
            "steps": outcome.steps,
            "utilisation": round(summary.utilisation, 3),
            "runs": spread(runs),
        },
    ).emit()
