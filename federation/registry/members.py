"""The signed list of members, and what it delegates: a site's document, and the key of its models.

These functions change python-tuf's object in memory; the caller signs and writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from federation.errors import FederationInputError, RegistryError
from federation.limits import MAX_MEMBERSHIP_BYTES, MAX_ROLE_VERSION, MAX_SITE_LIST_BYTES
from federation.registry.documents import SiteDocument, site_path
from federation.registry.models import models_pattern, read_models, site_of, site_role
from federation.registry.policies import POLICY_ROLE
from federation.registry.request import load_models_key
from federation.registry.signing import enough, sign
from federation.registry.tuf_api import (
    DelegatedRole,
    Metadata,
    RepositoryError,
    Root,
    Signer,
    SSlibKey,
    TargetFile,
    Targets,
)


def delegated(targets: Targets) -> dict[str, DelegatedRole]:
    """Return the roles that the list of members delegates to, by name.

    Raises:
        RegistryError: it delegates in no way that this project uses.
    """
    if targets.delegations is None or targets.delegations.roles is None:
        raise RegistryError("the registry's members have no lists of models.")
    return targets.delegations.roles


def enter(targets: Targets, document: SiteDocument, target: TargetFile) -> None:
    """Enter a site: its document as a target, its models key for the models below its name."""
    role = site_role(document.site)
    paths = [models_pattern(document.site)]
    delegated(targets)[role] = DelegatedRole(role, [], 1, terminating=True, paths=paths)
    targets.add_key(SSlibKey.from_crypto(load_models_key(document.models_key)), role)
    targets.targets[site_path(document.site)] = target


def leave(targets: Targets, site: str) -> None:
    """Take a site and its key out; nothing happens when it is not there."""
    targets.targets.pop(site_path(site), None)
    role = delegated(targets).pop(site_role(site), None)
    assert targets.delegations is not None
    for keyid in role.keyids if role is not None else ():
        targets.delegations.keys.pop(keyid, None)


def sign_members(root: Root, targets: Targets, signers: Sequence[Signer], *, now_s: float) -> bytes:
    """Return the next version of the list, signed.

    Raises:
        FederationInputError: there are fewer membership signers than it takes, or too many sites.
    """
    targets.version += 1
    data = sign(targets, enough(signers, root, Targets.type), now_s=now_s)
    if len(data) > MAX_MEMBERSHIP_BYTES:
        raise FederationInputError("the registry has more sites than its readers accept.")
    return data


def accept_models(data: bytes, targets: Targets, newest: Mapping[str, int]) -> tuple[bytes, str, int]:
    """Return a site's list of models with the role and the version that it is.

    Args:
        data: what a site has signed.
        targets: the members.
        newest: the versions that are published already, by role.

    Raises:
        FederationInputError: it is no list, no member's, not newer, or names what its site may not name.
    """
    if len(data) > MAX_SITE_LIST_BYTES:
        raise FederationInputError(f"a site's list has at most {MAX_SITE_LIST_BYTES} bytes.")
    try:
        found: Metadata[Targets] = Metadata.from_bytes(data)
        signed_bytes = found.signed_bytes
    except RepositoryError as error:
        raise FederationInputError("the file is no signed list of models.") from error
    for role in delegated(targets):
        if role == POLICY_ROLE:
            continue
        if not targets.get_verification_result(role, signed_bytes, found.signatures):
            continue
        site = site_of(role)
        if not isinstance(found.signed, Targets) or found.signed.delegations is not None:
            raise FederationInputError(f"what {site} signed is no list of models.")
        version = found.signed.version
        if not newest.get(role, 0) < version <= MAX_ROLE_VERSION:
            raise FederationInputError(
                f"the list of {site} has version {version}, and {newest.get(role, 0)} is published already.",
                fix="let the site sign its list again",
            )
        try:
            read_models(site, found.signed)
        except RegistryError as error:
            raise FederationInputError(error.message) from error
        return data, role, version
    raise FederationInputError("no site of this registry has signed this list.", fix="admit the site first")
