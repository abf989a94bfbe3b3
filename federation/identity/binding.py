"""Which node a certificate proves: the leaf is bound to the CA of the site that it names, and to no other.

A TLS handshake accepts what any known CA signed, so it does not say who calls; this does, anew for every
call. Rules: the leaf has a node's exact shape; the CA of the trust domain that it names signed it directly;
leaf and CA are within their times; its life is no longer than the cap. A site's CA thus vouches for its own
nodes alone. The general verifier of ``cryptography`` is not used: it refuses constraints on URIs altogether.
Nothing is looked up here, and a revocation is the caller's to check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from federation.errors import IdentityError
from federation.identity.names import NodeIdentity
from federation.identity.shape import check_authority_shape, read_certificate, read_node
from federation.limits import (
    AUTHORITY_CERTIFICATE_S,
    CLOCK_SKEW_S,
    MAX_AUTHORITIES_PER_SITE,
    NODE_CERTIFICATE_S,
)

_RENEW: Final = (
    "check the clocks of both machines; let the node renew its certificate, or join its site again"
)
_OTHER: Final = "let the node join its site again; if it has, the site's CA in the registry is another"


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key_identifier: bytes
    begins_s: float
    ends_s: float


class Binding:
    """The CAs of all sites that are known here, read once; identifies the nodes below them.

    Args:
        authorities: each site's CA certificates (or their PEM) by its trust domain. They are believed: let
            ``check_authority`` see those of others first.

    Raises:
        IdentityError: one has not the shape of its site's CA, or a site has too many.
        FederationInputError: a trust domain is none.
    """

    def __init__(self, authorities: Mapping[str, Sequence[x509.Certificate | bytes]]) -> None:
        self._authorities = {
            trust_domain: _read(trust_domain, certificates)
            for trust_domain, certificates in authorities.items()
        }

    def identify(self, leaf_pem: bytes, *, now_s: float) -> NodeIdentity:
        """Return the node whose certificate this is, at this Unix time.

        Raises:
            IdentityError: it proves nothing here; the sentence says why.
        """
        leaf = read_certificate(leaf_pem)
        identity, signer = read_node(leaf)
        known = self._authorities.get(identity.trust_domain)
        if known is None:
            raise IdentityError(
                f"no site known here has the trust domain {identity.trust_domain}.",
                fix="refresh the registry; if that does not help, the site is not a member",
            )
        signers = [one for one in known if one.key_identifier == signer]
        if not signers:
            raise IdentityError(
                f"the certificate of {identity.dns} is not issued by its site's CA.", fix=_OTHER
            )
        authority = next((one for one in signers if _within(one.begins_s, one.ends_s, now_s)), None)
        if authority is None:
            raise IdentityError(
                f"the CA of {identity.trust_domain} is past its end, or not yet begun.",
                fix="let that site renew its CA, and check the clock of this machine",
            )
        _check_issued(leaf, authority.certificate, identity)
        _check_times(leaf, identity, now_s)
        return identity


def check_authority(pem: bytes, trust_domain: str, *, now_s: float) -> x509.Certificate:
    """Return the CA certificate of a site, for instance as its entry in the registry has it.

    Raises:
        IdentityError: it is not exactly of the shape of a site's CA for this trust domain, not signed by its
            own key, made for too long, or not valid at this Unix time.
        FederationInputError: the trust domain is none.
    """
    certificate = read_certificate(pem)
    check_authority_shape(certificate, trust_domain)
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        raise IdentityError(f"the CA certificate of {trust_domain} is not signed by its own key.") from None
    begins_s, ends_s = times(certificate)
    if ends_s - begins_s > AUTHORITY_CERTIFICATE_S + CLOCK_SKEW_S:
        raise IdentityError(f"the CA certificate of {trust_domain} is made for more than a year.")
    if not _within(begins_s, ends_s, now_s):
        raise IdentityError(
            f"the CA certificate of {trust_domain} is past its end, or not yet begun.",
            fix="let the site renew its CA, and check the clock of this machine",
        )
    return certificate


def times(certificate: x509.Certificate) -> tuple[float, float]:
    """Return the first and the last moment of a certificate's life, in Unix time."""
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()


def _read(trust_domain: str, certificates: Sequence[x509.Certificate | bytes]) -> tuple[_Authority, ...]:
    if len(certificates) > MAX_AUTHORITIES_PER_SITE:
        raise IdentityError(f"{trust_domain} has more than {MAX_AUTHORITIES_PER_SITE} CA certificates.")
    known = []
    for one in certificates:
        certificate = read_certificate(one) if isinstance(one, bytes) else one
        check_authority_shape(certificate, trust_domain)
        identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        known.append(_Authority(certificate, identifier.digest, *times(certificate)))
    return tuple(known)


def _check_issued(leaf: x509.Certificate, authority: x509.Certificate, identity: NodeIdentity) -> None:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):  # another issuer's name, key kind or signature
        raise IdentityError(
            f"the certificate of {identity.dns} is not issued by its site's CA.", fix=_OTHER
        ) from None


def _check_times(leaf: x509.Certificate, identity: NodeIdentity, now_s: float) -> None:
    begins_s, ends_s = times(leaf)
    if ends_s - begins_s > NODE_CERTIFICATE_S + CLOCK_SKEW_S:
        raise IdentityError(f"the certificate of {identity.dns} is made for longer than a day.", fix=_OTHER)
    if now_s > ends_s + CLOCK_SKEW_S:
        raise IdentityError(f"the certificate of {identity.dns} has expired.", fix=_RENEW)
    if now_s < begins_s - CLOCK_SKEW_S:
        raise IdentityError(f"the certificate of {identity.dns} is not valid yet.", fix=_RENEW)


def _within(begins_s: float, ends_s: float, now_s: float) -> bool:
    return begins_s - CLOCK_SKEW_S <= now_s <= ends_s + CLOCK_SKEW_S
