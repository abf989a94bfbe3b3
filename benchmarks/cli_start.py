"""``cli_start``: how long ``pyrdma-agent --help`` takes, against an interpreter that does nothing."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.report import Figure, spread


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks cli_start")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args(arguments)
    helps, nothings = [], []
    for _ in range(options.runs + 1):
        helps.append(_seconds([sys.executable, "-m", "agent", "--help"]))
        nothings.append(_seconds([sys.executable, "-c", "pass"]))
    helps, nothings = helps[1:], nothings[1:]  # the first run compiles and fills the page cache
    value, reference = statistics.median(helps), statistics.median(nothings)
    Figure(
        "cli_start",
        value,
        "s",
        reference,
        "python -c pass",
        value / reference,
        {"help": spread(helps), "nothing": spread(nothings)},
    ).emit()


def _seconds(command: list[str]) -> float:
    started_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started_s
