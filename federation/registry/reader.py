"""One verified reading of a registry, from a source or from the cache: python-tuf's rules, our own clock.

python-tuf verifies the chain of roots, thresholds, versions and expiry. What is added here: the time comes
from the caller (python-tuf has no argument for it); a site's document and its list of models are judged site
by site, and the policies by themselves, so that a fault of one leaves the others untouched; and python-tuf's
own cache of single files is replaced by what the caller holds, since single files can be torn apart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from federation.errors import FederationInputError, RegistryError
from federation.identity.names import check_label
from federation.limits import (
    MAX_AUDITORS_BYTES,
    MAX_CLOCK_LEAD_S,
    MAX_MEMBERSHIP_BYTES,
    MAX_POLICY_BYTES,
    MAX_ROLE_VERSION,
    MAX_ROOT_BYTES,
    MAX_ROOT_ROTATIONS,
    MAX_SITE_DOCUMENT_BYTES,
    MAX_SITE_LIST_BYTES,
    MAX_SITES,
    MAX_SITES_EVER,
    MAX_SNAPSHOT_BYTES,
    MAX_TIMESTAMP_BYTES,
)
from federation.registry.cache import Cached
from federation.registry.documents import SiteDocument, decode_site
from federation.registry.fetching import METADATA, TARGETS, CacheFetcher, SourceFetcher
from federation.registry.files import write_file
from federation.registry.marks import Mark, line
from federation.registry.members import delegated
from federation.registry.membership import Auditor, Membership, ModelBinding, PolicyText
from federation.registry.models import read_models, site_role
from federation.registry.policies import (
    AUDITORS_PATH,
    POLICY_ROLE,
    PolicyEntry,
    decode_auditors,
    policy_fault,
    read_policies,
)
from federation.registry.signing import ISSUED_FIELD, NAME_FIELD
from federation.registry.tuf_api import (
    CanonicalJSONSerializer,
    LengthOrHashMismatchError,
    RepositoryError,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
    Updater,
    UpdaterConfig,
)

_SITE_PATH: Final = re.compile(r"sites/([a-z0-9-]+)/site\.json")
_CONFIG: Final = UpdaterConfig(
    max_root_rotations=MAX_ROOT_ROTATIONS,
    root_max_length=MAX_ROOT_BYTES,
    timestamp_max_length=MAX_TIMESTAMP_BYTES,
    snapshot_max_length=MAX_SNAPSHOT_BYTES,
    targets_max_length=MAX_MEMBERSHIP_BYTES,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a registry says, the marks that it sets, and its files."""

    membership: Membership
    marks: dict[str, Mark]
    files: Cached


