"""A workshop for certificates: right ones, and any kind of wrong one, with the keys of real sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.binding import Binding
from federation.identity.keys import key_from_pem, new_key
from federation.identity.names import NodeIdentity
from federation.identity.shape import LEAF_CONSTRAINTS, LEAF_USAGE, NODE_PURPOSES, node_names

NOW_S = 1_800_000_000.0
Names = Sequence[x509.GeneralName]


def _moment(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


@dataclass(frozen=True)
class Workshop:
    """Two sites, A and B, that know each other, at one moment."""

    now_s: float
    a: SiteAuthority
    b: SiteAuthority
    binding: Binding
    node: NodeIdentity

    def issue(
        self, site: SiteAuthority | None = None, identity: NodeIdentity | None = None, **more: Any
    ) -> bytes:
        """A right certificate, of a node of site A unless told otherwise."""
        identity = identity or self.node
        more.setdefault("now_s", self.now_s)
        return (site or self.a).issue(make_csr(new_key(), identity), identity, **more)

    def forge(
        self,
        names: Names | None = None,
        *,
        signer: SiteAuthority | None = None,
        signing_key: Any = None,
        issuer: x509.Name | None = None,
        claimed: SiteAuthority | None = None,
        key: Any = None,
        begins_s: float | None = None,
        ends_s: float | None = None,
        replace: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None] | None = None,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        """A certificate that differs from node ``gpu07``'s of site A in what is given.

        ``claimed`` is the site whose CA's name and key identifier it bears, whoever signs.
        """
        signer = signer or self.a
        claimed = claimed or signer
        signing_key = signing_key or key_from_pem(signer.key_pem)
        names_extension = node_names(self.node) if names is None else x509.SubjectAlternativeName(names)
        parts: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None] = {
            x509.SubjectAlternativeName: (names_extension, True),
            x509.BasicConstraints: (LEAF_CONSTRAINTS, True),
            x509.KeyUsage: (LEAF_USAGE, True),
            x509.ExtendedKeyUsage: (NODE_PURPOSES, False),
            x509.AuthorityKeyIdentifier: (identifier_of(claimed), False),
        }
        parts.update(replace or {})
        draft = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuer or claimed.certificate.subject)
            .public_key(key or LEAF_KEY.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_moment(self.now_s if begins_s is None else begins_s))
            .not_valid_after(_moment(self.now_s + 3600 if ends_s is None else ends_s))
        )
        for part in (*parts.values(), *extra):
            if part is not None:
                draft = draft.add_extension(part[0], part[1])
        return draft.sign(signing_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def identifier_of(site: SiteAuthority) -> x509.AuthorityKeyIdentifier:
    """How certificates name a site's key."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key_from_pem(site.key_pem).public_key())


LEAF_KEY = new_key()


@pytest.fixture(scope="session")
def shop() -> Workshop:
    """Sites uni-a.example and uni-b.example with their CAs, and node gpu07 of the former."""
    a, b = (SiteAuthority.create(f"uni-{site}.example", now_s=NOW_S - 86400) for site in "ab")
    binding = Binding({a.trust_domain: [a.certificate_pem], b.trust_domain: [b.certificate]})
    return Workshop(NOW_S, a, b, binding, NodeIdentity("uni-a.example", "gpu07"))


@pytest.fixture(scope="session")
def make_authority() -> Callable[..., x509.Certificate]:
    """A function that makes a CA certificate for site A's key or another, with other extensions or times."""

    def make(
        key: Any,
        name: x509.Name,
        extensions: Sequence[tuple[x509.ExtensionType, bool]],
        *,
        begins_s: float = NOW_S - 86400,
        ends_s: float = NOW_S + 86400,
        signing_key: Any = None,
        issuer: x509.Name | None = None,
    ) -> x509.Certificate:
        draft = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer or name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_moment(begins_s))
            .not_valid_after(_moment(ends_s))
        )
        for value, critical in extensions:
            draft = draft.add_extension(value, critical)
        return draft.sign(signing_key or key, hashes.SHA256())

    return make
