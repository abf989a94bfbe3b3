r"""The manifest: what an image consists of, in bytes that have exactly one form.

Encoding, version 1::

    b"PYRDMA-IMAGE-1\n"
    u32, little-endian: length of the JSON text
    JSON, sorted keys, no spaces, ASCII, integers only:
        {"files":[[name,offset,nbytes],...],"piece_bytes":N,
         "tensors":[[name,dtype,[dim,...],offset,nbytes],...],"total_bytes":N}
    32 bytes for each piece: its BLAKE3 digest

The image's id is the BLAKE3-256 digest of these bytes. Whatever decodes is a layout that keeps every rule
of ``pyrdma.image.layout`` and encodes to the same bytes again; anything else is a ``ManifestError``.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field
from typing import Any, Final, Self

from blake3 import blake3

from pyrdma.errors import InputError, ManifestError
from pyrdma.image.bounded_json import parse_object
from pyrdma.image.layout import FileSpan, Layout, TensorSpan
from pyrdma.limits import MAX_MANIFEST_BYTES

__all__ = ["FileSpan", "ImageId", "Layout", "Manifest", "TensorSpan"]

DIGEST_BYTES: Final = 32
_MAGIC: Final = b"PYRDMA-IMAGE-1\n"
_LENGTH: Final = struct.Struct("<I")
_KEYS: Final = {"files", "piece_bytes", "tensors", "total_bytes"}
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_ASK_AGAIN: Final = "Ask another source for the manifest; the image itself is not touched."


class ImageId(bytes):
    """The 32 bytes that name an image; ``hex()`` is its text form.

    Raises:
        InputError: the value has another length.
    """

    __slots__ = ()

    def __new__(cls, value: bytes) -> Self:
        """Return the id that these 32 bytes are."""
        if len(value) != DIGEST_BYTES:
            raise InputError(f"An image id has {DIGEST_BYTES} bytes, not {len(value)}.")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> ImageId:
        """Return the id that a text names in full; a prefix is for display only.

        Raises:
            InputError: the text is not 64 lower-case hexadecimal digits.
        """
        if not _HEX.fullmatch(text):
            raise InputError(
                "An image id is 64 lower-case hexadecimal digits.",
                fix="Copy the whole id, not its short form.",
            )
        return cls(bytes.fromhex(text))

    def __str__(self) -> str:
        return self.hex()

    def short(self) -> str:
        """Return the first 12 hexadecimal digits, for people to look at."""
        return self.hex()[:12]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A layout and the digest of each of its pieces.

    Raises:
        ManifestError: the digests do not match the layout's pieces, or the encoding is past the limit.
    """

    layout: Layout
    digests: tuple[bytes, ...]
    image_id: ImageId = field(init=False, compare=False)
    _encoded: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.digests) != self.layout.piece_count:
            raise ManifestError(
                f"A manifest has {len(self.digests)} digests for {self.layout.piece_count} pieces."
            )
        if any(len(digest) != DIGEST_BYTES for digest in self.digests):
            raise ManifestError(f"A manifest has a digest that is not {DIGEST_BYTES} bytes long.")
        text = _layout_json(self.layout)
        encoded = b"".join((_MAGIC, _LENGTH.pack(len(text)), text, *self.digests))
        if len(encoded) > MAX_MANIFEST_BYTES:
            raise ManifestError(f"A manifest has {len(encoded)} bytes, more than {MAX_MANIFEST_BYTES}.")
        object.__setattr__(self, "_encoded", encoded)
        object.__setattr__(self, "image_id", ImageId(blake3(encoded).digest()))

    def encode(self) -> bytes:
        """Return the one encoding of this manifest."""
        return self._encoded

    @classmethod
    def decode(cls, data: bytes, *, expect: ImageId | None = None) -> Manifest:
        """Return the manifest that these bytes encode.

        Args:
            data: bytes from anywhere.
            expect: the id that the manifest must have; checked before anything is parsed.

        Raises:
            ManifestError: the bytes are no manifest, not in their one form, past a limit, or have another id.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise ManifestError(
                f"A manifest has {len(data)} bytes, more than {MAX_MANIFEST_BYTES}.", fix=_ASK_AGAIN
            )
        if expect is not None and blake3(data).digest() != expect:
            raise ManifestError(
                f"A manifest does not match the image id {expect.short()}... that it was asked by.",
                fix=_ASK_AGAIN,
            )
        try:
            text, digests = _split(data)
            manifest = cls(_parse_layout(text), digests)
        except ManifestError as error:
            raise ManifestError(error.message, fix=_ASK_AGAIN) from error
        except ValueError as error:
            raise ManifestError(f"A manifest's description {error}.", fix=_ASK_AGAIN) from error
        if manifest.encode() != data:
            raise ManifestError("A manifest is not written in its one canonical form.", fix=_ASK_AGAIN)
        return manifest


def _layout_json(layout: Layout) -> bytes:
    value = {
        "files": [[span.name, span.offset, span.nbytes] for span in layout.files],
        "piece_bytes": layout.piece_bytes,
        "tensors": [[span.name, span.dtype, span.shape, span.offset, span.nbytes] for span in layout.tensors],
        "total_bytes": layout.total_bytes,
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _split(data: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    start = len(_MAGIC) + _LENGTH.size
    if not data.startswith(_MAGIC) or len(data) < start:
        raise ManifestError("These bytes are no manifest of an image that this version reads.")
    (length,) = _LENGTH.unpack_from(data, len(_MAGIC))
    end = start + length
    if end > len(data) or (len(data) - end) % DIGEST_BYTES:
        raise ManifestError("A manifest is cut short or too long.")
    return data[start:end], tuple(data[at : at + DIGEST_BYTES] for at in range(end, len(data), DIGEST_BYTES))


def _parse_layout(text: bytes) -> Layout:
    value = parse_object(text, floats=False)
    if value.keys() != _KEYS:
        raise ValueError("does not have exactly the fields of an image")
    return Layout(
        tensors=tuple(_parse_tensor(row) for row in _rows(value["tensors"])),
        files=tuple(_parse_file(row) for row in _rows(value["files"])),
        total_bytes=_integer(value["total_bytes"]),
        piece_bytes=_integer(value["piece_bytes"]),
    )


def _parse_tensor(row: object) -> TensorSpan:
    name, dtype, shape, offset, nbytes = _fields(row, 5)
    dims = tuple(_integer(size) for size in _rows(shape))
    return TensorSpan(_string(name), _string(dtype), dims, _integer(offset), _integer(nbytes))


def _parse_file(row: object) -> FileSpan:
    name, offset, nbytes = _fields(row, 3)
    return FileSpan(_string(name), _integer(offset), _integer(nbytes))


def _rows(value: object) -> list[Any]:
    if type(value) is not list:
        raise ValueError("has another value where a list belongs")
    return value


def _fields(row: object, count: int) -> list[Any]:
    if len(_rows(row)) != count:
        raise ValueError(f"has an entry that does not have {count} fields")
    return _rows(row)


def _integer(value: object) -> int:
    # Not isinstance: true is an integer to Python.
    if type(value) is not int:
        raise ValueError("has another value where an integer belongs")
    return value


def _string(value: object) -> str:
    if type(value) is not str:
        raise ValueError("has another value where a text belongs")
    return value
