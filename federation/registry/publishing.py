"""The last step of each change to a registry: say which files are the newest, with the online key.

New files are there already; the timestamp is written last, so that no reader meets half a change. What was
signed elsewhere is verified before it is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from federation.errors import FederationInputError
from federation.limits import MAX_MEMBERSHIP_BYTES, MAX_SNAPSHOT_BYTES
from federation.registry.files import read_file, write_file
from federation.registry.folder import RegistryFolder
from federation.registry.members import delegated
from federation.registry.policies import POLICY_ROLE
from federation.registry.signing import ISSUED_FIELD, enough, has_enough, sign
from federation.registry.tuf_api import MetaFile, Root, Signer, Snapshot, Timestamp

_KEPT_SNAPSHOTS: Final = 64
"""Snapshots that stay for readers who are under way; one is made every few hours."""


def publish_if_online(
    folder: RegistryFolder, roots: Sequence[Root], signers: Sequence[Signer], *, now_s: float
) -> bool:
    """Publish if the online key is among the signers; say whether it is.

    Raises:
        FederationInputError: this machine's clock is behind the last publication.
        RegistryError: the folder is not what its signers left there.
    """
    if not has_enough(signers, roots[-1], Timestamp.type):
        return False
    publish_newest(folder, roots, signers, now_s=now_s)
    return True


def publish_newest(
    folder: RegistryFolder, roots: Sequence[Root], signers: Sequence[Signer], *, now_s: float
) -> None:
    """Let readers see the newest version of each file.

    Raises:
        FederationInputError: the online key is missing, or this machine's clock is behind the last one.
        RegistryError: the folder is not what its signers left there.
    """
    online = enough(signers, roots[-1], Timestamp.type)
    old = folder.timestamp(roots)
    if old is not None and int(now_s) < int(old.unrecognized_fields.get(ISSUED_FIELD, 0)):
        raise FederationInputError(
            "this machine's clock is behind the last publication.", fix="correct the clock"
        )
    version = 1 if old is None else old.version + 1
    # What was signed elsewhere is not published unverified, nor before all of it is here.
    targets = folder.targets(roots)
    folder.documents(targets)
    if POLICY_ROLE in delegated(targets):
        folder.policies(targets)
    meta = {}
    for role, newest in sorted(folder.newest().items()):
        data = read_file(folder.path(role, newest), max_bytes=MAX_MEMBERSHIP_BYTES)
        meta[f"{role}.json"] = MetaFile.from_data(newest, data, ["sha256"])
    snapshot = sign(Snapshot(version=version, meta=meta), online, now_s=now_s)
    if len(snapshot) > MAX_SNAPSHOT_BYTES:
        raise FederationInputError("the registry has had more sites than its readers accept.")
    timestamp = Timestamp(
        version=version,
        snapshot_meta=MetaFile.from_data(version, snapshot, ["sha256"]),
        unrecognized_fields={ISSUED_FIELD: int(now_s)},
    )
    write_file(folder.path(Snapshot.type, version), snapshot)
    folder.write_timestamp(sign(timestamp, online, now_s=now_s))
    folder.path(Snapshot.type, version - _KEPT_SNAPSHOTS).unlink(missing_ok=True)
