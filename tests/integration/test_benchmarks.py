"""Each benchmark, small: it runs, and prints figures in the documented form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEYS = {"schema", "name", "value", "unit", "reference", "reference_name", "ratio", "machine", "detail"}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("cli_start", "--runs", "1"), ["cli_start"]),
        (("identity_check", "--sites", "3", "--leaves", "5", "--runs", "1"), ["identity_check_us"]),
        (("join", "--runs", "1"), ["join_s"]),
        (("ledger_sync", "--receipts", "1600"), ["ledger_sync_s"]),
        (("ledger_verify", "--receipts", "1600", "--runs", "1"), ["ledger_verify_per_s"]),
        (
            ("decision", "--requests", "300", "--accounts", "40", "--runs", "2"),
            ["decision_ms", "decision_event_ms", "order_ms", "order_event_ms"],
        ),
        (("reclaim", "--graces", "0", "--runs", "1", "--no-gateway"), ["reclaim_busy", "reclaim_frozen"]),
        (("loopback", "--size", "7e7", "--pairs", "1"), ["loopback", "loopback_memory"]),
        (("disk_load", "--size", "7e7", "--runs", "1"), ["disk_load"]),
        (("resident_map", "--sizes", "7e7", "--runs", "1"), ["resident_map"]),
    ],
    ids=lambda value: value[0],
)
def test_a_benchmark_prints_its_figures(arguments: tuple[str, ...], names: list[str]) -> None:
    """One JSON object a line, each with a positive value, and a ratio wherever there is a reference."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert [figure["name"] for figure in figures] == names
    for figure in figures:
        assert set(figure) == KEYS
        assert figure["schema"] == 1
        assert figure["value"] > 0
        assert (figure["reference"] is None) is (figure["ratio"] is None)


def test_an_unknown_benchmark_is_a_usage_error() -> None:
    """Exit code 2 and the names that there are."""
    command = [sys.executable, "-m", "benchmarks", "nope"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "loopback" in done.stderr
