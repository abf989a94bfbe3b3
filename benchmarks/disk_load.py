"""``disk_load``: what a warm start is compared with: safetensors from a cold file, and from the page cache.

The cold read drops the file's pages first (``posix_fadvise``), which a virtual machine's host may still
hold: the figure says what this machine gave, not what its disk can do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Figure, spread
from benchmarks.weights import weight_folder


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks disk_load")
    parser.add_argument("--size", type=float, default=2e9, help="bytes of the file")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    from safetensors.torch import load_file

    with weight_folder(int(options.size)) as folder:
        file = folder / "model.safetensors"
        nbytes = file.stat().st_size
        cold: list[float] = []
        cached: list[float] = []
        for _ in range(options.runs):
            for into, prepare in ((cold, drop_pages), (cached, _keep_pages)):
                prepare(file)
                started_s = time.perf_counter()
                tensors = load_file(file)
                touched = sum(
                    int(tensor.view(-1)[::2048].view(dtype=_bits()).sum()) for tensor in tensors.values()
                )
                into.append(nbytes / (time.perf_counter() - started_s) / 1e9)
                del tensors, touched
    Figure(
        "disk_load",
        statistics.median(cold),
        "GB/s",
        statistics.median(cached),
        "the same file from the page cache",
        statistics.median(cold) / statistics.median(cached),
        {"bytes": nbytes, "cold": spread(cold), "page_cache": spread(cached)},
    ).emit()


def drop_pages(file: Path) -> None:
    """Write a file's dirty pages out and let go of the cached ones."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _keep_pages(file: Path) -> None:
    with file.open("rb", buffering=0) as opened:
        while opened.read(16 << 20):
            pass


def _bits() -> object:
    import torch

    return torch.int16
