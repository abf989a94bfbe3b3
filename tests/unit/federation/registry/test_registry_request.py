"""A site's request: proof that it holds the keys that it names."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from federation.errors import FederationInputError
from federation.identity.authority import SiteAuthority
from federation.identity.keys import key_from_pem
from federation.registry.documents import GatewayAddress, SiteDocument, canonical
from federation.registry.request import (
    authority_fingerprint,
    decode_request,
    encode_request,
    make_request,
)

NOW = 1_800_000_000.0


def public(key: Any) -> str:
    """Return the PEM of a key's public half."""
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


AUTHORITY = SiteAuthority.create("uni-a.example", now_s=NOW)
CA_KEY = key_from_pem(AUTHORITY.key_pem)
MODELS_KEY = Ed25519PrivateKey.generate()
DOCUMENT = SiteDocument(
    "uni-a",
    "uni-a.example",
    (AUTHORITY.certificate_pem.decode(),),
    (GatewayAddress("gpu01", "gpu01.uni-a.example:7443"),),
    public(MODELS_KEY),
    "",
)
REQUEST = make_request(DOCUMENT, [CA_KEY], MODELS_KEY)


def changed(**changes: Any) -> bytes:
    """Return the request file with some fields changed."""
    return canonical({**json.loads(encode_request(REQUEST)), **changes})


def test_a_request_survives_its_file() -> None:
    """What the site signed is what the signers see."""
    assert decode_request(encode_request(REQUEST)) == REQUEST


def test_a_changed_document_is_refused() -> None:
    """Another gateway, slipped in on the way, breaks the proofs."""
    text = REQUEST.text.decode().replace("gpu01.uni-a", "evil1.uni-a")
    with pytest.raises(FederationInputError, match="CA key"):
        decode_request(changed(document=text))


def test_keys_of_a_newer_version_are_signed_too() -> None:
    """The proofs are over the text as the site wrote it, not over what this version understands of it."""
    text = canonical({**json.loads(REQUEST.text), "tunnel": "x"}).decode()
    with pytest.raises(FederationInputError, match="CA key"):
        decode_request(changed(document=text))


def test_a_stolen_certificate_is_not_enough() -> None:
    """Whoever enters another's CA needs its key, and says so at the making."""
    with pytest.raises(FederationInputError, match="CA key"):
        make_request(DOCUMENT, [ec.generate_private_key(ec.SECP256R1())], MODELS_KEY)


def test_a_models_key_needs_its_own_proof() -> None:
    """A site cannot enter another's models key as its own."""
    with pytest.raises(FederationInputError, match="models key"):
        make_request(DOCUMENT, [CA_KEY], Ed25519PrivateKey.generate())
    wrong = base64.b64encode(b"\0" * 64).decode()
    with pytest.raises(FederationInputError, match="models key"):
        decode_request(changed(models_proof=wrong))


def test_each_of_two_authorities_is_proven() -> None:
    """While one CA takes over from the other, both keys sign."""
    second = SiteAuthority.create("uni-a.example", now_s=NOW)
    both = replace(DOCUMENT, authorities=(*DOCUMENT.authorities, second.certificate_pem.decode()))
    request = make_request(both, [CA_KEY, key_from_pem(second.key_pem)], MODELS_KEY)
    assert decode_request(encode_request(request)) == request
    with pytest.raises(FederationInputError, match="one proof for each CA"):
        make_request(both, [CA_KEY], MODELS_KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"document": None},
        {"document": "{}"},
        {"document": "\ud800"},
        {"authority_proofs": "x"},
        {"authority_proofs": []},
        {"authority_proofs": ["x"] * 3},
        {"authority_proofs": ["not base64!"]},
        {"models_proof": 7},
        {"models_proof": "é"},
    ],
)
def test_a_malformed_request_is_refused(changes: dict[str, Any]) -> None:
    """With a sentence, whatever is wrong with it."""
    with pytest.raises(FederationInputError):
        decode_request(changed(**changes))


def test_other_kinds_of_key_are_refused() -> None:
    """A CA is P-256 and a models key is Ed25519: nothing else was tried."""
    with pytest.raises(FederationInputError, match="Ed25519"):
        make_request(replace(DOCUMENT, models_key=public(CA_KEY)), [CA_KEY], MODELS_KEY)
    weak = rsa.generate_private_key(65537, 2048)
    with pytest.raises(FederationInputError, match="no certificate"):
        make_request(replace(DOCUMENT, authorities=(public(weak),)), [CA_KEY], MODELS_KEY)


def test_the_fingerprint_is_that_of_the_key() -> None:
    """Two certificates of one CA key read the same on the phone; those of two keys do not."""
    spoken = authority_fingerprint(DOCUMENT.authorities[0])
    assert len(spoken.split()) == 16
    other = SiteAuthority.create("uni-a.example", now_s=NOW).certificate_pem.decode()
    assert authority_fingerprint(other) != spoken
