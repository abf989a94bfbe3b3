"""The terminal UI on a real terminal, before a real agent that dies and comes back."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

DEADLINE_S = 60.0
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")


class Screen:
    """A process on a terminal of 80 by 24, and all that it wrote, without its escape sequences."""

    def __init__(self, command: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environ = os.environ | {"TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
        )
        os.close(theirs)
        self._written = b""

    def wait_for(self, words: str) -> None:
        """Read until these words were written since the last call."""
        end_s = time.monotonic() + DEADLINE_S
        while words not in (text := _ESCAPE.sub("", self._written.decode(errors="replace"))):
            assert time.monotonic() < end_s, f"no {words!r} in {text[-3000:]!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self._written += os.read(self._ours, 65_536)
        self._written = b""

    def press(self, key: str) -> None:
        """Type a key."""
        os.write(self._ours, key.encode())

    def end(self) -> int:
        """Read what is still to come, and return the exit code."""
        end_s = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < end_s, "it does not end"
            if select.select([self._ours], [], [], 0.1)[0]:
                try:
                    os.read(self._ours, 65_536)
                except OSError:
                    break  # the other end is closed
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """End the process, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)


@pytest.fixture
def screens() -> Iterator[Callable[[list[str]], Screen]]:
    """A function that starts a command on a terminal of its own."""
    started: list[Screen] = []

    def begin(command: list[str]) -> Screen:
        started.append(Screen(command))
        return started[-1]

    yield begin
    for screen in started:
        screen.close()


@pytest.mark.usefixtures("needs_ucx")
def test_the_ui_outlives_its_agent_and_finds_the_next_one(
    start: Callable[..., Any], screens: Callable[[list[str]], Screen]
) -> None:
    """It shows the agent, says when it is gone, shows the one that comes back, and leaves with 0."""
    agent = start("eth", "--spares", "0")
    run_dir = str(agent.paths.run_dir)
    screen = screens([sys.executable, "-m", "agent", "tui", "--interval", "0.5", "--run-dir", run_dir])
    screen.wait_for("spares 0 of 0")
    screen.press("2")
    screen.wait_for("No transfers since the agent started.")
    agent.end(signal.SIGKILL)
    screen.wait_for("No answer from the agent")
    screen.press("1")
    screen.wait_for("weight cache")
    start("eth", "--spares", "1")
    screen.wait_for("of 1, 0 leases")
    screen.press("q")
    assert screen.end() == 0
