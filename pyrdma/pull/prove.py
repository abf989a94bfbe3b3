"""How a received piece becomes trusted: copied to where nobody else can write, then proven there.

The lane worker may still write into its slot while we look at it, so a digest taken in the slot would prove
nothing. Each step copies one stretch out and digests the copy while it is in the cache of the core.
"""

from __future__ import annotations

import ctypes
from typing import Final

import blake3

from pyrdma.limits import MIB

STEP_BYTES: Final = MIB
"""Large enough for BLAKE3's wide paths, small enough for a second-level cache (of 128 KiB to 16 MiB, 0.5 to
4 MiB were fastest)."""


def copy_and_digest(source: int, target: int, nbytes: int) -> bytes:
    """Copy ``nbytes`` between two addresses and return the BLAKE3-256 digest of what was written.

    ``source`` may change meanwhile; the digest is that of the target, whatever came. Lets go of the GIL.
    """
    hasher = blake3.blake3()
    for at in range(0, nbytes, STEP_BYTES):
        step = min(STEP_BYTES, nbytes - at)
        ctypes.memmove(target + at, source + at, step)
        hasher.update(_bytes_at(target + at, step))
    return hasher.digest()


def digest_at(address: int, nbytes: int) -> bytes:
    """Return the BLAKE3-256 digest of ``nbytes`` at an address."""
    return blake3.blake3(_bytes_at(address, nbytes)).digest()


def _bytes_at(address: int, nbytes: int) -> memoryview:
    return memoryview((ctypes.c_ubyte * nbytes).from_address(address)).cast("B")
