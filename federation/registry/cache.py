"""The last verified registry on this node's disk: one file, so that it is never half old and half new.

What is read back is believed no more than what a mirror sends: the reader verifies its signatures, the marks
its age. A file that is torn, truncated or of another version is no cache.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from federation.limits import MAX_REGISTRY_BYTES
from federation.registry.files import read_file, write_file

_SCHEMA: Final = 1
_NAME: Final = "registry.json"


@dataclass(frozen=True, slots=True)
class Cached:
    """A registry's files: metadata by role, sites' documents by their SHA-256 in hex."""

    roles: dict[str, bytes] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)


def load_cache(folder: Path) -> Cached:
    """Return what the folder holds; nothing when that cannot be read."""
    try:
        fields = json.loads(read_file(folder / _NAME, max_bytes=2 * MAX_REGISTRY_BYTES))
        if fields["schema"] != _SCHEMA:
            return Cached()
        return Cached(_decode(fields["roles"]), _decode(fields["documents"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Cached()


def save_cache(folder: Path, cached: Cached) -> None:
    """Keep a registry in place of the former.

    Raises:
        OSError: it cannot be written; the former is as it was.
    """
    fields = {"schema": _SCHEMA, "roles": _encode(cached.roles), "documents": _encode(cached.documents)}
    write_file(folder / _NAME, json.dumps(fields).encode("ascii"))


# The files are JSON, which reads best as it is; what is not UTF-8 in a site's document survives as well.
def _encode(files: dict[str, bytes]) -> dict[str, str]:
    return {name: data.decode("utf-8", "surrogateescape") for name, data in files.items()}


def _decode(files: dict[str, Any]) -> dict[str, bytes]:
    return {name: text.encode("utf-8", "surrogateescape") for name, text in files.items()}
