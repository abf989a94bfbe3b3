"""``join``: how long one ``pyrdma-agent join`` takes against a gateway that runs, beside the promised time.

The whole command counts: the interpreter's start, the look at the server, key, request, proof and answer, and
the files of both sides as they are synced. Beside it stands what an interpreter alone takes.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.report import Figure, spread

LIMIT_S: Final = 3.0
"""One join of a node, from the command to its last line (the project's own limit)."""
_START_S: Final = 60.0


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks join")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args(arguments)
    joins, nothings = [], []
    with (
        tempfile.TemporaryDirectory(prefix="pyrdma-join-") as folder,
        _gateway(Path(folder) / "gw") as gateway,
    ):
        for run in range(options.runs + 1):
            invite = _agent("invite", "create", "--node", f"node-{run}", state=gateway)
            state = Path(folder) / f"node-{run}"
            started_s = time.perf_counter()
            _agent("join", "--invite-file", "-", state=state, given=invite)
            joins.append(time.perf_counter() - started_s)
            started_s = time.perf_counter()
            subprocess.run([sys.executable, "-c", "pass"], check=True)
            nothings.append(time.perf_counter() - started_s)
    joins, nothings = joins[1:], nothings[1:]  # the first run compiles and fills the page cache
    value = statistics.median(joins)
    Figure(
        "join_s",
        value,
        "s",
        LIMIT_S,
        "the limit of one join",
        value / LIMIT_S,
        {"join": spread(joins), "interpreter_alone": spread(nothings)},
    ).emit()


@contextlib.contextmanager
def _gateway(state: Path) -> Iterator[Path]:
    address, joins_at = _free_addresses()
    _agent(
        *("init", "--site", "uni-a", "--trust-domain", "uni-a.example", "--node", "gw"),
        *("--address", address, "--join-address", joins_at, "--request", str(state.with_suffix(".json"))),
        state=state,
    )
    command = [sys.executable, "-m", "agent", "serve", "--no-donate", "--state-dir", str(state)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + _START_S
        while not (state / "run" / "admin.sock").exists() or not _takes(joins_at):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"the gateway did not start within {_START_S:.0f} s")
            time.sleep(0.05)
        yield state
    finally:
        process.terminate()
        process.wait()


def _agent(*arguments: str, state: Path, given: str = "") -> str:
    command = [sys.executable, "-m", "agent", *arguments, "--state-dir", str(state)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments[:2])} failed: {done.stderr}")
    return done.stdout


def _free_addresses() -> tuple[str, str]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}", f"127.0.0.1:{two.getsockname()[1]}"


def _takes(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False
