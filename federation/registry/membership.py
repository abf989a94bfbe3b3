"""What the registry says, once it is verified: the sites, their models, the policies, and for how long.

Pure: time comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from federation.errors import FederationInputError, NotAdmittedError
from federation.limits import MAX_TRUST_STALE_S
from federation.registry.documents import SiteDocument
from federation.registry.request import load_receipts_key

Freshness = Literal["fresh", "stale", "local"]


@dataclass(frozen=True, slots=True)
class ModelBinding:
    """The image that a model's name stands for: its id in hex, its size, and its licence.

    The licence is an SPDX id, or a name in its form, in lower case; empty where the site says none.
    """

    image_id: str
    total_bytes: int
    licence: str = ""


@dataclass(frozen=True, slots=True)
class PolicyText:
    """One version of the consortium's policy, as its signers published it.

    Args:
        version: rises with each.
        effective_at_s: from when on it is in force, in Unix time, as the signed list says.
        data: the YAML file.
        digest: its SHA-256, hex.
    """

    version: int
    effective_at_s: int
    data: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Auditor:
    """Somebody whose signed resolutions of disputes count: a name, and an Ed25519 public key in PEM."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class ReceiptsKey:
    """A key that a site's receipts may be signed with; up to ``until_s`` (Unix time) if it was replaced."""

    key: Ed25519PublicKey
    until_s: int | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """The members of a consortium at one moment.

    Args:
        consortium: its name.
        version: rises with each publication.
        issued_at: when it was signed last, in seconds of Unix time.
        expires_at: until when it counts without another signature.
        sites: by name, in order.
        models: ``SITE/NAME`` to image.
        faults: by site, why its document or its list of models is left out; others are not touched by it.
            Under ``policy/...``, which is no site's name, why a policy or all of them are.
        policies: every version that the consortium has published, in order: those before the one in force
            price old receipts, those after it are to come.
        auditors: whose resolutions count.
    """

    consortium: str
    version: int
    issued_at: float
    expires_at: float
    sites: tuple[SiteDocument, ...]
    models: Mapping[str, ModelBinding]
    faults: Mapping[str, str]
    policies: tuple[PolicyText, ...] = ()
    auditors: tuple[Auditor, ...] = ()

    def site(self, name: str) -> SiteDocument:
        """Return a member.

        Raises:
            NotAdmittedError: the site is none.
        """
        for document in self.sites:
            if document.site == name:
                return document
        raise NotAdmittedError(
            f"the site {name} is not in the registry of {self.consortium}.",
            fix="ask the consortium's signers to admit it",
        )

    def receipts_key(self, site: str) -> Ed25519PublicKey | None:
        """Return the key that a member signs requests and receipts with now; ``None`` where it has none.

        Raises:
            NotAdmittedError: the site is no member.
        """
        present = [one.key for one in self.receipts_keys(site) if one.until_s is None]
        return present[0] if present else None

    def receipts_keys(self, site: str) -> tuple[ReceiptsKey, ...]:
        """Return the keys that a member's receipts may be signed with: the present one, then the former.

        A receipt under a former key counts if it speaks of no time after that key's ``until_s``.

        Raises:
            NotAdmittedError: the site is no member.
        """
        document = self.site(site)
        listed = [(document.receipts_key, None)] if document.receipts_key else []
        former = [(one.key, one.until_s) for one in reversed(document.former_receipts_keys)]
        found = []
        for pem, until_s in (*listed, *former):
            try:
                found.append(ReceiptsKey(load_receipts_key(pem), until_s))
            except FederationInputError:
                continue  # the signers take in no such key; one that is there all the same verifies nothing
        return tuple(found)

    def by_trust_domain(self, trust_domain: str) -> SiteDocument:
        """Return the member whose nodes are below a trust domain.

        Raises:
            NotAdmittedError: there is none.
        """
        for document in self.sites:
            if document.trust_domain == trust_domain:
                return document
        raise NotAdmittedError(
            f"no site of {self.consortium} has the trust domain {trust_domain}.",
            fix="ask the consortium's signers to admit it",
        )


def freshness(membership: Membership, refreshed_at_s: float, now_s: float) -> Freshness:
    """Return how far the members may be trusted.

    ``fresh``: everything. ``stale``: nobody has signed in time, but the last verified refresh is at most a
    week ago; what is known goes on, nothing new begins. ``local``: this site alone. A clock that was set back
    does not make an old registry fresh: no time before the last refresh or the last signature is believed.
    """
    now_s = max(now_s, refreshed_at_s, membership.issued_at)
    if now_s < membership.expires_at:
        return "fresh"
    return "stale" if now_s - refreshed_at_s <= MAX_TRUST_STALE_S else "local"