class RegistryReader(Updater):
    """Reads a registry once.

    Args:
        roots: a folder for the chain of roots, which python-tuf keeps itself.
        fetcher: where new files come from.
        root: the pinned root's bytes.
        held: files of an earlier reading; they are verified again.
        now_s: the time to judge expiry by.
    """

    def __init__(
        self, roots: Path, fetcher: SourceFetcher | CacheFetcher, *, root: bytes, held: Cached, now_s: float
    ) -> None:
        self._held = held
        self._roles: dict[str, bytes] = {}
        self._documents: dict[str, bytes] = {}
        self._marks: dict[str, Mark] = {}
        self._source = fetcher
        super().__init__(
            str(roots), METADATA, target_base_url=TARGETS, fetcher=fetcher, config=_CONFIG, bootstrap=root
        )
        self._trusted_set.reference_time = datetime.fromtimestamp(now_s, UTC)

    def read(self, *, now_s: float) -> Reading:
        """Return what the registry says.

        Args:
            now_s: the present, by which a site's list of models is too old and a signature too new; the
                constructor's may lie before it.

        Raises:
            RegistryError: it cannot be believed.
            tuf.api.exceptions.RepositoryError: python-tuf does not believe it.
            tuf.api.exceptions.DownloadError: a file is missing.
        """
        self.refresh()
        trusted = self._trusted_set
        root, timestamp, snapshot, targets = (
            trusted.root,
            trusted.timestamp,
            trusted.snapshot,
            trusted.targets,
        )
        name, issued = _named(root), _issued(timestamp, now_s=now_s)
        if len(targets.targets) > MAX_SITES or len(snapshot.meta) > MAX_SITES_EVER + 1:
            raise RegistryError(f"the registry has more than {MAX_SITES} sites.")
        self._mark(Root.type, root)
        self._mark(Timestamp.type, timestamp, keyids=root.roles[Timestamp.type].keyids, issued=issued)
        self._mark(Snapshot.type, snapshot, keyids=root.roles[Snapshot.type].keyids)
        self._mark(Targets.type, targets, keyids=root.roles[Targets.type].keyids)
        self._prefetch(snapshot, targets)
        sites, models, faults = [], dict[str, ModelBinding](), dict[str, str]()
        for site, target in _sites(targets):
            data = self._document(target)
            try:
                sites.append(_decode(site, data))
                models.update(self._models(site, snapshot, targets, now_s=now_s))
            except _SiteFaultError as fault:
                faults[site] = str(fault)
        policies, auditors = self._policies(snapshot, targets, faults, now_s=now_s)
        membership = Membership(
            consortium=name,
            version=timestamp.version,
            issued_at=float(issued),
            expires_at=min(one.expires.timestamp() for one in (root, timestamp, snapshot, targets)),
            sites=tuple(sites),
            models=models,
            faults=faults,
            policies=policies,
            auditors=auditors,
        )
        return Reading(membership, self._marks, Cached(self._roles, self._documents))

    def _models(
        self, site: str, snapshot: Snapshot, targets: Targets, *, now_s: float
    ) -> Mapping[str, ModelBinding]:
        role = site_role(site)
        delegation = delegated(targets).get(role)
        if delegation is None or f"{role}.json" not in snapshot.meta:
            return {}  # the site has listed none yet
        try:
            signed = self._load_targets(role, Targets.type)
        except LengthOrHashMismatchError:
            raise  # the source's fault, not the site's
        except RepositoryError as error:
            raise _SiteFaultError(
                "its list of models has expired, or its present key has not signed it"
            ) from error
        self._mark(role, signed, keyids=delegation.keyids)
        if signed.expires.timestamp() <= now_s:
            raise _SiteFaultError("its list of models has expired, or its present key has not signed it")
        try:
            return read_models(site, signed)
        except RegistryError as error:
            raise _SiteFaultError(error.message) from error

    def _policies(
        self, snapshot: Snapshot, targets: Targets, faults: dict[str, str], *, now_s: float
    ) -> tuple[tuple[PolicyText, ...], tuple[Auditor, ...]]:
        delegation = delegated(targets).get(POLICY_ROLE)
        if delegation is None:
            return (), ()  # a registry of before there were policies
        if f"{POLICY_ROLE}.json" not in snapshot.meta:
            # With this mark, a snapshot that leaves the list out later is older than what was seen.
            name = line(POLICY_ROLE, delegation.keyids)
            self._marks[name] = Mark(name, 0, "", 0)
            return (), ()
        try:
            signed = self._load_targets(POLICY_ROLE, Targets.type)
        except LengthOrHashMismatchError:
            raise  # the source's fault, not the signers'
        except RepositoryError:
            faults[policy_fault(0)] = "the list of policies has expired, or too few of its signers signed it"
            return (), ()
        self._mark(POLICY_ROLE, signed, keyids=delegation.keyids)
        if signed.expires.timestamp() <= now_s:
            faults[policy_fault(0)] = "the list of policies has expired"
            return (), ()
        try:
            entries = read_policies(signed)
            listed = signed.targets.get(AUDITORS_PATH)
            auditors = decode_auditors(self._document(listed, MAX_AUDITORS_BYTES)) if listed else ()
        except (RegistryError, FederationInputError) as error:
            faults[policy_fault(0)] = error.message
            return (), ()
        self._source.prefetch(
            {
                TARGETS + one.target.get_prefixed_paths()[0]: one.target.length
                for one in entries
                if one.target.hashes["sha256"] not in self._held.documents
            }
        )
        return tuple(self._policy(one) for one in entries), auditors

    def _policy(self, entry: PolicyEntry) -> PolicyText:
        data = self._document(entry.target, MAX_POLICY_BYTES)
        return PolicyText(entry.version, entry.effective_at_s, data, hashlib.sha256(data).hexdigest())

    def _document(self, target: TargetFile, max_bytes: int = MAX_SITE_DOCUMENT_BYTES) -> bytes:
        digest = target.hashes.get("sha256", "")
        data = self._held.documents.get(digest)
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            data = self._fetcher.download_bytes(
                TARGETS + target.get_prefixed_paths()[0], min(target.length, max_bytes)
            )
        target.verify_length_and_hashes(data)
        self._documents[digest] = data
        return data

    def _prefetch(self, snapshot: Snapshot, targets: Targets) -> None:
        wanted = {}
        for site, target in _sites(targets):
            if target.hashes.get("sha256") not in self._held.documents:
                wanted[TARGETS + target.get_prefixed_paths()[0]] = min(target.length, MAX_SITE_DOCUMENT_BYTES)
            role = site_role(site)
            meta = snapshot.meta.get(f"{role}.json")
            held = self._held.roles.get(role, b"")
            if meta is not None and (meta.hashes or {}).get("sha256") != hashlib.sha256(held).hexdigest():
                wanted[f"{METADATA}{meta.version}.{role}.json"] = meta.length or MAX_SITE_LIST_BYTES
        self._source.prefetch(wanted)

    def _mark(self, role: str, signed: Signed, *, keyids: list[str] | None = None, issued: int = 0) -> None:
        if signed.version > MAX_ROLE_VERSION:
            raise RegistryError(f"the registry's {role} has version {signed.version}, which nobody reaches.")
        name = role if keyids is None else line(role, keyids)
        digest = hashlib.sha256(CanonicalJSONSerializer().serialize(signed)).hexdigest()
        self._marks[name] = Mark(name, signed.version, digest, issued)

    # What follows takes the place of python-tuf's own cache, in which each file is replaced by itself.
    def _load_local_metadata(self, rolename: str) -> bytes:
        try:
            data = self._held.roles[rolename]
        except KeyError:
            raise FileNotFoundError(rolename) from None
        self._roles.setdefault(rolename, data)
        return data

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        self._roles[rolename] = data

    def _persist_file(self, filename: str, data: bytes) -> None:
        path = Path(filename)
        if not path.exists() or path.read_bytes() != data:
            write_file(path, data)


