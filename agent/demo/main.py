"""``pyrdma-agent demo``: the story from the first process to the last, and its clean end."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from agent.cli.output import data_json
from agent.demo.nodes import DemoNode
from agent.demo.preflight import find_minilm, needs_of, preflight
from agent.demo.show import Stage
from agent.demo.story import Story
from agent.error_table import ExitCode
from agent.errors import RequestError
from pyrdma.limits import MIB

MIN_SIZE_BYTES: Final = 64 * MIB
MAX_SIZE_BYTES: Final = 64 << 30


def run_demo(*, size_bytes: int, keep: bool, watch: bool, as_json: bool) -> int:
    """Run the demo; return its exit code.

    Args:
        size_bytes: of the generated checkpoint.
        keep: leave the nodes running and say what to try.
        watch: end in the terminal UI on the living federation, which ends with it.
        as_json: print one object instead of the story.

    Raises:
        Error: something of it failed; everything that was started has ended.
    """
    if not MIN_SIZE_BYTES <= size_bytes <= MAX_SIZE_BYTES:
        raise RequestError("the checkpoint's size is out of bounds.", fix="choose --size from 64MiB to 64GiB")
    if watch and not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise RequestError("--tui needs a terminal for its input and output.", fix="leave --tui away")
    stage = Stage(quiet=as_json)
    folder = Path(tempfile.mkdtemp(prefix="pyrdma-demo-"))
    # Ctrl-C raises KeyboardInterrupt; the other ways to end a demo do the same, so that it always cleans up.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    nodes: list[DemoNode] = []
    kept = False
    try:
        minilm = find_minilm()
        for line in preflight(needs_of(size_bytes), folder):
            stage.hint(f"  {line}")
        story = Story(stage, folder, minilm, size_bytes, nodes)
        document = asyncio.run(story.tell())
        if as_json:
            data_json(document)
        if watch:
            _watch(nodes[0])
        equal = bool(document["answers_equal"])
        if keep:
            kept = True
            _say_kept(stage, folder, nodes, as_json=as_json)
        return ExitCode.OK if equal else ExitCode.FAILED
    finally:
        if not kept:
            stage.hint("ending everything that the demo started ...")
            _end(nodes, folder)


def _watch(node: DemoNode) -> None:
    # As a process of its own: it is what people start, and nothing of it stays in the demo's.
    command = [sys.executable, "-m", "agent", "tui", *node.directories]
    subprocess.run(command, check=False)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _end(nodes: list[DemoNode], folder: Path) -> None:
    # A second Ctrl-C must not leave half of it behind.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.wait_ended()
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        signal.signal(signal.SIGINT, previous)


def _say_kept(stage: Stage, folder: Path, nodes: list[DemoNode], *, as_json: bool) -> None:
    if as_json:
        print(f"kept: {folder}", file=sys.stderr)
    running = [node for node in nodes if node.running]
    stage.say()
    stage.say("The nodes go on. Try:")
    gateway = f"--run-dir {running[0].paths.run_dir}"
    stage.say(f"  pyrdma-agent tui {gateway}")
    stage.say(f"  pyrdma-agent run minilm --site south {gateway}")
    for node in running:
        stage.say(f"  pyrdma-agent nodes --run-dir {node.paths.run_dir}")
    stage.say(f"End them with: kill {' '.join(str(node.pid) for node in running)}; rm -r {folder}")
