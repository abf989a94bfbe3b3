"""From a model folder to a layout and a list of byte ranges to copy; no weight is read here.

Weights come from ``model.safetensors``, else from the shards that ``model.safetensors.index.json`` names,
else from the only safetensors file there is. Side files come by an allow-list of names, at most one folder
deep.
Everything else is skipped and listed, so that people can be told. Pickles are never opened.

A link counts as what it points to, as long as that is a regular file: the hub's cache is made of links.
Linked folders are skipped. A file can change between this scan and the copy; whoever copies checks what it
reads.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyrdma.errors import ImageFormatError, ManifestError
from pyrdma.image.bounded_json import parse_object
from pyrdma.image.header import CONVERT_FIX, StoredTensor, read_header
from pyrdma.image.layout import Layout, lay_out
from pyrdma.image.names import INDEX_SUFFIX, WEIGHT_SUFFIX, is_plain_name, is_side_file_name, shown
from pyrdma.limits import (
    MAX_FOLDER_ENTRIES,
    MAX_SIDE_FILE_BYTES,
    MAX_SIDE_FILES,
    MAX_WEIGHT_FILES,
)

_CONFIG: Final = "config.json"
_WEIGHTS: Final = "model" + WEIGHT_SUFFIX
_INDEX: Final = _WEIGHTS + INDEX_SUFFIX
_PICKLE_SUFFIXES: Final = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_INDEX_FIX: Final = "Fetch the index and all weight files again, from one version of the model."
_NO_IMAGE_FIX: Final = "Only a model within these limits can be published; report one that should be."
_NO_MODEL_FIX: Final = "Name a folder that holds config.json and safetensors weights."


@dataclass(frozen=True, slots=True)
class CopySegment:
    """Bytes to copy from a file into the flat space at ``offset``; never empty."""

    path: Path
    file_offset: int
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class FolderScan:
    """What a folder gives: the layout, how to fill it, and the names that were left out."""

    layout: Layout
    segments: tuple[CopySegment, ...]
    skipped: tuple[str, ...]


def scan_folder(path: Path) -> FolderScan:
    """Return the image that a model folder makes.

    Raises:
        ImageFormatError: the folder holds no model that an image can be made of; nothing was changed.
    """
    folder = path.absolute()
    try:
        if not folder.is_dir():
            raise ImageFormatError(f"{shown(str(path))} is no folder.", fix=_NO_MODEL_FIX)
        # Before any listing: a wrong path, such as a home folder, ends here at once.
        if not (folder / _CONFIG).is_file():
            raise ImageFormatError(
                f"{shown(str(path))} is no model: it has no {_CONFIG} that is a regular file.",
                fix=_NO_MODEL_FIX,
            )
        return _scan(folder)
    except ManifestError as error:
        raise ImageFormatError(
            f"{shown(str(path))} makes no image: {error.message}", fix=_NO_IMAGE_FIX
        ) from error
    except OSError as error:
        where = shown(os.fsdecode(error.filename or path))
        raise ImageFormatError(
            f"{where} cannot be read ({error.strerror}).",
            fix="Check that the file is there and its permissions.",
        ) from error


def _scan(folder: Path) -> FolderScan:
    names, skipped = _list_files(folder)
    _read_object(folder, _CONFIG)
    weights, index = _choose_weights(folder, names)
    tensors = [(shard, tensor) for shard in sorted(weights) for tensor in _read_weight_header(folder, shard)]
    _check_tensors(tensors, index)
    side = {name: _side_file_bytes(folder, name) for name in names if is_side_file_name(name)}
    if len(side) > MAX_SIDE_FILES:
        raise ImageFormatError(
            f"The folder has {len(side)} side files; an image carries {MAX_SIDE_FILES}.",
            fix="Move files that the model does not need out of the folder.",
        )
    layout = lay_out(((t.name, t.dtype, t.shape) for _, t in tensors), side.items())
    segments = [
        CopySegment(folder / shard, tensor.file_offset, span.offset, span.nbytes)
        for (shard, tensor), span in zip(tensors, layout.tensors, strict=True)
        if span.nbytes
    ]
    segments += [
        CopySegment(folder / span.name, 0, span.offset, span.nbytes) for span in layout.files if span.nbytes
    ]
    used = {*weights, *side} | ({_INDEX} if index is not None else set())
    skipped += [name for name in names if name not in used]
    # Names on a disk are any bytes; what people are told must be printable.
    told = (name if name.isprintable() else shown(name) for name in sorted(skipped))
    return FolderScan(layout, tuple(segments), tuple(told))


def _list_files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the relative names of all files, one sub-folder deep, and the folders that were not entered."""
    files: list[str] = []
    skipped: list[str] = []
    pending = [""]
    count = 0
    while pending:
        prefix = pending.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                count += 1
                if count > MAX_FOLDER_ENTRIES:
                    raise ImageFormatError(
                        f"The folder holds more than {MAX_FOLDER_ENTRIES} files.", fix=_NO_MODEL_FIX
                    )
                name = prefix + entry.name
                if not entry.is_dir():
                    files.append(name)
                elif entry.is_symlink() or not is_plain_name(name):  # a name with a slash is not plain
                    skipped.append(f"{name}/")
                else:
                    pending.append(f"{name}/")
    return sorted(files), skipped


