"""One agent per directory: an advisory lock that the kernel lets go of when its holder ends, however it ends.

A socket file says nothing about who listens, the lock does. Hence the order: lock, then replace old sockets.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from agent.errors import SocketInUseError
from agent.paths import Paths, make_private_dir


@contextlib.contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """Create the agent's directories and hold both while the body runs.

    Raises:
        SocketInUseError: another agent runs on one of them.
        NodeError: a directory cannot be used.
    """
    with contextlib.ExitStack() as held:
        for path, mode in ((paths.state_dir, 0o700), (paths.run_dir, 0o750)):
            make_private_dir(path, mode)
            held.enter_context(_lock(path))
        for stale in paths.run_dir.glob("*.sock"):
            stale.unlink(missing_ok=True)
        yield


@contextlib.contextmanager
def state_locked(paths: Paths) -> Iterator[None]:
    """Hold the state directory alone while the body runs, for a command that changes what an agent relies on.

    Raises:
        SocketInUseError: an agent runs on it.
        NodeError: the directory cannot be used.
    """
    make_private_dir(paths.state_dir, 0o700)
    with _lock(paths.state_dir):
        yield


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    path = directory / "serve.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            who = f" (pid {holder})" if holder.isdigit() else ""
            raise SocketInUseError(
                f"socket in use: another agent{who} runs on {directory}.",
                fix="use that one, stop it, or give this one its own --state-dir and --run-dir",
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
