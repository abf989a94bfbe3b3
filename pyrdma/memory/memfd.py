"""Anonymous memory files and the seals that make them safe to share.

``F_SEAL_FUTURE_WRITE`` (Linux 5.1) is what the weight cache rests on: mappings that exist stay writable,
nobody else can ever make another or ``write()``, not even through ``/proc/self/fd``. So the cache alone
changes its memory and may reuse it, while everyone it lends the descriptor to can only read.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

from pyrdma.errors import ChannelError, LocalError

# linux/fcntl.h; Python 3.11 names neither.
_F_ADD_SEALS: Final = 1033
_F_GET_SEALS: Final = 1034
SEAL_SEAL: Final = 0x1
SEAL_SHRINK: Final = 0x2
SEAL_GROW: Final = 0x4
SEAL_WRITE: Final = 0x8
SEAL_FUTURE_WRITE: Final = 0x10


def create(name: str, nbytes: int) -> int:
    """Return the descriptor of a new memory file of ``nbytes`` zero bytes; no page is touched yet."""
    fd = os.memfd_create(f"pyrdma-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, nbytes)
    except OSError:
        os.close(fd)
        raise
    return fd


def add_seals(fd: int, seals: int) -> None:
    """Seal a memory file.

    Raises:
        LocalError: the kernel lacks the seal, or someone maps the file writable.
    """
    try:
        fcntl.fcntl(fd, _F_ADD_SEALS, seals)
    except OSError as error:
        raise LocalError(
            f"this kernel refused to seal memory ({error.strerror}).", fix="run Linux 5.1 or newer"
        ) from error


def seals(fd: int) -> int:
    """Return the seals of a memory file; 0 for a file that cannot be sealed."""
    try:
        return fcntl.fcntl(fd, _F_GET_SEALS)
    except OSError:
        return 0


def lent_memfd(name: str, nbytes: int) -> int:
    """Return a memory file of fixed size for someone else to write into.

    Shrinking is sealed: a borrower that truncates what it was lent would kill us with SIGBUS.
    """
    fd = create(name, nbytes)
    add_seals(fd, SEAL_SHRINK | SEAL_GROW | SEAL_SEAL)
    return fd


def sealed_bytes(name: str, data: bytes) -> int:
    """Return a memory file that holds ``data`` and that nobody can change; so bulk travels."""
    fd = create(name, len(data))
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done : done + (1 << 30)], done)
    add_seals(fd, SEAL_SHRINK | SEAL_GROW | SEAL_WRITE | SEAL_SEAL)
    return fd


def read_bulk(fd: int, limit_bytes: int) -> bytes:
    """Return the whole content of a memory file that came with a message, and close it.

    Raises:
        ChannelError: the file is larger than ``limit_bytes``.
    """
    try:
        nbytes = os.fstat(fd).st_size
        if nbytes > limit_bytes:
            raise ChannelError(f"a process of this node sent {nbytes} bytes where {limit_bytes} are allowed.")
        chunks: list[bytes] = []
        done = 0
        while done < nbytes and (chunk := os.pread(fd, nbytes - done, done)):
            chunks.append(chunk)
            done += len(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)
