"""From a flat space back to files: a model folder that other programs read.

The weights become one ``model.safetensors`` with a header written anew: same names, types, shapes and bytes,
in the same order. The original's ``__metadata__`` and its division into shards are not part of an image.

Names come from a ``Layout``, which admits only safe ones; all files are new, in a folder made for them.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Final

from pyrdma.errors import InputError, LocalError
from pyrdma.image.header import build_header
from pyrdma.image.layout import Layout
from pyrdma.image.names import shown

_WEIGHTS: Final = "model.safetensors"


def export_folder(layout: Layout, buffer: memoryview, *, target: Path) -> None:
    """Write an image as a model folder, which appears under its name only when it is whole.

    Args:
        layout: the image's layout.
        buffer: the flat space as bytes, ``total_bytes`` long.
        target: the folder to make; it may exist if it is empty.

    Raises:
        InputError: the target exists and is not an empty folder, or the buffer has another size.
        LocalError: the files cannot be written; what was begun is removed.
    """
    _check_buffer(layout, buffer)
    try:
        if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
            raise InputError(
                f"{shown(str(target))} is already there.", fix="Name a folder that does not exist."
            )
        final = target.absolute()
        partial = final.with_name(f".{final.name}.{secrets.token_hex(4)}.partial")
        partial.mkdir()
        try:
            with (partial / _WEIGHTS).open("xb") as file:
                file.write(build_header(layout.tensors))
                for span in layout.tensors:
                    file.write(buffer[span.offset : span.offset + span.nbytes])
            write_side_files(layout, buffer, folder=partial)
            partial.rename(final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise LocalError(
            f"{shown(str(target))} cannot be written ({error.strerror}).",
            fix="Check the free space and the permissions there.",
        ) from error


def write_side_files(layout: Layout, buffer: memoryview, *, folder: Path) -> None:
    """Write an image's side files into an existing folder that holds none of them yet.

    Raises:
        InputError: the buffer has another size than the layout.
        OSError: a file cannot be written, or is already there.
    """
    _check_buffer(layout, buffer)
    for span in layout.files:
        path = folder / span.name
        path.parent.mkdir(exist_ok=True)
        with path.open("xb") as file:
            file.write(buffer[span.offset : span.offset + span.nbytes])


def _check_buffer(layout: Layout, buffer: memoryview) -> None:
    if buffer.nbytes != layout.total_bytes or buffer.itemsize != 1 or buffer.ndim != 1:
        raise InputError(f"A buffer of {buffer.nbytes} bytes is no flat space of {layout.total_bytes} bytes.")
