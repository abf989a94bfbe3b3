"""Which names an image may carry, and how an untrusted name is shown.

Tensor names are looked up and printed, never used as paths. Side files are written to disk by whoever maps
the image, so their names are held to a short alphabet and an allow-list of suffixes: no code, no pickle, no
hidden file, no way out of the folder.
"""

from __future__ import annotations

import re
from typing import Final

from pyrdma.limits import MAX_TENSOR_NAME_BYTES

INDEX_SUFFIX: Final = ".index.json"
"""Maps tensors to weight files; it speaks of a folder's files, so no image carries one."""
METADATA_KEY: Final = "__metadata__"
"""What a weight file's header has beside tensors; no tensor can be called so."""
WEIGHT_SUFFIX: Final = ".safetensors"
_SIDE_SUFFIXES: Final = (".json", ".txt", ".jinja", ".model")
_COMPONENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_SHOWN_CHARS: Final = 120


def shown(name: str) -> str:
    """Return an untrusted name in quotes, escaped where it is not printable, and cut."""
    text = repr(name[: _SHOWN_CHARS + 1])
    return text if len(text) <= _SHOWN_CHARS + 2 else f"{text[:_SHOWN_CHARS]}...'"


def check_tensor_name(name: str) -> None:
    """Refuse a tensor name that is empty, reserved, too long or not printable.

    Raises:
        ValueError: with the end of a sentence that begins with the tensor.
    """
    # Lone surrogates and control, format and bidirectional characters are all not printable.
    if not name or not name.isprintable():
        raise ValueError("has a name that cannot be printed")
    if name == METADATA_KEY:
        raise ValueError("has a name that the weight file format reserves")
    if len(name) * 4 > MAX_TENSOR_NAME_BYTES and len(name.encode()) > MAX_TENSOR_NAME_BYTES:
        raise ValueError(f"has a name of more than {MAX_TENSOR_NAME_BYTES} bytes")


def is_plain_name(name: str) -> bool:
    """Say whether a name is one component of the short alphabet, not hidden."""
    return _COMPONENT.fullmatch(name) is not None


def is_side_file_name(name: str) -> bool:
    """Say whether an image may carry a side file of this name, at most one folder deep."""
    parts = name.split("/")
    return (
        len(parts) <= 2
        and all(is_plain_name(part) for part in parts)
        and name.endswith(_SIDE_SUFFIXES)
        and not name.endswith(INDEX_SUFFIX)
    )