def _choose_weights(folder: Path, names: list[str]) -> tuple[set[str], dict[str, str] | None]:
    """Return the weight files and, where an index chose them, its map from tensor to file."""
    if _WEIGHTS in names:
        return {_WEIGHTS}, None
    if _INDEX in names:
        index = _read_index(folder)
        return set(index.values()), index
    found = [name for name in names if name.endswith(WEIGHT_SUFFIX) and "/" not in name]
    if len(found) == 1:
        return set(found), None
    if found:
        raise ImageFormatError(
            f"The folder has {len(found)} weight files, but neither {_WEIGHTS} nor {_INDEX}.",
            fix=f"Add the model's {_INDEX}, or leave one weight file in the folder.",
        )
    pickles = [name for name in names if "/" not in name and _is_pickle_name(name)]
    if pickles:
        raise ImageFormatError(
            f"The folder's weights are pickles ({shown(pickles[0])}), which can run code; they are not read.",
            fix=CONVERT_FIX,
        )
    raise ImageFormatError("The folder is no model: it holds no safetensors weights.", fix=_NO_MODEL_FIX)


def _is_pickle_name(name: str) -> bool:
    return name.startswith("pytorch_model") or name.endswith(_PICKLE_SUFFIXES)


def _read_index(folder: Path) -> dict[str, str]:
    found = _read_object(folder, _INDEX).get("weight_map")
    if type(found) is not dict or not found or any(type(shard) is not str for shard in found.values()):
        raise ImageFormatError(f"{_INDEX} does not map tensors to weight files.", fix=_INDEX_FIX)
    shards = set(found.values())
    if len(shards) > MAX_WEIGHT_FILES:
        raise ImageFormatError(
            f"{_INDEX} names {len(shards)} weight files, more than {MAX_WEIGHT_FILES}.", fix=_INDEX_FIX
        )
    for shard in shards:
        if not is_plain_name(shard) or not shard.endswith(WEIGHT_SUFFIX):
            raise ImageFormatError(
                f"{_INDEX} names {shown(shard)}, which is no weight file of this folder.", fix=_INDEX_FIX
            )
        if not os.path.lexists(folder / shard):
            raise ImageFormatError(
                f"{_INDEX} names {shown(shard)}, which is not in the folder.",
                fix=_INDEX_FIX,
            )
    return found


def _check_tensors(tensors: list[tuple[str, StoredTensor]], index: dict[str, str] | None) -> None:
    held: dict[str, str] = {}
    for shard, tensor in tensors:
        if tensor.name in held:
            raise ImageFormatError(
                f"Tensor {shown(tensor.name)} is both in {shown(held[tensor.name])} and in {shown(shard)}.",
                fix=_INDEX_FIX,
            )
        held[tensor.name] = shard
    if index is None or index == held:
        return
    name = min(name for name in index.keys() | held.keys() if index.get(name) != held.get(name))
    raise ImageFormatError(
        f"{_INDEX} and the weight files disagree about tensor {shown(name)}.",
        fix=_INDEX_FIX,
    )


def _open(folder: Path, name: str) -> int:
    # O_NONBLOCK: a named pipe must not hold us; what is no regular file is refused after the open.
    return os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def _read_weight_header(folder: Path, name: str) -> tuple[StoredTensor, ...]:
    fd = _open(folder, name)
    try:
        return read_header(fd, name=name)
    finally:
        os.close(fd)


def _side_file_bytes(folder: Path, name: str) -> int:
    return _checked_size(os.stat(folder / name), name)


def _checked_size(status: os.stat_result, name: str) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise ImageFormatError(f"{shown(name)} is no regular file.", fix="Put the file itself there.")
    if status.st_size > MAX_SIDE_FILE_BYTES:
        raise ImageFormatError(
            f"{shown(name)} has {status.st_size} bytes; a side file has at most {MAX_SIDE_FILE_BYTES}.",
            fix="Move it out of the folder if the model does not need it.",
        )
    return status.st_size


def _read_object(folder: Path, name: str) -> dict[str, Any]:
    fd = _open(folder, name)
    with os.fdopen(fd, "rb") as file:
        text = file.read(_checked_size(os.fstat(fd), name))
    try:
        return parse_object(text, floats=True)
    except ValueError as error:
        raise ImageFormatError(f"{name} {error}.", fix="Fetch the file again.") from error
