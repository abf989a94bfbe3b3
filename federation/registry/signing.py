"""How the registry's files are signed and checked: who counts, how long a signature lasts, our own fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast

from federation.errors import FederationInputError, RegistryError
from federation.limits import MAX_ROLE_KEYS
from federation.registry.tuf_api import (
    DelegatedRole,
    Key,
    Metadata,
    RepositoryError,
    Role,
    Root,
    Signed,
    Signer,
    Snapshot,
    Targets,
    Timestamp,
)

_DAY_S: Final = 86400
LIFETIME_S: Final = {
    Root.type: 365 * _DAY_S,
    Targets.type: 90 * _DAY_S,
    Snapshot.type: 7 * _DAY_S,
    Timestamp.type: 3 * _DAY_S,
}
"""How long a signature counts. The timestamp's is how long a mirror can hold a change back."""
NAME_FIELD: Final = "x-consortium"
"""The consortium's name, a signed field of the root."""
ISSUED_FIELD: Final = "x-issued"
"""When it was signed, in seconds of Unix time, a signed field of the timestamp."""


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """Who signs for a role: all its keys, and how many of them it takes."""

    signers: tuple[Signer, ...]
    threshold: int


def check_reachable(keys: RoleKeys) -> None:
    """Refuse a threshold that cannot be reached, or too many keys.

    Raises:
        FederationInputError: it is so.
    """
    distinct = len({signer.public_key.keyid for signer in keys.signers})
    if not 1 <= keys.threshold <= distinct <= MAX_ROLE_KEYS:
        raise FederationInputError(
            f"a role has 1 to {MAX_ROLE_KEYS} different keys, and it takes at most all of them."
        )


def present(signers: Iterable[Signer], role: Role, keys: Mapping[str, Key]) -> list[Signer]:
    """Return those signers whose keys count for a role, each key once."""
    by_id = {signer.public_key.keyid: signer for signer in signers}
    return [
        by_id[keyid] for keyid in role.keyids if keyid in by_id and by_id[keyid].public_key == keys.get(keyid)
    ]


def enough(signers: Iterable[Signer], root: Root, role: str) -> list[Signer]:
    """Return the signers of a role of the root.

    Raises:
        FederationInputError: they are fewer than its threshold.
    """
    needed = root.roles[role].threshold
    found = present(signers, root.roles[role], root.keys)
    if len(found) < needed:
        raise FederationInputError(
            f"this needs {needed} of the keys for {_SPOKEN[role]}, and {len(found)} of them are here.",
            fix="bring the other keys into the folder that --keys names",
        )
    return found


def has_enough(signers: Iterable[Signer], root: Root, role: str) -> bool:
    """Say whether as many signers of a role of the root are here as it takes."""
    return len(present(signers, root.roles[role], root.keys)) >= root.roles[role].threshold


def enough_delegated(signers: Iterable[Signer], targets: Targets, role: DelegatedRole) -> list[Signer]:
    """Return the signers of a role that the members delegate to.

    Raises:
        FederationInputError: they are fewer than its threshold.
    """
    assert targets.delegations is not None
    found = present(signers, role, targets.delegations.keys)
    if len(found) < role.threshold:
        raise FederationInputError(
            f"this needs {role.threshold} of the keys for the {role.name}, "
            f"and {len(found)} of them are here.",
            fix="bring the other keys into the folder that --keys names",
        )
    return found


def sign(signed: Signed, signers: Sequence[Signer], *, now_s: float, lifetime_s: int | None = None) -> bytes:
    """Return the file of a role: its expiry set, signed by each of the signers."""
    life_s = LIFETIME_S[signed.type] if lifetime_s is None else lifetime_s
    signed.expires = datetime.fromtimestamp(int(now_s) + life_s, UTC)
    metadata = Metadata(cast("Root", signed))  # or of another role: the type of the parameter says only one
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def verify(data: bytes, role: str, delegators: Sequence[Root | Targets]) -> Signed:
    """Return what a role's file says, once one of the delegators vouches for it; a root without any, itself.

    Raises:
        RegistryError: none of them does, or the file holds no metadata of this role.
    """
    fault: Exception | None = None
    try:
        metadata: Metadata[Root] = Metadata.from_bytes(data)  # or of another role: that is told by its type
        signed: Signed = metadata.signed
        for delegator in delegators or ([signed] if isinstance(signed, Root) else []):
            try:
                delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            except (RepositoryError, ValueError) as error:
                fault = error
                continue
            if signed.type == role:
                return signed
    except RepositoryError as error:
        fault = error
    raise RegistryError(
        f"the registry's file for {_SPOKEN[role]} is not signed by those who may.",
        fix="sign nothing in this folder; compare it with a copy that you trust",
    ) from fault


def verify_delegated(data: bytes, role: str, targets: Targets) -> Targets:
    """Return what the file of a role says that the members delegate to.

    Raises:
        RegistryError: those who may have not signed it, or it holds no list.
    """
    try:
        metadata: Metadata[Targets] = Metadata.from_bytes(data)
        targets.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        if isinstance(metadata.signed, Targets):
            return metadata.signed
    except (RepositoryError, ValueError) as error:
        raise RegistryError(
            f"the registry's list of the {role} is not signed by those who may.",
            fix="repeat an exchange of keys that broke off; else compare the folder with a trusted copy",
        ) from error
    raise RegistryError(f"the registry's file for the {role} holds no list.")


def ages(signed: Signed, *, now_s: float, lifetime_s: int | None = None) -> bool:
    """Say whether a signed file is in the last third of its life."""
    life_s = LIFETIME_S[signed.type] if lifetime_s is None else lifetime_s
    return bool(signed.expires.timestamp() - now_s < life_s / 3)


_SPOKEN: Final = {
    Root.type: "the root",
    Targets.type: "the membership",
    Snapshot.type: "the online signature",
    Timestamp.type: "the online signature",
}
