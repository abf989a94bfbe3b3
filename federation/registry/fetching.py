"""How python-tuf gets its files: from one source within bounds, or from the cache alone.

A file that is not there is python-tuf's own error, since it expects one after the newest root. Everything
else is an error of this package and passes through python-tuf as it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from federation.errors import RegistryError, RegistryUnreachableError
from federation.limits import (
    FETCH_DEADLINE_S,
    MAX_MEMBERSHIP_BYTES,
    MAX_PARALLEL_FETCHES,
    MAX_REGISTRY_BYTES,
    MAX_TIMESTAMP_BYTES,
    REFRESH_DEADLINE_S,
)
from federation.registry.sources import Source
from federation.registry.tuf_api import DownloadHTTPError, FetcherInterface, RepositoryError

METADATA: Final = "metadata/"
TARGETS: Final = "targets/"
_NOT_FOUND: Final = 404


class SourceFetcher(FetcherInterface):
    """Reads one refresh from one source: so many bytes and so much time in all."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._ends_at = time.monotonic() + REFRESH_DEADLINE_S
        self._left_bytes = MAX_REGISTRY_BYTES
        self._ahead: dict[str, bytes] = {}

    def prefetch(self, wanted: Mapping[str, int]) -> None:
        """Read several files at once, by path and largest size.

        A new member reads two files a site. One after the other, each would wait for its round trips. One
        that fails is tried again when it is asked for.
        """
        if len(wanted) <= 1:
            return
        with ThreadPoolExecutor(MAX_PARALLEL_FETCHES, thread_name_prefix="registry") as pool:
            found = pool.map(self._try, wanted, wanted.values())
            self._ahead.update(
                {path: data for path, data in zip(wanted, found, strict=True) if data is not None}
            )

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return a file; python-tuf gives a path for an address, since it was told no base."""
        data = self._ahead.pop(url, None)
        if data is None or len(data) > max_length:
            data = self._read(url, min(max_length, MAX_MEMBERSHIP_BYTES))
        self._left_bytes -= len(data)
        return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, self._left_bytes)

    def _try(self, path: str, max_bytes: int) -> bytes | None:
        try:
            return self._read(path, max_bytes)
        except (DownloadHTTPError, RegistryError):
            return None

    def _read(self, path: str, max_bytes: int) -> bytes:
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise RegistryUnreachableError(
                f"the registry at {self._source.name} is not read within {REFRESH_DEADLINE_S:.0f} s.",
                fix="use another source",
            )
        try:
            return self._source.read(
                path, max_bytes=min(max_bytes, self._left_bytes), deadline_s=min(left_s, FETCH_DEADLINE_S)
            )
        except FileNotFoundError as error:
            raise DownloadHTTPError(path, _NOT_FOUND) from error


class CacheFetcher(FetcherInterface):
    """Has the cached timestamp, which python-tuf always asks for; no newer root, and nothing else."""

    def __init__(self, timestamp: bytes) -> None:
        self._timestamp = timestamp

    def prefetch(self, wanted: Mapping[str, int]) -> None:
        """Do nothing: what is not cached is not there."""

    def download_bytes(self, url: str, max_length: int) -> bytes:  # noqa: ARG002 - python-tuf's signature
        """Return the timestamp."""
        if url == f"{METADATA}timestamp.json":
            return self._timestamp
        if url.endswith(".root.json"):
            raise DownloadHTTPError(url, _NOT_FOUND)
        raise RepositoryError(f"{url} is not in the cache")

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, MAX_TIMESTAMP_BYTES)
