"""The registry as the signers of policies write it: versions of the policy, auditors, and whose keys count.

Rules: policy signers decide on policies and auditors alone; who they are is for the membership signers to
say; a version that was published is never changed or taken back, another one takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from federation.errors import FederationInputError, RegistryError
from federation.registry.files import write_file
from federation.registry.folder import RegistryFolder
from federation.registry.members import delegated, sign_members
from federation.registry.membership import Auditor
from federation.registry.policies import (
    AUDITORS_PATH,
    POLICY_LIFETIME_S,
    POLICY_ROLE,
    PolicyDraft,
    add_policy,
    delegate_policies,
    encode_auditors,
)
from federation.registry.publishing import publish_if_online
from federation.registry.signing import (
    NAME_FIELD,
    RoleKeys,
    ages,
    check_reachable,
    enough,
    enough_delegated,
    present,
    sign,
)
from federation.registry.tuf_api import Root, Signer, TargetFile, Targets


class PolicySigning:
    """The policies of a registry that can be changed.

    Args:
        folder: holds ``metadata/`` and ``targets/``.
        root_pin: SHA-256 of the first root, from a place that is not this folder.
    """

    def __init__(self, folder: Path, *, root_pin: bytes) -> None:
        self._folder = RegistryFolder(folder, root_pin=root_pin)

    def publish(self, draft: PolicyDraft, signers: Sequence[Signer], *, now_s: float) -> bool:
        """Enter a version of the policy; say whether that is published, which takes the online key.

        Raises:
            FederationInputError: it may not enter, or there are fewer signers than it takes.
            RegistryError: the folder is not what its signers left there.
        """
        with self._folder.locked():
            roots = self._folder.roots()
            if draft.name != roots[-1].unrecognized_fields.get(NAME_FIELD):
                raise FederationInputError(
                    f"the policy is that of {draft.name}, and this is another consortium."
                )
            targets, listed = self._policies(roots)
            target = add_policy(listed, draft, now_s=now_s)
            self._write_policies(targets, listed, signers, target, draft.data, now_s=now_s)
            return publish_if_online(self._folder, roots, signers, now_s=now_s)

    def set_auditors(self, auditors: Sequence[Auditor], signers: Sequence[Signer], *, now_s: float) -> bool:
        """Say whose resolutions count; say whether that is published, which takes the online key.

        Raises:
            FederationInputError: they cannot be, or there are fewer policy signers than it takes.
            RegistryError: the folder is not what its signers left there.
        """
        data = encode_auditors(auditors)
        with self._folder.locked():
            roots = self._folder.roots()
            targets, listed = self._policies(roots)
            target = TargetFile.from_data(AUDITORS_PATH, data, ["sha256"])
            listed.targets[AUDITORS_PATH] = target
            self._write_policies(targets, listed, signers, target, data, now_s=now_s)
            return publish_if_online(self._folder, roots, signers, now_s=now_s)

    def replace_keys(self, policy: RoleKeys, signers: Sequence[Signer], *, now_s: float) -> bool:
        """Let other keys sign policies from now on; the list as it is is signed anew with them.

        It is also how a registry of before there were policies gets its first policy keys.

        Raises:
            FederationInputError: there are fewer membership signers than it takes.
            RegistryError: the folder is not what its signers left there.
        """
        check_reachable(policy)
        with self._folder.locked():
            roots = self._folder.roots()
            targets = self._folder.targets(roots)
            listed = self._last_policies(targets)
            delegate_policies(targets, [one.public_key for one in policy.signers], policy.threshold)
            members = sign_members(roots[-1], targets, signers, now_s=now_s)
            if listed is not None:
                # Before the members: if this breaks off between the two, doing it again mends it.
                write_list(self._folder, targets, listed, policy.signers, now_s=now_s)
            write_file(self._folder.path(Targets.type, targets.version), members)
            return publish_if_online(self._folder, roots, signers, now_s=now_s)

    def check_members(self, signers: Sequence[Signer]) -> None:
        """Refuse signers that cannot exchange the policy keys, before new keys are made.

        Raises:
            FederationInputError: there are fewer membership signers than it takes.
            RegistryError: the folder is not what its signers left there.
        """
        enough(signers, self._folder.roots()[-1], Targets.type)

    def _policies(self, roots: list[Root]) -> tuple[Targets, Targets]:
        targets = self._folder.targets(roots)
        if POLICY_ROLE not in delegated(targets):
            raise FederationInputError(
                "this registry names nobody who may sign policies.",
                fix="make their keys with: pyrdma-agent consortium policy keys",
            )
        return targets, self._folder.policies(targets) or Targets()

    def _last_policies(self, targets: Targets) -> Targets | None:
        if POLICY_ROLE not in delegated(targets):
            return None
        for version in range(self._folder.newest().get(POLICY_ROLE, 0), 0, -1):
            try:
                return self._folder.policies(targets, version=version)
            except RegistryError:
                continue  # of an exchange of keys that broke off
        return None

    def _write_policies(
        self,
        targets: Targets,
        listed: Targets,
        signers: Sequence[Signer],
        target: TargetFile,
        data: bytes,
        *,
        now_s: float,
    ) -> None:
        found = enough_delegated(signers, targets, delegated(targets)[POLICY_ROLE])
        write_file(self._folder.target_path(target.get_prefixed_paths()[0]), data)
        write_list(self._folder, targets, listed, found, now_s=now_s)


def write_list(
    folder: RegistryFolder, targets: Targets, listed: Targets, signers: Sequence[Signer], *, now_s: float
) -> None:
    """Write the list of policies as its next version.

    Raises:
        FederationInputError: there are fewer signers than it takes.
    """
    found = enough_delegated(signers, targets, delegated(targets)[POLICY_ROLE])
    listed.version = folder.newest().get(POLICY_ROLE, 0) + 1
    data = sign(listed, found, now_s=now_s, lifetime_s=POLICY_LIFETIME_S)
    write_file(folder.path(POLICY_ROLE, listed.version), data)


def sign_old_policies(
    folder: RegistryFolder, targets: Targets, signers: Sequence[Signer], *, now_s: float
) -> None:
    """Sign the list of policies again if it is in the last third of its life and enough of its keys are here.

    Raises:
        RegistryError: the folder is not what its signers left there.
    """
    role = delegated(targets).get(POLICY_ROLE)
    listed = folder.policies(targets) if role is not None else None
    if role is None or listed is None or not ages(listed, now_s=now_s, lifetime_s=POLICY_LIFETIME_S):
        return
    assert targets.delegations is not None
    if len(present(signers, role, targets.delegations.keys)) >= role.threshold:
        write_list(folder, targets, listed, signers, now_s=now_s)
