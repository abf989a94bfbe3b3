"""The registry's folder as its signers read it: every file verified back to the pinned root.

Metadata lies in ``metadata/VERSION.ROLE.json``, the newest timestamp in ``metadata/timestamp.json``, a site's
document in ``targets/sites/SITE/SHA256.site.json``, a policy in ``targets/policy/SHA256.N.yaml``. Files with
a version or a digest in their name never change. The folder may lie on a web server that somebody else runs,
so nothing is signed on top of what is not verified.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

from federation.errors import FederationInputError, RegistryError
from federation.limits import (
    MAX_MEMBERSHIP_BYTES,
    MAX_POLICY_BYTES,
    MAX_POLICY_LIST_BYTES,
    MAX_ROOT_BYTES,
    MAX_ROOT_ROTATIONS,
    MAX_SITE_DOCUMENT_BYTES,
    MAX_TIMESTAMP_BYTES,
)
from federation.registry.documents import SiteDocument, decode_site
from federation.registry.files import read_file, write_file
from federation.registry.policies import POLICY_ROLE
from federation.registry.signing import verify, verify_delegated
from federation.registry.tuf_api import RepositoryError, Root, Targets, Timestamp

_LISTED: Final = re.compile(r"([1-9][0-9]{0,15})\.(targets|policy|site-[a-z0-9-]+)\.json")


class RegistryFolder:
    """A registry's folder.

    Args:
        folder: holds ``metadata/`` and ``targets/``.
        root_pin: SHA-256 of the first root, from a place that is not this folder.
    """

    def __init__(self, folder: Path, *, root_pin: bytes) -> None:
        self._folder = folder
        self._metadata = folder / "metadata"
        self._root_pin = root_pin

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other writers of this machine out: two of them would make one version twice."""
        if not self._metadata.is_dir():
            raise FederationInputError(f"{self._folder} holds no registry.", fix="give the folder of init")
        with (self._folder / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def roots(self) -> list[Root]:
        """Return the chain of roots from the pinned one to the newest.

        Raises:
            RegistryError: it is broken, or begins with another root.
        """
        data = self._read(self.path(Root.type, 1), MAX_ROOT_BYTES)
        if hashlib.sha256(data).digest() != self._root_pin:
            raise RegistryError(
                f"{self._folder} holds another registry than the one that these keys sign.",
                fix="check the folder, and the root-pin beside the keys",
            )
        chain = [cast("Root", verify(data, Root.type, []))]
        while self.path(Root.type, chain[-1].version + 1).exists() and len(chain) < MAX_ROOT_ROTATIONS:
            version = chain[-1].version + 1
            data = self._read(self.path(Root.type, version), MAX_ROOT_BYTES)
            new = cast("Root", verify(data, Root.type, [chain[-1]]))
            verify(data, Root.type, [new])
            if new.version != version:
                raise RegistryError(f"the registry's root {version} says that it is {new.version}.")
            chain.append(new)
        return chain

    def targets(self, roots: Sequence[Root]) -> Targets:
        """Return the newest signed members, published or not.

        Raises:
            RegistryError: they are not signed as the root demands.
        """
        version = self.newest().get(Targets.type, 1)
        data = self._read(self.path(Targets.type, version), MAX_MEMBERSHIP_BYTES)
        found = cast("Targets", verify(data, Targets.type, roots[-1:]))
        if found.version != version:
            raise RegistryError(f"the registry's members {version} say that they are others.")
        return found

    def timestamp(self, roots: Sequence[Root]) -> Timestamp | None:
        """Return what was published last, under whichever online key; ``None`` before the first time.

        Raises:
            RegistryError: it is not signed as a root demanded.
        """
        path = self._metadata / "timestamp.json"
        if not path.exists():
            return None
        data = self._read(path, MAX_TIMESTAMP_BYTES)
        return cast("Timestamp", verify(data, Timestamp.type, list(reversed(roots))))

    def documents(self, targets: Targets) -> list[SiteDocument]:
        """Return the sites that the members name.

        Raises:
            RegistryError: a site's document is missing or altered.
        """
        found = []
        for path, target in targets.targets.items():
            data = self._read(self.target_path(target.get_prefixed_paths()[0]), MAX_SITE_DOCUMENT_BYTES)
            try:
                target.verify_length_and_hashes(data)
                found.append(decode_site(data))
            except (RepositoryError, FederationInputError) as error:
                raise RegistryError(f"the registry's {path} was altered.") from error
        return found

    def policies(self, targets: Targets, *, version: int | None = None) -> Targets | None:
        """Return the newest signed list of policies, or this version of it; ``None`` before the first.

        Raises:
            RegistryError: those whom the members name have not signed it, or one of its files was altered.
        """
        newest = self.newest().get(POLICY_ROLE) if version is None else version
        if newest is None:
            return None
        data = self._read(self.path(POLICY_ROLE, newest), MAX_POLICY_LIST_BYTES)
        found = verify_delegated(data, POLICY_ROLE, targets)
        if found.version != newest:
            raise RegistryError(f"the registry's list {newest} of policies says that it is another.")
        for path, target in found.targets.items():
            data = self._read(self.target_path(target.get_prefixed_paths()[0]), MAX_POLICY_BYTES)
            try:
                target.verify_length_and_hashes(data)
            except RepositoryError as error:
                raise RegistryError(f"the registry's {path} was altered.") from error
        return found

    def newest(self) -> dict[str, int]:
        """Return the highest version of the members' file, of each site's list and of that of policies."""
        found: dict[str, int] = {}
        for path in self._metadata.iterdir():
            if match := _LISTED.fullmatch(path.name):
                found[match[2]] = max(int(match[1]), found.get(match[2], 0))
        return found

    def path(self, role: str, version: int) -> Path:
        """Return where a version of a role lies."""
        return self._metadata / f"{version}.{role}.json"

    def target_path(self, path: str) -> Path:
        """Return where a target lies."""
        return self._folder / "targets" / path

    def write_timestamp(self, data: bytes) -> None:
        """Let readers see what was written before."""
        write_file(self._metadata / "timestamp.json", data)

    def _read(self, path: Path, max_bytes: int) -> bytes:
        try:
            return read_file(path, max_bytes=max_bytes)
        except OSError as error:
            raise RegistryError(
                f"{path} of the registry cannot be read.", fix="restore the folder from a copy"
            ) from error
