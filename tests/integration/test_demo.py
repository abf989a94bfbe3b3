"""The demo as a user meets it: its figures, its story, its end, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.timeout(600)
COMMAND = [sys.executable, "-m", "agent", "demo"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="pyrdma-test-", dir="/tmp") as path:
        yield Path(path)


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(folder)}


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""  # it has just ended


def _naming(folder: Path) -> list[psutil.Process]:
    """Every process whose command names the folder: the demo's nodes do."""
    return [process for process in psutil.process_iter() if str(folder) in _command(process)]


def test_the_demo_prints_one_object_and_leaves_nothing_behind(folder: Path) -> None:
    """With --json: the documented object, verified starts, equal answers, and nothing is left over."""
    done = subprocess.run(
        [*COMMAND, "--size", "100MB", "--json"],
        capture_output=True,
        text=True,
        timeout=500,
        env=_environment(folder),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["schema"] == 1
    assert document["answers_equal"] is True
    assert document["receipts"] >= 4
    assert document["fair_share"]["problems"] == 0
    assert 0 < document["fair_share"]["reclaim_s"] < 15
    assert set(document["baseline"]) == {"cold_s", "page_cache_s"}
    starts = document["starts"]
    assert [start["name"] for start in starts] == ["cross-site", "in-site", "resident"] * 2
    for start in starts:
        assert start["verified"] is True
        if start["name"] == "resident":
            assert (start["lane"], start["bytes"], start["pull_s"]) == ("resident", 0, 0)
        else:
            assert start["lane"] == "tcp"
            assert start["bytes"] > 50e6
            assert 0 < start["pull_s"] < start["first_answer_s"]
        assert start["first_answer_s"] < document["baseline"]["cold_s"]
    assert not _naming(folder)
    assert not list(folder.glob("pyrdma-demo-*"))


def test_an_interrupt_ends_everything_that_the_demo_started(folder: Path) -> None:
    """Ctrl-C while the nodes come up: exit code 130, no process and no file afterwards."""
    demo = subprocess.Popen(
        [*COMMAND, "--size", "100MB"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=_environment(folder),
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        while not any("pyrdma.cache" in _command(one) for one in _children(demo.pid)):
            assert demo.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)  # between two looks at the condition
        started = _children(demo.pid)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 130
    finally:
        if demo.poll() is None:
            for process in (*_naming(folder), *_children(demo.pid), psutil.Process(demo.pid)):
                process.kill()
            demo.wait()
        if demo.stderr is not None:
            demo.stderr.close()
    gone, alive = psutil.wait_procs(started, timeout=10)
    assert gone
    assert not alive
    assert not _naming(folder)
    assert not list(folder.glob("pyrdma-demo-*"))


def test_a_temporary_folder_with_a_long_path_is_refused_at_once(tmp_path: Path) -> None:
    """Sockets have short addresses: said before anything is generated, not minutes later."""
    long = tmp_path / ("x" * 80)
    long.mkdir()
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, timeout=60, env=_environment(long), check=False
    )
    assert done.returncode == 2
    assert "too long" in done.stderr
    assert not list(long.iterdir())


@pytest.mark.parametrize(
    ("size", "code", "sentence"),
    [("1KB", 2, "out of bounds"), ("much", 2, "no size"), ("60GB", 1, "memory")],
)
def test_a_size_that_cannot_be_is_refused_before_anything_starts(size: str, code: int, sentence: str) -> None:
    """A wrong or too large --size: one sentence, a fix, the right exit code, nothing on stdout."""
    done = subprocess.run([*COMMAND, "--size", size], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert sentence in done.stderr
    assert "fix:" in done.stderr
    assert done.stdout == ""


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
