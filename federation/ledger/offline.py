"""A registry read from the files of an export, from its pin alone: no source, no marks, no agent.

Expiry is judged as of when the export was made, which its maker says; that it was not later than now is the
caller's to compare. Everything else is verified as any member does it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

from federation.errors import ExportError, FederationError
from federation.registry.cache import Cached
from federation.registry.fetching import CacheFetcher
from federation.registry.files import write_file
from federation.registry.membership import Membership
from federation.registry.reader import RegistryReader
from federation.registry.tuf_api import DownloadError, RepositoryError


def read_registry(roots: Mapping[int, bytes], files: Cached, *, pin: bytes, at_s: float) -> Membership:
    """Return the members as the files say that lead back to the pin.

    Args:
        roots: the chain of roots by version, from 1.
        files: metadata by role, documents by digest.
        pin: SHA-256 of the first root.
        at_s: Unix time to judge expiry by.

    Raises:
        ExportError: they do not lead back to it, or a part is missing.
    """
    first, timestamp = roots.get(1), files.roles.get("timestamp")
    if first is None or timestamp is None:
        raise ExportError("the export holds no registry.", fix="ask for a whole export")
    if hashlib.sha256(first).digest() != pin:
        raise ExportError(
            "the export is of another consortium: its registry's root has another pin.",
            fix="compare the pin with the one that the consortium gave you",
        )
    with tempfile.TemporaryDirectory(prefix="pyrdma-audit-") as name:
        folder = Path(name)
        (folder / "root_history").mkdir()
        for version, data in roots.items():
            write_file(folder / "root_history" / f"{version}.root.json", data)
        try:
            fetcher = CacheFetcher(timestamp)
            reader = RegistryReader(folder, fetcher, root=first, held=files, now_s=at_s)
            return reader.read(now_s=at_s).membership
        except (RepositoryError, DownloadError, FederationError, OSError, ValueError) as error:
            raise ExportError(
                f"the registry in the export cannot be believed: {error}.", fix="ask for a whole export"
            ) from error
