"""Reading a model folder into the pool and taking its digests: the only place where weights come from a disk.

A reader thread fills pieces in order while another digests the one before.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Final, Self

from pyrdma.errors import ImageFormatError
from pyrdma.image import CopySegment, FolderScan, Manifest
from pyrdma.memory import Region
from pyrdma.pull.prove import digest_at

_AHEAD: Final = 4
"""Pieces that may wait for their digest; more would only leave the caches of the cores."""


def read_folder(
    scan: FolderScan, region: Region, digesting: Executor, on_bytes: Callable[[int], None]
) -> Manifest:
    """Fill a region from the files of a scan and return the manifest of what was read.

    Args:
        scan: the layout and where each stretch of it lies on disk.
        region: at least ``scan.layout.total_bytes``, its content undefined.
        digesting: another thread takes the digests.
        on_bytes: told how many bytes are read and digested so far.

    Raises:
        ImageFormatError: a file is shorter than when it was scanned, or cannot be read.
    """
    layout = scan.layout
    waiting: list[tuple[int, Future[bytes]]] = []
    digests: list[bytes] = []

    def take(most: int) -> None:
        while len(waiting) > most:
            end, digest = waiting.pop(0)
            digests.append(digest.result())
            on_bytes(end)

    with _Files() as files:
        parts = _parts(scan)
        part = next(parts, None)
        for piece in range(layout.piece_count):
            offset, nbytes = layout.piece_range(piece)
            at, end = offset, offset + nbytes
            while at < end:
                if part is None or part.offset >= end:
                    _zero(region, at, end - at)
                    at = end
                elif part.offset > at:
                    _zero(region, at, part.offset - at)
                    at = part.offset
                else:
                    done = at - part.offset
                    take_bytes = min(end - at, part.nbytes - done)
                    files.read(part, done, take_bytes, region.address(at, take_bytes))
                    at += take_bytes
                    if done + take_bytes == part.nbytes:
                        part = next(parts, None)
            waiting.append((end, digesting.submit(digest_at, region.address(offset, nbytes), nbytes)))
            take(_AHEAD)
        take(0)
    return Manifest(layout=layout, digests=tuple(digests))


def _parts(scan: FolderScan) -> Iterator[CopySegment]:
    return iter(sorted((one for one in scan.segments if one.nbytes), key=lambda one: one.offset))


def _zero(region: Region, offset: int, nbytes: int) -> None:
    ctypes.memset(region.address(offset, nbytes), 0, nbytes)


class _Files:
    """Open files by path, closed together; one at a time is enough, since parts are in file order."""

    def __init__(self) -> None:
        self._path = ""
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def read(self, part: CopySegment, skip: int, nbytes: int, address: int) -> None:
        """Read a stretch of a part to an address."""
        into = memoryview((ctypes.c_ubyte * nbytes).from_address(address)).cast("B")
        try:
            if self._path != str(part.path):
                self.__exit__()
                self._path, self._fd = str(part.path), -1
                self._fd = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
            done = 0
            while done < nbytes:
                count = os.preadv(self._fd, [into[done:]], part.file_offset + skip + done)
                if count == 0:
                    raise ImageFormatError(
                        f"{part.path.name} became shorter while it was read.",
                        fix="publish it again once nothing writes to the folder",
                    )
                done += count
        except OSError as error:
            raise ImageFormatError(
                f"{part.path.name} cannot be read ({error.strerror}).", fix="check the file's permissions"
            ) from error
