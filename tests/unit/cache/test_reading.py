"""Reading a folder into memory that was used before, and files that change meanwhile."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pyrdma.cache.reading import read_folder
from pyrdma.errors import ImageFormatError
from pyrdma.image import scan_folder
from pyrdma.limits import PIECE_BYTES
from pyrdma.memory import ExtentPool, Region

Model = Callable[[Path, int, int], Path]


@pytest.fixture
def junk() -> Iterator[Region]:
    """A region of two pieces, full of what an earlier image left."""
    pool = ExtentPool(2 * PIECE_BYTES, 2 * PIECE_BYTES)
    region = pool.allocate(2 * PIECE_BYTES)
    ctypes.memset(region.address(0, 2 * PIECE_BYTES), 0xEE, 2 * PIECE_BYTES)
    yield region
    pool.release(region)
    pool.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """One thread for digests."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_gaps_between_items_are_zero_in_memory_that_was_used_before(
    junk: Region, threads: ThreadPoolExecutor, write_model: Model, tmp_path: Path
) -> None:
    """The same folder gives the same image id in fresh and in used memory, and padding is zero."""
    folder = write_model(tmp_path / "model", PIECE_BYTES + 777, 1)
    scan = scan_folder(folder)
    told: list[int] = []
    used = read_folder(scan, junk, threads, told.append)
    ends = [(one.offset + one.nbytes, one.name) for one in (*scan.layout.tensors, *scan.layout.files)]
    for end, _ in ends:
        gap = -end % 256
        assert ctypes.string_at(junk.address(end, gap), gap) == bytes(gap)
    assert any(end % 256 for end, _ in ends)
    pool = ExtentPool(2 * PIECE_BYTES, 2 * PIECE_BYTES)
    fresh = pool.allocate(scan.layout.total_bytes)
    assert read_folder(scan, fresh, threads, told.append).image_id == used.image_id
    assert told[-1] == scan.layout.total_bytes
    pool.release(fresh)
    pool.close()


def test_what_was_read_is_what_the_file_holds(
    junk: Region, threads: ThreadPoolExecutor, write_model: Model, tmp_path: Path
) -> None:
    """Each tensor and side file lies where the layout says, byte by byte."""
    folder = write_model(tmp_path / "model", PIECE_BYTES + 777, 2)
    scan = scan_folder(folder)
    read_folder(scan, junk, threads, lambda _: None)
    for part in scan.segments:
        with part.path.open("rb") as file:
            file.seek(part.file_offset)
            for at in range(0, part.nbytes, 1 << 20):
                n = min(1 << 20, part.nbytes - at)
                assert ctypes.string_at(junk.address(part.offset + at, n), n) == file.read(n)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(
    junk: Region, threads: ThreadPoolExecutor, write_model: Model, tmp_path: Path
) -> None:
    """The file is named; no image comes of it."""
    folder = write_model(tmp_path / "model", 2 * PIECE_BYTES - 5000, 3)
    scan = scan_folder(folder)
    os.truncate(folder / "model.safetensors", PIECE_BYTES)
    with pytest.raises(ImageFormatError, match=r"model\.safetensors became shorter") as caught:
        read_folder(scan, junk, threads, lambda _: None)
    assert "publish it again" in caught.value.fix


def test_a_file_that_is_gone_is_an_error_and_no_descriptor_stays_open(
    count_descriptors: Any, junk: Region, threads: ThreadPoolExecutor, write_model: Model, tmp_path: Path
) -> None:
    """A file removed after the scan is named."""
    folder = write_model(tmp_path / "model", 5000, 4)
    scan = scan_folder(folder)
    (folder / "config.json").unlink()
    before = count_descriptors()
    with pytest.raises(ImageFormatError, match=r"config\.json cannot be read \(No such file"):
        read_folder(scan, junk, threads, lambda _: None)
    assert count_descriptors() == before