class _SiteFaultError(Exception):
    """Something of one site cannot be used; the rest can."""


def _sites(targets: Targets) -> Iterator[tuple[str, TargetFile]]:
    for path, target in sorted(targets.targets.items()):
        if found := _SITE_PATH.fullmatch(path):  # others are of a newer version
            yield found[1], target


def _decode(site: str, data: bytes) -> SiteDocument:
    try:
        document = decode_site(data)
    except FederationInputError as error:
        raise _SiteFaultError(error.message) from error
    if document.site != site:
        raise _SiteFaultError(f"its document is that of {document.site}")
    return document


def _named(root: Root) -> str:
    name = root.unrecognized_fields.get(NAME_FIELD)
    if not isinstance(name, str):
        raise RegistryError("the registry's root does not say which consortium it is.")
    try:
        return check_label(name, "consortium")
    except FederationInputError as error:
        raise RegistryError(error.message) from error


def _issued(timestamp: Timestamp, *, now_s: float) -> int:
    issued = timestamp.unrecognized_fields.get(ISSUED_FIELD)
    if type(issued) is not int or issued < 0:
        raise RegistryError("the registry does not say when it was signed.")
    if issued > now_s + MAX_CLOCK_LEAD_S:
        raise RegistryError(
            f"the registry was signed {issued - now_s:.0f} s later than this node's clock shows.",
            fix="correct this node's clock; if it is right, tell the registry's publisher",
        )
    return issued
