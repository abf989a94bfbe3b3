"""Keys of nodes and site CAs: ECDSA on P-256, the one kind that TLS, gRPC and hardware keys all carry.

A key is named by the SHA-256 of its public part (SPKI), never by a certificate's digest: a changed copy of a
certificate can verify and have another digest. Where PEM text is kept, and who may read it, is the agent's
part.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from federation.errors import IdentityError

_GROUP_CHARS: Final = 4


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key as PKCS #8 in PEM, without a password: a node must start without anybody there."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_from_pem(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the key that a PEM text holds.

    Raises:
        IdentityError: it holds none, or one that is not on P-256.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise IdentityError("this is no private key in PEM without a password.") from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise IdentityError("the private key is not an ECDSA key on P-256, the one kind in use here.")


def is_p256(key: PublicKeyTypes) -> bool:
    """Say whether a public key is of the one kind in use."""
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def spki_sha256(public_key: PublicKeyTypes) -> bytes:
    """Return the name of a public key: SHA-256 over its SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) in DER."""
    return hashlib.sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def fingerprint(digest: bytes) -> str:
    """Return a digest for people who compare it by eye or by phone: hexadecimal in groups of four."""
    text = digest.hex()
    return " ".join(text[at : at + _GROUP_CHARS] for at in range(0, len(text), _GROUP_CHARS))
