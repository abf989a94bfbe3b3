"""A site's own CA: makes itself, and signs its nodes' certificates and that of its enrolment port.

Rules: a certificate says what this site decided, never what a request asks for: a request that differs from
the node's exact shape is refused, not corrected. No certificate outlives the CA. The enrolment port's
certificate names no node, and no node can have its name. Who may have a certificate is decided before, by an
invite or a membership.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from federation.errors import EnrolmentError, FederationInputError, IdentityError
from federation.identity.binding import times
from federation.identity.keys import is_p256, key_from_pem, key_to_pem, new_key, spki_sha256
from federation.identity.names import JOIN_NAME, NodeIdentity, check_node, check_trust_domain
from federation.identity.shape import (
    LEAF_CONSTRAINTS,
    LEAF_USAGE,
    NODE_PURPOSES,
    PARSING,
    authority_extensions,
    authority_name,
    check_authority_shape,
    node_names,
    read_certificate,
)
from federation.limits import (
    AUTHORITY_CERTIFICATE_S,
    CLOCK_SKEW_S,
    MAX_REQUEST_BYTES,
    NODE_CERTIFICATE_S,
)

_EXTENSION_REQUEST: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.14")
"""The attribute that carries a request's extensions (RFC 2985, 5.4.2)."""
_AGAIN: Final = "make the request anew, with this software"


class SiteAuthority:
    """A site's CA: its key, its certificate, and what it may sign."""

    __slots__ = ("_key", "certificate", "trust_domain")

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, *, trust_domain: str
    ) -> None:
        self._key = key
        self.certificate: Final = certificate
        self.trust_domain: Final = trust_domain

    @classmethod
    def create(
        cls, trust_domain: str, *, now_s: float, lifetime_s: float = AUTHORITY_CERTIFICATE_S
    ) -> SiteAuthority:
        """Return a new CA for a trust domain.

        Raises:
            FederationInputError: the trust domain is none, or the lifetime too long.
        """
        check_trust_domain(trust_domain)
        _check_lifetime(lifetime_s, AUTHORITY_CERTIFICATE_S)
        key = new_key()
        name = authority_name(trust_domain)
        draft = _draft(name, name, key.public_key(), begins_s=now_s - CLOCK_SKEW_S, ends_s=now_s + lifetime_s)
        for value, critical in authority_extensions(trust_domain, key.public_key()):
            draft = draft.add_extension(value, critical)
        return cls(key, draft.sign(key, hashes.SHA256()), trust_domain=trust_domain)

    @classmethod
    def load(cls, key_pem: bytes, certificate_pem: bytes) -> SiteAuthority:
        """Return the CA that these two texts hold; one past its end is loaded, and signs nothing.

        Raises:
            IdentityError: one cannot be used, or they do not belong together.
        """
        key = key_from_pem(key_pem)
        certificate = read_certificate(certificate_pem)
        try:
            trust_domain = ".".join(reversed([str(one.value) for one in certificate.subject]))
            check_authority_shape(certificate, trust_domain)
        except (*PARSING, FederationInputError):
            raise IdentityError("the certificate is not that of a site's CA.") from None
        if spki_sha256(certificate.public_key()) != spki_sha256(key.public_key()):
            raise IdentityError(
                "the CA's certificate is not of the CA's key.", fix="restore both from one backup"
            )
        return cls(key, certificate, trust_domain=trust_domain)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, for everybody."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key, for the site's own key file alone."""
        return key_to_pem(self._key)

    def issue(
        self,
        csr_der: bytes,
        identity: NodeIdentity,
        *,
        now_s: float,
        lifetime_s: float = NODE_CERTIFICATE_S,
    ) -> bytes:
        """Return a node's certificate (PEM) for the key of a request (PKCS #10, DER).

        It begins a clock skew early, so that a node whose clock is behind can use it at once.

        Raises:
            IdentityError: the request is not exactly this node's; the sentence says what differs.
            FederationInputError: the node's name or the lifetime cannot be used.
            EnrolmentError: the CA itself has ended.
        """
        check_node(identity.node)
        if identity.trust_domain != self.trust_domain:
            raise FederationInputError(f"{identity.dns} is not below {self.trust_domain}.")
        key = _requested_key(csr_der, identity)
        return self._sign(key, node_names(identity), NODE_PURPOSES, now_s=now_s, lifetime_s=lifetime_s)

    def issue_join(self, *, now_s: float, lifetime_s: float = NODE_CERTIFICATE_S) -> tuple[bytes, bytes]:
        """Return a new key and its certificate (both PEM) for the enrolment port, ``join.TRUST-DOMAIN``.

        Raises:
            FederationInputError: the lifetime is too long.
            EnrolmentError: the CA itself has ended.
        """
        key = new_key()
        names = x509.SubjectAlternativeName([x509.DNSName(f"{JOIN_NAME}.{self.trust_domain}")])
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        pem = self._sign(key.public_key(), names, purposes, now_s=now_s, lifetime_s=lifetime_s)
        return key_to_pem(key), pem

    def _sign(
        self,
        public_key: ec.EllipticCurvePublicKey,
        names: x509.SubjectAlternativeName,
        purposes: x509.ExtendedKeyUsage,
        *,
        now_s: float,
        lifetime_s: float,
    ) -> bytes:
        _check_lifetime(lifetime_s, NODE_CERTIFICATE_S)
        begins_s, ends_s = times(self.certificate)
        if not begins_s <= now_s < ends_s:
            raise EnrolmentError(
                f"the CA of {self.trust_domain} is past its end, or not yet begun: it signs nothing.",
                fix="renew the site's CA, and check the clock of the gateway",
            )
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        draft = (
            _draft(
                x509.Name([]),
                self.certificate.subject,
                public_key,
                begins_s=max(begins_s, now_s - CLOCK_SKEW_S),
                ends_s=min(ends_s, now_s + lifetime_s),
            )
            .add_extension(names, critical=True)  # critical, since the subject is empty (RFC 5280, 4.2.1.6)
            .add_extension(LEAF_CONSTRAINTS, critical=True)
            .add_extension(LEAF_USAGE, critical=True)
            .add_extension(purposes, critical=False)
            .add_extension(signer, critical=False)
        )
        return draft.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def make_csr(key: ec.EllipticCurvePrivateKey, identity: NodeIdentity) -> bytes:
    """Return a node's request for its certificate (PKCS #10, DER). Each call gives other bytes."""
    draft = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = draft.add_extension(node_names(identity), critical=True).sign(key, hashes.SHA256())
    return signed.public_bytes(Encoding.DER)


