"""The two shapes of certificate: a site's CA and a node; what the site writes and what everybody checks.

Rules: a CA signs nodes only (path length 0) and only names below its own trust domain (critical constraints
on DNS names and on URIs: with the former alone, TLS libraries accept a forged URI). Its extensions are these
four and no others. A node has no subject; its names are one DNS name and one URI, in this order. A node's
certificate may carry more than is known here, unless it is critical, so that sites can be upgraded one after
the other. No signature and no clock here.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from federation.errors import FederationInputError, IdentityError
from federation.identity.keys import is_p256
from federation.identity.names import NodeIdentity, check_trust_domain, parse_identity
from federation.limits import MAX_CERTIFICATE_PEM_BYTES

_PEM: Final = b"-----BEGIN CERTIFICATE-----"

PARSING: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the parser raises for bytes that are no certificate; parts of one are parsed when first read."""


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


AUTHORITY_USAGE: Final = _usage(signs_certificates=True)
LEAF_USAGE: Final = _usage(signs_certificates=False)
AUTHORITY_CONSTRAINTS: Final = x509.BasicConstraints(ca=True, path_length=0)
LEAF_CONSTRAINTS: Final = x509.BasicConstraints(ca=False, path_length=None)
NODE_PURPOSES: Final = x509.ExtendedKeyUsage(
    [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
)
_KNOWN_IN_LEAF: Final = frozenset(
    {
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)


def authority_name(trust_domain: str) -> x509.Name:
    """Return a CA's subject: the trust domain as domain components (RFC 2247), unlike any other site's."""
    labels = reversed(trust_domain.split("."))
    return x509.Name([x509.NameAttribute(NameOID.DOMAIN_COMPONENT, label) for label in labels])


def authority_extensions(
    trust_domain: str, public_key: ec.EllipticCurvePublicKey
) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    """Return a CA's extensions, each with whether it is critical."""
    permitted = [x509.DNSName(trust_domain), x509.UniformResourceIdentifier(trust_domain)]
    return (
        (AUTHORITY_CONSTRAINTS, True),
        (AUTHORITY_USAGE, True),
        (x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), True),
        (x509.SubjectKeyIdentifier.from_public_key(public_key), False),
    )


def node_names(identity: NodeIdentity) -> x509.SubjectAlternativeName:
    """Return the names of a node as its certificate and its request carry them."""
    return x509.SubjectAlternativeName(
        [x509.DNSName(identity.dns), x509.UniformResourceIdentifier(identity.uri)]
    )


def read_certificate(pem: bytes) -> x509.Certificate:
    """Return the one certificate that a PEM text holds.

    Raises:
        IdentityError: it is too long, or holds something else or more.
    """
    if len(pem) > MAX_CERTIFICATE_PEM_BYTES:
        raise IdentityError(f"the certificate has more than {MAX_CERTIFICATE_PEM_BYTES} bytes.")
    if not pem.isascii() or not pem.startswith(_PEM) or pem.count(b"-----BEGIN ") != 1:
        raise IdentityError("the text does not hold exactly one certificate in PEM.")
    try:
        return x509.load_pem_x509_certificate(pem)
    except PARSING:
        raise IdentityError("the certificate cannot be read.") from None


def check_authority_shape(certificate: x509.Certificate, trust_domain: str) -> None:
    """Check that a certificate is a CA's, made for this trust domain and no other.

    Raises:
        IdentityError: it is not; the sentence says what differs.
        FederationInputError: the trust domain is none.
    """
    whose = f"the CA certificate of {check_trust_domain(trust_domain)}"
    fix = "let the site make its CA with this software, for this trust domain"
    try:
        key = certificate.public_key()
        found = [(one.value, one.critical) for one in certificate.extensions]
        names = certificate.subject, certificate.issuer
    except PARSING:
        raise IdentityError(f"{whose} cannot be read.") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not is_p256(key):
        raise IdentityError(f"{whose} has a key that is not ECDSA on P-256.", fix=fix)
    expected = authority_extensions(trust_domain, key)
    for value, critical in expected:
        if (value, critical) not in found:
            raise IdentityError(f"{whose} lacks {_WORDS[type(value)]} or has another.", fix=fix)
    if len(found) != len(expected):
        raise IdentityError(f"{whose} has extensions that no site's CA has.", fix=fix)
    if names != (authority_name(trust_domain),) * 2:
        raise IdentityError(f"{whose} has another subject or issuer than its trust domain.", fix=fix)


_WORDS: Final[dict[type[x509.ExtensionType], str]] = {
    x509.BasicConstraints: "the mark of a CA that signs nodes alone (path length 0)",
    x509.KeyUsage: "the key usage of a CA",
    x509.NameConstraints: "critical constraints to its trust domain, for DNS names and for URIs",
    x509.SubjectKeyIdentifier: "its key's identifier",
}


def read_node(certificate: x509.Certificate) -> tuple[NodeIdentity, bytes]:
    """Return whom a certificate names, and the identifier of the CA key that it says has signed it.

    Raises:
        IdentityError: it has not the shape of a node's; the sentence says what differs.
    """
    try:
        extensions = {one.oid: one for one in certificate.extensions}
        key = certificate.public_key()
    except PARSING:
        raise IdentityError("the certificate cannot be read.") from None
    if any(one.critical and oid not in _KNOWN_IN_LEAF for oid, one in extensions.items()):
        raise IdentityError("the certificate has a critical extension that is not known here.")
    if _KNOWN_IN_LEAF - extensions.keys():
        raise IdentityError("the certificate lacks an extension that every node's has.")
    if extensions[ExtensionOID.BASIC_CONSTRAINTS].value != LEAF_CONSTRAINTS:
        raise IdentityError("the certificate is a CA's, and a CA is no node.")
    if (
        extensions[ExtensionOID.KEY_USAGE].value != LEAF_USAGE
        or extensions[ExtensionOID.EXTENDED_KEY_USAGE].value != NODE_PURPOSES
    ):
        raise IdentityError("the certificate is not made for a node's calls and answers.")
    if not is_p256(key):
        raise IdentityError("the certificate's key is not ECDSA on P-256.")
    signer = extensions[ExtensionOID.AUTHORITY_KEY_IDENTIFIER].value
    assert isinstance(signer, x509.AuthorityKeyIdentifier)
    return _identity(extensions[ExtensionOID.SUBJECT_ALTERNATIVE_NAME].value), signer.key_identifier or b""


def _identity(names: x509.ExtensionType) -> NodeIdentity:
    match list(names) if isinstance(names, x509.SubjectAlternativeName) else []:
        case [x509.DNSName(value=dns), x509.UniformResourceIdentifier(value=uri)]:
            try:
                return parse_identity(dns, uri)
            except FederationInputError as error:
                raise IdentityError(error.message) from None
    raise IdentityError("the certificate does not name exactly one DNS name and one URI, in this order.")
