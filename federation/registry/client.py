"""The registry as a member reads it: refreshed from its sources, kept on disk, held against the marks.

Rules:

- nothing is believed that does not lead back to the pinned root; there is no trust on first use;
- what is older than the marks is refused, whoever shows it and whatever the cache says;
- expiry is judged by a time that never goes back behind the last verified refresh;
- a source that fails changes nothing on disk but the chain of roots, and the next one is asked; the cache is
  replaced as a whole, before the marks rise, so that the marks are never ahead of it.

Both calls block; an agent makes them in a thread, one at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from federation.errors import (
    FederationInputError,
    RegistryError,
    RegistryExpiredError,
    RegistryRollbackError,
    RegistryUnreachableError,
)
from federation.limits import MAX_REGISTRY_SOURCES, MAX_ROOT_BYTES
from federation.registry.cache import Cached, load_cache, save_cache
from federation.registry.fetching import METADATA, CacheFetcher, SourceFetcher
from federation.registry.files import read_file
from federation.registry.marks import MarkStore, advance, check, floor, refreshed_at
from federation.registry.membership import Membership
from federation.registry.reader import Reading, RegistryReader
from federation.registry.sources import Source, open_source
from federation.registry.tuf_api import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
)

_FIRST_ROOT = "1.root.json"


class RegistryClient:
    """A member's view of one registry.

    Args:
        cache_dir: a folder for this client alone.
        root_pin: SHA-256 of the first root, as the invite or the consortium gave it.
        sources: folders and addresses, in the order in which they are asked.
        marks: where the marks are kept, apart from the cache.

    Raises:
        FederationInputError: a source is none, or there are too many or none at all.
    """

    def __init__(self, cache_dir: Path, *, root_pin: bytes, sources: Sequence[str], marks: MarkStore) -> None:
        if not 1 <= len(sources) <= MAX_REGISTRY_SOURCES:
            raise FederationInputError(f"a registry has 1 to {MAX_REGISTRY_SOURCES} sources.")
        self._cache_dir = cache_dir
        self._root_pin = root_pin
        self._sources = tuple(open_source(text) for text in sources)
        self._marks = marks

    def refreshed_at_s(self) -> float | None:
        """Return when the last verified refresh was, in Unix time; ``None`` before the first."""
        return refreshed_at(self._marks.load())

    def refresh(self, *, now_s: float) -> Membership:
        """Return the members as the first source says that can be believed.

        Raises:
            RegistryRollbackError: what a source shows is older than, or another than, what was seen here.
            RegistryExpiredError: nobody has signed in time.
            RegistryUnreachableError: no source answers.
            RegistryError: what they say cannot be believed.
        """
        faults: list[RegistryError] = []
        for source in self._sources:
            try:
                return self._refresh(source, now_s=now_s)
            except RegistryError as error:
                faults.append(error)
        raise max(faults, key=_gravity)

    def load(self, *, now_s: float) -> Membership | None:
        """Return the members as the cache has them, verified again without any source; ``None`` without one.

        They may have expired since: ``membership.freshness`` says how far they can be trusted.

        Raises:
            RegistryRollbackError: the cache is older than the marks: somebody has put an old one there.
        """
        marks = self._marks.load()
        last = refreshed_at(marks)
        held = load_cache(self._cache_dir)
        timestamp = held.roles.get("timestamp")
        if last is None or timestamp is None:
            return None
        fetcher = CacheFetcher(timestamp)
        try:
            # Expiry is judged as of the last refresh, when all of it counted; how old that is by now is for
            # ``freshness``.
            reader = RegistryReader(self._cache_dir, fetcher, root=self._root(fetcher), held=held, now_s=last)
            reading = reader.read(now_s=floor(marks, now_s))
        except (RepositoryError, DownloadError, RegistryError, OSError):
            return None
        check(marks, reading.marks)
        return reading.membership

    def _refresh(self, source: Source, *, now_s: float) -> Membership:
        marks = self._marks.load()
        now_s = floor(marks, now_s)
        held = load_cache(self._cache_dir)
        reading = self._read(source, held, now_s=now_s)
        check(marks, reading.marks)
        if reading.files != held:
            try:
                save_cache(self._cache_dir, reading.files)
            except OSError as error:
                raise _disk(self._cache_dir) from error
        self._marks.save(advance(marks, reading.marks, now_s=now_s))
        return reading.membership

    def _read(self, source: Source, held: Cached, *, now_s: float) -> Reading:
        fetcher = SourceFetcher(source)
        fix = "try again; if it stays so, use another source and tell the one who runs this one"
        try:
            root = self._root(fetcher)
            return RegistryReader(self._cache_dir, fetcher, root=root, held=held, now_s=now_s).read(
                now_s=now_s
            )
        except DownloadHTTPError as error:
            raise RegistryUnreachableError(
                f"{source.name} has no {error}: it holds no registry, or a part of one.", fix=fix
            ) from error
        except ExpiredMetadataError as error:
            raise RegistryExpiredError(
                f"the registry at {source.name} has expired: {error}.",
                fix="ask the registry's publisher to sign it again, and check this node's clock",
            ) from error
        except BadVersionNumberError as error:
            raise RegistryRollbackError(
                f"the registry at {source.name} is older than the one known here: {error}.", fix=fix
            ) from error
        except RepositoryError as error:
            raise RegistryError(
                f"the registry at {source.name} is not as its signers left it: {error}.", fix=fix
            ) from error
        except OSError as error:
            raise _disk(self._cache_dir) from error

    def _root(self, fetcher: SourceFetcher | CacheFetcher) -> bytes:
        """Return the pinned root: the cached one, or that of the source."""
        try:
            data = read_file(self._cache_dir / "root_history" / _FIRST_ROOT, max_bytes=MAX_ROOT_BYTES)
            if hashlib.sha256(data).digest() == self._root_pin:
                return data
        except OSError:
            pass
        data = fetcher.download_bytes(METADATA + _FIRST_ROOT, MAX_ROOT_BYTES)
        if hashlib.sha256(data).digest() != self._root_pin:
            raise RegistryRollbackError(
                "this is the registry of another consortium: its root has another pin.",
                fix="compare the pin and the address with those that the consortium gave you",
            )
        return data


def _gravity(error: RegistryError) -> int:
    """Return how much a fault says: an attack above an outage."""
    order = (RegistryUnreachableError, RegistryError, RegistryExpiredError, RegistryRollbackError)
    return order.index(type(error))


def _disk(folder: Path) -> RegistryError:
    return RegistryError("the registry cannot be kept on this node's disk.", fix=f"make room for {folder}")