def _requested_key(csr_der: bytes, identity: NodeIdentity) -> ec.EllipticCurvePublicKey:
    if len(csr_der) > MAX_REQUEST_BYTES:
        raise IdentityError(f"the certificate request has more than {MAX_REQUEST_BYTES} bytes.", fix=_AGAIN)
    try:
        request = x509.load_der_x509_csr(csr_der)
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not is_p256(key):
            raise IdentityError("the certificate request's key is not ECDSA on P-256.", fix=_AGAIN)
        if not request.is_signature_valid:
            raise IdentityError("the certificate request is not signed by its own key.", fix=_AGAIN)
        named = [(one.value, one.critical) for one in request.extensions]
        if request.subject != x509.Name([]) or named != [(node_names(identity), True)]:
            raise IdentityError(f"the certificate request does not ask for {identity.dns} alone.", fix=_AGAIN)
        if any(one.oid != _EXTENSION_REQUEST for one in request.attributes):
            raise IdentityError("the certificate request has attributes that no node's has.", fix=_AGAIN)
    except PARSING:
        raise IdentityError("the certificate request cannot be read.", fix=_AGAIN) from None
    return key


def _draft(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    *,
    begins_s: float,
    ends_s: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(int(begins_s), UTC))
        .not_valid_after(datetime.fromtimestamp(int(ends_s), UTC))
    )


def _check_lifetime(lifetime_s: float, longest_s: float) -> None:
    if not 0 < lifetime_s <= longest_s:
        raise FederationInputError(
            f"a lifetime of {lifetime_s:.0f} s is not between 0 and {longest_s:.0f} s."
        )
