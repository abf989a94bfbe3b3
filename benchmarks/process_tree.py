"""Memory and processor time of a process and its children, as the kernel counts them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Self

import psutil


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all that descend from it."""
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def own_bytes(pid: int) -> int:
    """Return the anonymous memory of a process tree: what it holds beside mapped files and shared memory."""
    total = 0
    for process in tree(pid):
        try:
            with Path(f"/proc/{process.pid}/status").open() as status:
                total += next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024
        except (OSError, StopIteration):
            continue  # ended meanwhile
    return total


def cpu_seconds(pid: int) -> float:
    """Return the processor seconds that a process tree has used so far."""
    return sum(sum(process.cpu_times()[:2]) for process in tree(pid))


class Sampler:
    """Samples the private memory of a process tree in a thread; ``peak_bytes`` is the most that was seen."""

    def __init__(self, pid: int, every_s: float = 0.02) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def own_bytes(self) -> int:
        """Return what the tree holds now."""
        return own_bytes(self._pid)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.peak_bytes = max(self.peak_bytes, own_bytes(self._pid))
