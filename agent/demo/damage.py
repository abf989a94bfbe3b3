"""The demo's broken hardware: one bit in each piece that a node's weight cache holds turns over.

Written into the memory of a process that the demo itself started, as a failing memory module would: nothing
in the agent knows of it, and the node goes on in good faith.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agent.errors import NodeError
from pyrdma.limits import PIECE_BYTES

_OFFSET_BYTES: Final = 4096 + 7
"""Within each piece; past the first page, in the middle of weights."""


def flip_a_bit_in_each_piece(cache_pid: int) -> int:
    """Turn over one bit in each 16 MiB of a weight cache's memory; return how many.

    Raises:
        NodeError: this machine does not let us write to a process of our own.
    """
    flipped = 0
    try:
        with Path(f"/proc/{cache_pid}/mem").open("r+b", buffering=0) as memory:
            for first, last in _extents(cache_pid):
                for at in range(first + _OFFSET_BYTES, last, PIECE_BYTES):
                    memory.seek(at)
                    byte = memory.read(1)[0]
                    memory.seek(at)
                    memory.write(bytes([byte ^ 1]))
                    flipped += 1
    except OSError as error:
        raise NodeError(
            f"this machine does not let the demo damage its own process ({error.strerror}).",
            fix="kernel.yama.ptrace_scope above 1 forbids it; the other parts of the demo do not need it",
        ) from error
    return flipped


def _extents(pid: int) -> list[tuple[int, int]]:
    ranges = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "memfd:pyrdma-extent" in line:
            first, last = line.split()[0].split("-")
            ranges.append((int(first, 16), int(last, 16)))
    return ranges
