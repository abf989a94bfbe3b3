"""What a site hands to the consortium's signers: its document, and proof that it holds the keys named there.

Each CA key, the models key and the receipts key sign the document's bytes as they stand in the request. A
site can therefore not enter another's CA or key as its own. Proofs say nothing about who asks: that is for
the signers to find out, by a call in which both sides read the CA's fingerprint.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from federation.errors import FederationInputError, IdentityError
from federation.identity.keys import fingerprint, is_p256, spki_sha256
from federation.identity.shape import read_certificate
from federation.limits import MAX_AUTHORITIES_PER_SITE, MAX_SITE_REQUEST_BYTES
from federation.registry.documents import (
    SCHEMA,
    SiteDocument,
    canonical,
    decode_site,
    encode_site,
    parse_object,
)

_CONTEXT: Final = b"pyrdma site request v1\0"
_FIX: Final = "make the request again with pyrdma-agent init"


@dataclass(frozen=True, slots=True)
class SiteRequest:
    """A site's document with its proofs, verified by whoever made this object.

    Args:
        document: what the site asks to be entered.
        text: the bytes that were signed; they may hold keys of a newer version that ``document`` lacks.
        authority_proofs: one signature for each of the document's authorities, in their order.
        models_proof: the signature of the models key.
        receipts_proof: the signature of the receipts key; empty where the document names none.
    """

    document: SiteDocument
    text: bytes
    authority_proofs: tuple[bytes, ...]
    models_proof: bytes
    receipts_proof: bytes = b""


def make_request(
    document: SiteDocument,
    authority_keys: Sequence[ec.EllipticCurvePrivateKey],
    models_key: Ed25519PrivateKey,
    receipts_key: Ed25519PrivateKey | None = None,
) -> SiteRequest:
    """Return the request for a document; ``authority_keys`` in the order of its authorities.

    Raises:
        FederationInputError: a key does not belong to the document.
    """
    text = encode_site(document)
    signed = _CONTEXT + text
    request = SiteRequest(
        document,
        text,
        tuple(key.sign(signed, ec.ECDSA(hashes.SHA256())) for key in authority_keys),
        models_key.sign(signed),
        receipts_key.sign(signed) if receipts_key is not None else b"",
    )
    _verify(request)
    return request


def encode_request(request: SiteRequest) -> bytes:
    """Return the request as the content of a file."""
    fields = {
        "schema": SCHEMA,
        "document": request.text.decode("utf-8"),
        "authority_proofs": [base64.b64encode(one).decode("ascii") for one in request.authority_proofs],
        "models_proof": base64.b64encode(request.models_proof).decode("ascii"),
    }
    if request.receipts_proof:
        fields["receipts_proof"] = base64.b64encode(request.receipts_proof).decode("ascii")
    return canonical(fields)


def decode_request(data: bytes) -> SiteRequest:
    """Return the request that the bytes hold, its proofs verified.

    Raises:
        FederationInputError: they hold none, or a proof is wrong.
    """
    fields = parse_object(data, max_bytes=MAX_SITE_REQUEST_BYTES, what="a site's request")
    if fields.get("schema") != SCHEMA or isinstance(fields["schema"], bool):
        raise FederationInputError(
            f"the request has a schema that this version does not know; it knows {SCHEMA}.",
            fix="upgrade pyrdma-agent",
        )
    text, proofs = fields.get("document"), fields.get("authority_proofs")
    if not isinstance(text, str) or not isinstance(proofs, list) or len(proofs) > MAX_AUTHORITIES_PER_SITE:
        raise FederationInputError("the request lacks its document or its proofs.", fix=_FIX)
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FederationInputError("the request's document is no text.", fix=_FIX) from error
    request = SiteRequest(
        decode_site(raw),
        raw,
        tuple(_bytes(one) for one in proofs),
        _bytes(fields.get("models_proof")),
        _bytes(fields["receipts_proof"]) if "receipts_proof" in fields else b"",
    )
    _verify(request)
    return request


def authority_key(pem: str) -> ec.EllipticCurvePublicKey:
    """Return the public key of a CA certificate.

    Raises:
        FederationInputError: it is no certificate, or has a key other than P-256.
    """
    try:
        key = read_certificate(pem.encode("utf-8")).public_key()
    except (IdentityError, ValueError, UnsupportedAlgorithm) as error:
        raise FederationInputError("one of the site's authorities is no certificate.", fix=_FIX) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not is_p256(key):
        raise FederationInputError("a site's CA has an ECDSA P-256 key, and this one has another.", fix=_FIX)
    return key


def load_models_key(pem: str) -> Ed25519PublicKey:
    """Return the key that signs a site's list of models.

    Raises:
        FederationInputError: it is no Ed25519 public key.
    """
    return _ed25519(pem, "models key")


def load_receipts_key(pem: str) -> Ed25519PublicKey:
    """Return the key that signs a site's requests and receipts.

    Raises:
        FederationInputError: it is no Ed25519 public key.
    """
    return _ed25519(pem, "receipts key")


def load_auditor_key(pem: str) -> Ed25519PublicKey:
    """Return the key that signs an auditor's resolutions.

    Raises:
        FederationInputError: it is no Ed25519 public key.
    """
    return _ed25519(pem, "auditor's key", whose="an", fix="ask the auditor for the public key, in PEM")


def authority_fingerprint(pem: str) -> str:
    """Return the fingerprint of a CA's public key, for people to compare by phone.

    Raises:
        FederationInputError: it is no certificate of a CA that a site can have.
    """
    return fingerprint(spki_sha256(authority_key(pem)))


def receipts_fingerprint(pem: str) -> str:
    """Return the fingerprint of a site's receipts key, for people to compare by phone.

    Raises:
        FederationInputError: it is no Ed25519 public key.
    """
    return fingerprint(spki_sha256(load_receipts_key(pem)))


def _ed25519(pem: str, what: str, *, whose: str = "the site's", fix: str = _FIX) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem.encode("utf-8"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FederationInputError(f"{whose} {what} is no public key.", fix=fix) from error
    if not isinstance(key, Ed25519PublicKey):
        raise FederationInputError(f"{whose} {what} is an Ed25519 key, and this one is another.", fix=fix)
    return key


def _verify(request: SiteRequest) -> None:
    signed = _CONTEXT + request.text
    if request.document.former_receipts_keys:
        raise FederationInputError(
            "which receipts keys a site had before is for the signers to note.", fix=_FIX
        )
    keys = [authority_key(pem) for pem in request.document.authorities]
    if len(keys) != len(request.authority_proofs):
        raise FederationInputError("the request needs one proof for each CA of the site.", fix=_FIX)
    for key, proof in zip(keys, request.authority_proofs, strict=True):
        try:
            key.verify(proof, signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise FederationInputError("the request is not signed by the site's CA key.", fix=_FIX) from error
    try:
        load_models_key(request.document.models_key).verify(request.models_proof, signed)
    except InvalidSignature as error:
        raise FederationInputError("the request is not signed by the site's models key.", fix=_FIX) from error
    if not request.document.receipts_key:
        return
    try:
        load_receipts_key(request.document.receipts_key).verify(request.receipts_proof, signed)
    except InvalidSignature as error:
        raise FederationInputError(
            "the request is not signed by the site's receipts key.", fix=_FIX
        ) from error


def _bytes(value: object) -> bytes:
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise FederationInputError("a proof of the request is no Base64 text.", fix=_FIX)
