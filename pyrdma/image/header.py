"""The header of a safetensors file: read without its data, believed in nothing.

Format (safetensors documentation, "Format"): u64 little-endian header length; a JSON object that begins with
``{`` and may be padded with spaces; then the tensors' bytes without overlap or hole. The JSON maps each name
to ``dtype``, ``shape`` and ``data_offsets`` relative to the first byte after the header; ``__metadata__``
maps strings to strings and is checked but not carried.

Only the header is read, so a file may be larger than memory. Every refusal is an ``ImageFormatError``.
"""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from pyrdma.errors import ImageFormatError
from pyrdma.image.bounded_json import parse_object
from pyrdma.image.dtypes import tensor_nbytes
from pyrdma.image.layout import TensorSpan
from pyrdma.image.names import METADATA_KEY, check_tensor_name, shown
from pyrdma.limits import MAX_HEADER_BYTES, MAX_TENSORS, MIN_HEADER_ALLOWANCE_BYTES

_LENGTH: Final = struct.Struct("<Q")
_ENTRY_KEYS: Final = {"data_offsets", "dtype", "shape"}
_SNIFF_BYTES: Final = 40
_PICKLE_PROTOCOLS: Final = range(2, 6)
_COPY_AGAIN: Final = "Download or copy the file again; check its size against the original."
_SAVE_AGAIN: Final = "Write the file again with safetensors, or report it to whoever made it."
CONVERT_FIX: Final = (
    "Convert the weights to safetensors on a machine where you trust them: "
    "load the model with transformers and call save_pretrained(FOLDER)."
)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a weight file; ``file_offset`` counts from the file's first byte."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file_offset: int
    nbytes: int


