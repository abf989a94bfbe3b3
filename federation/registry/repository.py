"""The registry as its signers write it: a folder that any web server can serve as it is.

Rules:

- new files are written first and the timestamp last, each whole, so no reader meets half a change;
- membership signers decide who is a member under which CA; a site's models key decides what its models' names
  stand for, and nothing else; the online key only says which versions are the newest, and when;
- what was published stays in the snapshot, even of a removed site: its absence would look like an attack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from federation.errors import FederationInputError, NotAdmittedError
from federation.identity.names import check_label
from federation.limits import (
    MAX_MEMBERSHIP_BYTES,
    MAX_ROLE_KEYS,
    MAX_SNAPSHOT_BYTES,
)
from federation.registry.admission import check_admission
from federation.registry.documents import SiteDocument, encode_site, site_path
from federation.registry.files import read_file, write_file
from federation.registry.folder import RegistryFolder
from federation.registry.members import accept_models, enter, leave, sign_members
from federation.registry.request import SiteRequest
from federation.registry.signing import ISSUED_FIELD, NAME_FIELD, ages, enough, present, sign
from federation.registry.tuf_api import (
    Delegations,
    MetaFile,
    Role,
    Root,
    Signer,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

_KEPT_SNAPSHOTS: Final = 64
"""Snapshots that stay for readers who are under way; one is made every few hours."""


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """Who signs for a role: all its keys, and how many of them it takes."""

    signers: tuple[Signer, ...]
    threshold: int


class Consortium:
    """A registry that can be changed.

    Args:
        folder: holds ``metadata/`` and ``targets/``.
        root_pin: SHA-256 of the first root, from a place that is not this folder.
    """

    def __init__(self, folder: Path, *, root_pin: bytes) -> None:
        self._folder = RegistryFolder(folder, root_pin=root_pin)
        self.root_pin: Final = root_pin

    @classmethod
    def init(
        cls, folder: Path, name: str, *, root: RoleKeys, membership: RoleKeys, online: Signer, now_s: float
    ) -> Self:
        """Make a registry without sites and publish it.

        Raises:
            FederationInputError: the folder holds a registry already, or a threshold cannot be reached.
        """
        check_label(name, "consortium")
        first = folder / "metadata" / "1.root.json"
        if first.exists():
            raise FederationInputError(f"{folder} holds a registry already.", fix="choose another folder")
        signed = Root(consistent_snapshot=True, unrecognized_fields={NAME_FIELD: name})
        one = RoleKeys((online,), 1)
        for role, keys in ((Root, root), (Targets, membership), (Snapshot, one), (Timestamp, one)):
            distinct = len({signer.public_key.keyid for signer in keys.signers})
            if not 1 <= keys.threshold <= distinct <= MAX_ROLE_KEYS:
                raise FederationInputError(
                    f"a role has 1 to {MAX_ROLE_KEYS} different keys, and it takes at most all of them."
                )
            signed.roles[role.type] = Role([], keys.threshold)
            for signer in keys.signers:
                signed.add_key(signer.public_key, role.type)
        data = sign(signed, root.signers, now_s=now_s)
        members = Targets(delegations=Delegations({}, roles={}))
        write_file(folder / "metadata" / "1.targets.json", sign(members, membership.signers, now_s=now_s))
        write_file(first, data)
        self = cls(folder, root_pin=hashlib.sha256(data).digest())
        self.publish((online,), now_s=now_s)
        return self

    def sites(self) -> tuple[SiteDocument, ...]:
        """Return the sites that the newest signed members name, published or not.

        Raises:
            RegistryError: the folder is not what its signers left there.
        """
        return tuple(self._folder.documents(self._folder.targets(self._folder.roots())))

    def admit(
        self, request: SiteRequest, signers: Sequence[Signer], *, now_s: float, replace: bool = False
    ) -> bool:
        """Enter a site, or its new document; say whether that is published, which takes the online key.

        Raises:
            FederationInputError: the request may not enter, or there are fewer signers than it takes.
            RegistryError: the folder is not what its signers left there.
        """
        with self._folder.locked():
            roots = self._folder.roots()
            targets = self._folder.targets(roots)
            members = self._folder.documents(targets)
            document = check_admission(members, request.document, replace=replace, now_s=now_s)
            data = encode_site(document)
            target = TargetFile.from_data(site_path(document.site), data, ["sha256"])
            leave(targets, document.site)
            enter(targets, document, target)
            signed = sign_members(roots[-1], targets, signers, now_s=now_s)
            write_file(self._folder.target_path(target.get_prefixed_paths()[0]), data)
            write_file(self._folder.path(Targets.type, targets.version), signed)
            return self._publish_if_online(roots, signers, now_s=now_s)

    def remove(self, site: str, signers: Sequence[Signer], *, now_s: float) -> bool:
        """Remove a site; say whether that is published, which takes the online key.

        Raises:
            NotAdmittedError: there is no such site.
            FederationInputError: there are fewer signers than it takes.
            RegistryError: the folder is not what its signers left there.
        """
        with self._folder.locked():
            roots = self._folder.roots()
            targets = self._folder.targets(roots)
            if site_path(site) not in targets.targets:
                raise NotAdmittedError(f"the site {site} is not in this registry.", fix="see consortium show")
            leave(targets, site)
            signed = sign_members(roots[-1], targets, signers, now_s=now_s)
            write_file(self._folder.path(Targets.type, targets.version), signed)
            return self._publish_if_online(roots, signers, now_s=now_s)

    def publish(self, signers: Sequence[Signer], *, now_s: float, models: Sequence[bytes] = ()) -> None:
        """Say anew which versions are the newest; take sites' lists of models in.

        The root and the members are signed again too when they are in the last third of their lives and
        enough of their keys are here.

        Raises:
            FederationInputError: the online key is missing, a list is not newer or not its site's, or this
                machine's clock is behind the last publication.
            RegistryError: the folder is not what its signers left there.
        """
        with self._folder.locked():
            roots = self._folder.roots()
            root = roots[-1]
            enough(signers, root, Timestamp.type)
            if ages(root, now_s=now_s) and _has(signers, root, Root.type):
                roots = self._write_root(roots, root, signers, now_s=now_s)
            targets = self._folder.targets(roots)
            if ages(targets, now_s=now_s) and _has(signers, root, Targets.type):
                signed = sign_members(root, targets, signers, now_s=now_s)
                write_file(self._folder.path(Targets.type, targets.version), signed)
            newest = self._folder.newest()
            for data, role, version in [accept_models(one, targets, newest) for one in models]:
                write_file(self._folder.path(role, version), data)
            self._publish(roots, signers, now_s=now_s)

    def replace_online(self, signers: Sequence[Signer], online: Signer, *, now_s: float) -> None:
        """Let another online key take the place of the one that was lost or stolen, and publish with it.

        Raises:
            FederationInputError: there are fewer root signers than it takes.
            RegistryError: the folder is not what its signers left there.
        """
        with self._folder.locked():
            roots = self._folder.roots()
            root = self._folder.roots()[-1]  # a copy, to be changed
            for role in (Snapshot.type, Timestamp.type):
                for keyid in list(root.roles[role].keyids):
                    root.revoke_key(keyid, role)
                root.add_key(online.public_key, role)
            roots = self._write_root(roots, root, signers, now_s=now_s)
            self._publish(roots, (online,), now_s=now_s)

    def _write_root(
        self, roots: list[Root], root: Root, signers: Sequence[Signer], *, now_s: float
    ) -> list[Root]:
        found = enough(signers, roots[-1], Root.type)
        root.version += 1
        write_file(self._folder.path(Root.type, root.version), sign(root, found, now_s=now_s))
        return self._folder.roots()

    def _publish_if_online(self, roots: list[Root], signers: Sequence[Signer], *, now_s: float) -> bool:
        if not _has(signers, roots[-1], Timestamp.type):
            return False
        self._publish(roots, signers, now_s=now_s)
        return True

    def _publish(self, roots: list[Root], signers: Sequence[Signer], *, now_s: float) -> None:
        online = enough(signers, roots[-1], Timestamp.type)
        old = self._folder.timestamp(roots)
        if old is not None and int(now_s) < int(old.unrecognized_fields.get(ISSUED_FIELD, 0)):
            raise FederationInputError(
                "this machine's clock is behind the last publication.", fix="correct the clock"
            )
        version = 1 if old is None else old.version + 1
        # What was signed elsewhere is not published unverified, nor before all of it is here.
        self._folder.documents(self._folder.targets(roots))
        meta = {}
        for role, newest in sorted(self._folder.newest().items()):
            data = read_file(self._folder.path(role, newest), max_bytes=MAX_MEMBERSHIP_BYTES)
            meta[f"{role}.json"] = MetaFile.from_data(newest, data, ["sha256"])
        snapshot = sign(Snapshot(version=version, meta=meta), online, now_s=now_s)
        if len(snapshot) > MAX_SNAPSHOT_BYTES:
            raise FederationInputError("the registry has had more sites than its readers accept.")
        timestamp = Timestamp(
            version=version,
            snapshot_meta=MetaFile.from_data(version, snapshot, ["sha256"]),
            unrecognized_fields={ISSUED_FIELD: int(now_s)},
        )
        write_file(self._folder.path(Snapshot.type, version), snapshot)
        self._folder.write_timestamp(sign(timestamp, online, now_s=now_s))
        self._folder.path(Snapshot.type, version - _KEPT_SNAPSHOTS).unlink(missing_ok=True)


def _has(signers: Sequence[Signer], root: Root, role: str) -> bool:
    return len(present(signers, root.roles[role], root.keys)) >= root.roles[role].threshold
