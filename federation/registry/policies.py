"""The consortium's policies and auditors as the role ``policy`` signs them: which versions, from when on.

The list is the TUF metadata of the delegated role ``policy``. A version is the target ``policy/N.yaml`` with
the signed ``custom`` field ``{"version": N, "effective_at": UNIX_S, "notice": S}``; what the file says is for
``federation.policy``. Auditors are the target ``policy/auditors.json``. Rules, all pure:

- versions rise, and none begins before one of a lower number: the newest that has begun is in force;
- every version but the first is published as long before it begins as the version before it demands (its
  ``notice``), so that each site hears of it in time and can say no; the signers' side keeps that rule, since
  nobody else knows when a thing was published;
- a version that was published stays in the list: old receipts are priced by it;
- a list that breaks a rule counts for nothing as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from federation.errors import FederationInputError, RegistryError
from federation.fairshare.decay import EPOCH_S
from federation.identity.names import check_label
from federation.limits import (
    MAX_AUDITORS,
    MAX_AUDITORS_BYTES,
    MAX_KEY_PEM_CHARS,
    MAX_PENDING_POLICIES,
    MAX_POLICIES_BYTES,
    MAX_POLICY_BYTES,
    MAX_POLICY_DURATION_S,
    MAX_POLICY_VERSIONS,
    MAX_ROLE_VERSION,
    MAX_UNIX_TIME_S,
)
from federation.registry.documents import canonical, parse_object
from federation.registry.membership import Auditor
from federation.registry.request import load_auditor_key
from federation.registry.tuf_api import DelegatedRole, Key, TargetFile, Targets

POLICY_ROLE: Final = "policy"
POLICY_PATHS: Final = "policy/*"
AUDITORS_PATH: Final = "policy/auditors.json"
POLICY_LIFETIME_S: Final = 365 * 86400
"""As long as the root's: the snapshot says which list is the newest, so its own end is only a last resort."""
_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class PolicyDraft:
    """A version that is to be published, as its file's reader found it.

    Args:
        name: the consortium that it speaks of.
        version: its number.
        effective_at_s: from when on, in Unix time.
        notice_s: how long before its beginning the version after it is published.
        data: the file.
    """

    name: str
    version: int
    effective_at_s: int
    notice_s: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """A version in the list."""

    version: int
    effective_at_s: int
    notice_s: int
    target: TargetFile


def policy_path(version: int) -> str:
    """Return the path of a version among the registry's targets."""
    return f"policy/{version}.yaml"


def policy_fault(version: int) -> str:
    """Return the name under which a membership tells what is wrong with a version; 0: with all of them."""
    return policy_path(version) if version else "policy/*"


def delegate_policies(targets: Targets, keys: Sequence[Key], threshold: int) -> None:
    """Let so many of these keys sign the list; what signed it before counts for nothing."""
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    old = targets.delegations.roles.pop(POLICY_ROLE, None)
    if old is not None:
        for keyid in old.keyids:
            targets.delegations.keys.pop(keyid, None)
    targets.delegations.roles[POLICY_ROLE] = DelegatedRole(
        POLICY_ROLE, [], threshold, terminating=True, paths=[POLICY_PATHS]
    )
    for key in keys:
        targets.add_key(key, POLICY_ROLE)


def read_policies(signed: Targets) -> tuple[PolicyEntry, ...]:
    """Return the versions of a verified list, in order.

    Raises:
        RegistryError: it breaks a rule.
    """
    if signed.delegations is not None:
        raise RegistryError("the list of policies delegates, which it may not.")
    entries = []
    for path, target in signed.targets.items():
        if path != AUDITORS_PATH:
            entries.append(_entry(path, target))
    if len(entries) > MAX_POLICY_VERSIONS:
        raise RegistryError(f"the list of policies has more than {MAX_POLICY_VERSIONS} versions.")
    if sum(one.target.length for one in entries) > MAX_POLICIES_BYTES:
        raise RegistryError(f"the policies have more than {MAX_POLICIES_BYTES} bytes.")
    entries.sort(key=lambda one: one.version)
    for before, after in pairwise(entries):
        if after.effective_at_s < before.effective_at_s:
            raise RegistryError(
                f"the policy's version {after.version} begins before version {before.version} does."
            )
    return tuple(entries)


