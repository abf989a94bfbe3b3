"""The registry as its signers write it: a folder that any web server can serve as it is.

Rules:

- new files are written first and the timestamp last, each whole, so no reader meets half a change;
- membership signers decide who is a member under which CA; a site's models key decides what its models' names
  stand for, and nothing else; policy signers decide on policies and auditors alone; the online key only says
  which versions are the newest, and when;
- what was published stays in the snapshot, even of a removed site: its absence would look like an attack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from federation.errors import FederationInputError, NotAdmittedError
from federation.identity.names import check_label
from federation.registry.admission import check_admission
from federation.registry.documents import SiteDocument, encode_site, site_path
from federation.registry.files import write_file
from federation.registry.folder import RegistryFolder
from federation.registry.members import accept_models, enter, leave, sign_members
from federation.registry.policies import delegate_policies
from federation.registry.policy_signing import sign_old_policies
from federation.registry.publishing import publish_if_online, publish_newest
from federation.registry.request import SiteRequest
from federation.registry.signing import (
    NAME_FIELD,
    RoleKeys,
    ages,
    check_reachable,
    enough,
    has_enough,
    sign,
)
from federation.registry.tuf_api import (
    Delegations,
    Role,
    Root,
    Signer,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)


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
        cls,
        folder: Path,
        name: str,
        *,
        root: RoleKeys,
        membership: RoleKeys,
        online: Signer,
        now_s: float,
        policy: RoleKeys | None = None,
    ) -> Self:
        """Make a registry without sites and policies, and publish it.

        Without ``policy`` the membership signers sign policies, as many of them as a member takes.

        Raises:
            FederationInputError: the folder holds a registry already, or a threshold cannot be reached.
        """
        check_label(name, "consortium")
        first = folder / "metadata" / "1.root.json"
        if first.exists():
            raise FederationInputError(f"{folder} holds a registry already.", fix="choose another folder")
        signed = Root(consistent_snapshot=True, unrecognized_fields={NAME_FIELD: name})
        one = RoleKeys((online,), 1)
        policy = policy or membership
        check_reachable(policy)
        for role, keys in ((Root, root), (Targets, membership), (Snapshot, one), (Timestamp, one)):
            check_reachable(keys)
            signed.roles[role.type] = Role([], keys.threshold)
            for signer in keys.signers:
                signed.add_key(signer.public_key, role.type)
        data = sign(signed, root.signers, now_s=now_s)
        members = Targets(delegations=Delegations({}, roles={}))
        delegate_policies(members, [signer.public_key for signer in policy.signers], policy.threshold)
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
            return publish_if_online(self._folder, roots, signers, now_s=now_s)

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
            return publish_if_online(self._folder, roots, signers, now_s=now_s)

    def publish(self, signers: Sequence[Signer], *, now_s: float, models: Sequence[bytes] = ()) -> None:
        """Say anew which versions are the newest; take sites' lists of models in.

        The root, the members and the list of policies are signed again too when they are in the last third of
        their lives and enough of their keys are here.

        Raises:
            FederationInputError: the online key is missing, a list is not newer or not its site's, or this
                machine's clock is behind the last publication.
            RegistryError: the folder is not what its signers left there.
        """
        with self._folder.locked():
            roots = self._folder.roots()
            root = roots[-1]
            enough(signers, root, Timestamp.type)
            if ages(root, now_s=now_s) and has_enough(signers, root, Root.type):
                roots = self._write_root(roots, root, signers, now_s=now_s)
            targets = self._folder.targets(roots)
            if ages(targets, now_s=now_s) and has_enough(signers, root, Targets.type):
                signed = sign_members(root, targets, signers, now_s=now_s)
                write_file(self._folder.path(Targets.type, targets.version), signed)
            sign_old_policies(self._folder, targets, signers, now_s=now_s)
            newest = self._folder.newest()
            for data, role, version in [accept_models(one, targets, newest) for one in models]:
                write_file(self._folder.path(role, version), data)
            publish_newest(self._folder, roots, signers, now_s=now_s)

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
            publish_newest(self._folder, roots, (online,), now_s=now_s)

    def _write_root(
        self, roots: list[Root], root: Root, signers: Sequence[Signer], *, now_s: float
    ) -> list[Root]:
        found = enough(signers, roots[-1], Root.type)
        root.version += 1
        write_file(self._folder.path(Root.type, root.version), sign(root, found, now_s=now_s))
        return self._folder.roots()
