"""``pyrdma-agent tui`` as a process: without a terminal, without an agent."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "agent", "tui", "--run-dir"]


def test_without_a_terminal_it_names_the_command_for_scripts(tmp_path: Path) -> None:
    """Exit code 2, nothing on stdout, and no toolkit was loaded for it."""
    result = subprocess.run(
        [*COMMAND, str(tmp_path)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "needs a terminal" in result.stderr
    assert "pyrdma-agent status --json" in result.stderr


def test_an_agent_that_is_not_there_at_the_start_is_an_error(tmp_path: Path) -> None:
    """Exit code 3 and the fix, before the screen is taken."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen([*COMMAND, str(tmp_path)], stdin=theirs, stdout=theirs, stderr=theirs)
        assert process.wait(60.0) == 3
        said = os.read(ours, 65_536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "no agent answers on" in said
    assert "pyrdma-agent serve" in said
    assert "\x1b[?1049h" not in said


def test_it_asks_at_most_twice_a_second(tmp_path: Path) -> None:
    """An interval of nothing would make the agent do nothing else."""
    result = subprocess.run(
        [*COMMAND, str(tmp_path), "--interval", "0"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "0.5<=x<=60.0" in result.stderr