def add_policy(signed: Targets, draft: PolicyDraft, *, now_s: float) -> TargetFile:
    """Enter a version into the list; return its target.

    Raises:
        FederationInputError: it may not enter.
        RegistryError: the list as it is breaks a rule.
    """
    entries = read_policies(signed)
    if not (
        1 <= draft.version <= MAX_ROLE_VERSION
        and 0 <= draft.effective_at_s <= MAX_UNIX_TIME_S
        and 0 <= draft.notice_s <= MAX_POLICY_DURATION_S
    ):
        raise FederationInputError("a policy's version, effective_at and notice are positive numbers.")
    if not 1 <= len(draft.data) <= MAX_POLICY_BYTES:
        raise FederationInputError(f"a policy's file has 1 to {MAX_POLICY_BYTES} bytes.")
    if len(entries) >= MAX_POLICY_VERSIONS:
        raise FederationInputError(f"a registry lists at most {MAX_POLICY_VERSIONS} policies.")
    if sum(one.target.length for one in entries) + len(draft.data) > MAX_POLICIES_BYTES:
        raise FederationInputError(f"a registry has at most {MAX_POLICIES_BYTES} bytes of policies.")
    if entries:
        _check_follows(entries, draft, now_s=now_s)
    path = policy_path(draft.version)
    made = TargetFile.from_data(path, draft.data, ["sha256"])
    custom = {"version": draft.version, "effective_at": draft.effective_at_s, "notice": draft.notice_s}
    target = TargetFile(made.length, made.hashes, path, {"custom": custom})
    signed.targets[path] = target
    return target


def encode_auditors(auditors: Sequence[Auditor]) -> bytes:
    """Return the auditors' file.

    Raises:
        FederationInputError: a name or a key is none, or stands twice, or they are too many.
    """
    _check_auditors(auditors)
    return canonical(
        {"schema": _SCHEMA, "auditors": [{"name": one.name, "key": one.key} for one in auditors]}
    )


def decode_auditors(data: bytes) -> tuple[Auditor, ...]:
    """Return the auditors that a file names.

    Raises:
        FederationInputError: it names none in this form.
    """
    fields = parse_object(data, max_bytes=MAX_AUDITORS_BYTES, what="the list of auditors")
    listed = fields.get("auditors")
    if fields.get("schema") != _SCHEMA or not isinstance(listed, list) or len(listed) > MAX_AUDITORS:
        raise FederationInputError("the list of auditors has another form.", fix="upgrade pyrdma-agent")
    found = []
    for one in listed:
        name = one.get("name") if isinstance(one, dict) else None
        key = one.get("key") if isinstance(one, dict) else None
        if not isinstance(name, str) or not isinstance(key, str):
            raise FederationInputError("an auditor has a name and a key.")
        found.append(Auditor(name, key))
    _check_auditors(found)
    return tuple(found)


def _check_auditors(auditors: Sequence[Auditor]) -> None:
    if len(auditors) > MAX_AUDITORS:
        raise FederationInputError(f"a consortium has at most {MAX_AUDITORS} auditors.")
    keys = set()
    for one in auditors:
        check_label(one.name, "auditor")
        if len(one.key) > MAX_KEY_PEM_CHARS:
            raise FederationInputError(f"the key of the auditor {one.name} is no Ed25519 public key.")
        keys.add(load_auditor_key(one.key).public_bytes_raw())
    if len({one.name for one in auditors}) < len(auditors) or len(keys) < len(auditors):
        raise FederationInputError("an auditor's name or key stands twice.")


def _check_follows(entries: Sequence[PolicyEntry], draft: PolicyDraft, *, now_s: float) -> None:
    last = entries[-1]
    if draft.version <= last.version:
        raise FederationInputError(
            f"the policy has version {draft.version}, and version {last.version} is published already.",
            fix=f"give it version {last.version + 1}",
        )
    earliest_s = max(int(now_s) + last.notice_s, last.effective_at_s)
    if draft.effective_at_s < earliest_s:
        raise FederationInputError(
            f"the policy begins {(draft.effective_at_s - now_s) / 3600:.1f} h from now: version "
            f"{last.version} demands a notice of {last.notice_s / 3600:.1f} h, "
            "and none begins before the one before it.",
            fix=f"let effective_at be {_next_epoch(earliest_s)} or later",
        )
    pending = sum(one.effective_at_s > now_s for one in entries)
    if pending >= MAX_PENDING_POLICIES:
        raise FederationInputError(f"{pending} policies wait to come into force; more are not published.")


def _next_epoch(at_s: int) -> str:
    return f"{datetime.fromtimestamp(-(-at_s // EPOCH_S) * EPOCH_S, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _entry(path: str, target: TargetFile) -> PolicyEntry:
    custom: Any = target.custom
    version: Any = custom.get("version") if isinstance(custom, dict) else None
    effective_at: Any = custom.get("effective_at") if isinstance(custom, dict) else None
    notice: Any = custom.get("notice") if isinstance(custom, dict) else None
    if (
        type(version) is not int
        or not 1 <= version <= MAX_ROLE_VERSION
        or path != policy_path(version)
        or type(effective_at) is not int
        or not 0 <= effective_at <= MAX_UNIX_TIME_S
        or type(notice) is not int
        or not 0 <= notice <= MAX_POLICY_DURATION_S
        or not 1 <= target.length <= MAX_POLICY_BYTES
        or set(target.hashes) != {"sha256"}
    ):
        raise RegistryError(f"the list of policies is malformed at {path}.")
    return PolicyEntry(version, effective_at, notice, target)
