"""How a node proves that it has an invite's secret, without sending it.

The proof is HMAC-SHA256 under a key derived from the secret (HKDF, RFC 5869; the site keeps that key, not the
secret) over everything that the join is about: the site's CA, the names, a nonce of each side, the
certificate request. A proof heard on the way is thus good for nothing else: not for another site, key, node
or moment.
"""

from __future__ import annotations

import hmac
from dataclasses import astuple, dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from federation.errors import FederationInputError
from federation.identity.names import check_label, check_trust_domain

NONCE_BYTES: Final = 32
_DIGEST_BYTES: Final = 32
_LABEL: Final = b"pyrdma-join-v1"


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a proof is about; both sides put it together from what they have, and none of it is sent as such.

    Attributes:
        authority_spki_sha256: the name of the CA's key, 32 bytes.
        trust_domain: the site's trust domain.
        node: the node that joins.
        node_nonce: 32 random bytes of the node.
        site_nonce: 32 random bytes of the site, used once.
        csr_sha256: SHA-256 of the certificate request's DER.

    Raises:
        FederationInputError: a part has not its size or form.
    """

    authority_spki_sha256: bytes
    trust_domain: str
    node: str
    node_nonce: bytes
    site_nonce: bytes
    csr_sha256: bytes

    def __post_init__(self) -> None:
        check_trust_domain(self.trust_domain)
        check_label(self.node, "node")
        if len(self.node_nonce) != NONCE_BYTES or len(self.site_nonce) != NONCE_BYTES:
            raise FederationInputError(f"the nonces of a join have {NONCE_BYTES} bytes each.")
        if len(self.authority_spki_sha256) != _DIGEST_BYTES or len(self.csr_sha256) != _DIGEST_BYTES:
            raise FederationInputError(f"the digests of a join have {_DIGEST_BYTES} bytes each.")

    def encode(self) -> bytes:
        """Return the bytes that are proven: each part after its length, so no two transcripts are alike."""
        parts = [_LABEL, *(one.encode("ascii") if isinstance(one, str) else one for one in astuple(self))]
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def proof_key(secret: bytes) -> bytes:
    """Return the key that an invite's secret is proven with; the site keeps it in the secret's place."""
    return derive(secret, _LABEL)


def prove(key: bytes, *, transcript: Transcript) -> bytes:
    """Return the proof of a key over a transcript, 32 bytes."""
    return hmac.digest(key, transcript.encode(), "sha256")


def verify(key: bytes, *, transcript: Transcript, proof: bytes) -> bool:
    """Say whether a proof is right, in a time that does not depend on where it is wrong."""
    return hmac.compare_digest(prove(key, transcript=transcript), proof)


def derive(secret: bytes, purpose: bytes) -> bytes:
    """Return a key for one purpose from an invite's secret (HKDF-SHA256, 32 bytes)."""
    return HKDF(hashes.SHA256(), length=32, salt=None, info=purpose).derive(secret)
