"""How the registry's files are signed and checked: who counts, how long a signature lasts, our own fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, cast

from federation.errors import FederationInputError, RegistryError
from federation.registry.tuf_api import (
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


def sign(signed: Signed, signers: Sequence[Signer], *, now_s: float) -> bytes:
    """Return the file of a role: its expiry set, signed by each of the signers."""
    signed.expires = datetime.fromtimestamp(int(now_s) + LIFETIME_S[signed.type], UTC)
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


def ages(signed: Signed, *, now_s: float) -> bool:
    """Say whether a signed file is in the last third of its life."""
    return bool(signed.expires.timestamp() - now_s < LIFETIME_S[signed.type] / 3)


_SPOKEN: Final = {
    Root.type: "the root",
    Targets.type: "the membership",
    Snapshot.type: "the online signature",
    Timestamp.type: "the online signature",
}