def read_header(fd: int, *, name: str) -> tuple[StoredTensor, ...]:
    """Return the tensors of an open weight file in the order of their bytes, reading its header only.

    Args:
        fd: a readable descriptor; its position is not used.
        name: what to call the file in errors.

    Raises:
        ImageFormatError: the file is no safetensors file, or not a whole one.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise ImageFormatError(f"{shown(name)} is no regular file.", fix="Put the file itself there.")
    start = _read(fd, _SNIFF_BYTES, 0)
    if len(start) < _LENGTH.size:
        raise ImageFormatError(
            f"{shown(name)} has {len(start)} bytes, less than any weight file.", fix=_COPY_AGAIN
        )
    (length,) = _LENGTH.unpack_from(start)
    limit = min(MAX_HEADER_BYTES, max(MIN_HEADER_ALLOWANCE_BYTES, status.st_size // 100))
    if length > limit:
        _refuse_other_formats(start, name)
        raise ImageFormatError(
            f"{shown(name)} claims a header of {length} bytes; {limit} are allowed for a file of this size.",
            fix="Check that it is a safetensors file and complete.",
        )
    header = _read(fd, length, _LENGTH.size)
    if len(header) < length:
        raise ImageFormatError(
            f"{shown(name)} is cut short: {length - len(header)} bytes of its header are missing.",
            fix=_COPY_AGAIN,
        )
    return parse_header(header, status.st_size - _LENGTH.size - length, name=name)


def parse_header(header: bytes, data_bytes: int, *, name: str) -> tuple[StoredTensor, ...]:
    """Return the tensors that a header describes, in the order of their bytes.

    Args:
        header: the JSON text with its padding, without the length before it.
        data_bytes: how many bytes follow the header in the file.
        name: what to call the file in errors.

    Raises:
        ImageFormatError: the header breaks a rule of the format or a limit, or the data has another size.
    """
    try:
        tensors = _parse_tensors(header)
    except ValueError as error:
        raise ImageFormatError(f"The header of {shown(name)} {error}.", fix=_SAVE_AGAIN) from error
    end = 0
    for tensor in tensors:
        if tensor.file_offset != end:
            problem = "overlaps the one before it" if tensor.file_offset < end else "lies behind a hole"
            raise ImageFormatError(
                f"Tensor {shown(tensor.name)} of {shown(name)} {problem}.", fix=_SAVE_AGAIN
            )
        end += tensor.nbytes
    if end > data_bytes:
        raise ImageFormatError(
            f"{shown(name)} is cut short: {end - data_bytes} bytes are missing.", fix=_COPY_AGAIN
        )
    if end < data_bytes:
        raise ImageFormatError(
            f"{shown(name)} is {data_bytes - end} bytes longer than its header says.", fix=_COPY_AGAIN
        )
    base = _LENGTH.size + len(header)
    return tuple(
        StoredTensor(tensor.name, tensor.dtype, tensor.shape, base + tensor.file_offset, tensor.nbytes)
        for tensor in tensors
    )


def build_header(tensors: Iterable[TensorSpan]) -> bytes:
    """Return the length and header of a file that holds these tensors back to back, in this order."""
    entries: dict[str, Any] = {METADATA_KEY: {"format": "pt"}}  # transformers wants to be told
    end = 0
    for span in tensors:
        entries[span.name] = {
            "dtype": span.dtype,
            "shape": span.shape,
            "data_offsets": [end, end + span.nbytes],
        }
        end += span.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the first tensor starts at a multiple of 8
    return _LENGTH.pack(len(text)) + text


def _parse_tensors(header: bytes) -> list[StoredTensor]:
    """Return tensors each sound in itself; ``file_offset`` still counts within the data."""
    if not header.startswith(b"{"):
        raise ValueError("does not begin with a brace")
    if not header.rstrip(b" ").endswith(b"}"):
        raise ValueError("is padded with something else than spaces")
    entries = parse_object(header, floats=False)
    metadata = entries.pop(METADATA_KEY, {})
    if type(metadata) is not dict or any(type(value) is not str for value in metadata.values()):
        raise ValueError("has metadata that does not map texts to texts")
    if len(entries) > MAX_TENSORS:
        raise ValueError(f"names {len(entries)} tensors, more than {MAX_TENSORS}")
    tensors = []
    for name, entry in entries.items():
        try:
            tensors.append(_parse_entry(name, entry))
        except ValueError as error:
            raise ValueError(f"names tensor {shown(name)}, which {error}") from error
    # A tensor without bytes comes before the one that starts at the same place.
    return sorted(tensors, key=lambda tensor: (tensor.file_offset, tensor.nbytes, tensor.name))


def _parse_entry(name: str, entry: object) -> StoredTensor:
    check_tensor_name(name)
    if type(entry) is not dict or entry.keys() != _ENTRY_KEYS:
        raise ValueError("does not have exactly a type, a shape and offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str:
        raise ValueError("has no element type")
    if type(shape) is not list or any(type(size) is not int for size in shape):
        raise ValueError("has a shape that is no list of integers")
    if type(offsets) is not list or len(offsets) != 2 or any(type(place) is not int for place in offsets):
        raise ValueError("has offsets that are not two integers")
    begin, end = offsets
    if not 0 <= begin <= end:
        raise ValueError("has offsets that are negative or run backwards")
    nbytes = tensor_nbytes(dtype, shape)
    if end - begin != nbytes:
        raise ValueError(f"has {end - begin} bytes where its type and shape need {nbytes}")
    return StoredTensor(name, dtype, tuple(shape), begin, nbytes)


def _refuse_other_formats(start: bytes, name: str) -> None:
    """Say what a file is that claims an impossible header and is one of the usual wrong ones."""
    if start.startswith(b"PK\x03\x04") or (start[0] == 0x80 and start[1] in _PICKLE_PROTOCOLS):
        raise ImageFormatError(
            f"{shown(name)} is a pickle (torch.save), which can run code; it is not read.", fix=CONVERT_FIX
        )
    if start.startswith(b"version https://git-lfs"):
        raise ImageFormatError(
            f"{shown(name)} is a pointer of Git LFS, not the weights.", fix="Run git lfs pull in the folder."
        )


def _read(fd: int, size: int, offset: int) -> bytes:
    chunks = []
    while size > 0 and (chunk := os.pread(fd, size, offset)):
        chunks.append(chunk)
        size -= len(chunk)
        offset += len(chunk)
    return b"".join(chunks)
