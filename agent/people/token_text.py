"""A token's text: what a laptop needs to reach its site's gateway and be believed, and one secret.

``pyrdma-token1.PAYLOAD.SECRET``, of the same make as an invite: JSON in base64url, then 16 bytes in base32.
Rules: there is one way to write a token, and what is written otherwise is refused; a check under the secret
covers the payload. The site's CA stands in it, so that nobody else is spoken to. The secret is in no repr and
in no error, and is never sent: ``proof`` is what goes over the wire.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from agent.errors import TokenError
from agent.limits import MAX_PERSON_CHARS, MAX_TOKEN_CHARS
from federation.errors import FederationError, FederationInputError
from federation.identity.keys import spki_sha256
from federation.identity.names import check_address, check_label, check_trust_domain
from federation.identity.proof import NONCE_BYTES, derive
from federation.identity.shape import check_authority_shape, read_certificate

SECRET_BYTES: Final = 16
TOKEN_ID_BYTES: Final = 8
_FORM: Final = "pyrdma-token1"
_KEYS: Final = ("address", "authority", "name", "site", "token_id", "trust_domain")
_CHECK: Final = b"pyrdma-token-check-v1"
_LABEL: Final = b"pyrdma-token-v1"
_CHECK_BYTES: Final = 8
_SECRET: Final = re.compile(r"[a-z2-7]{26}")
_COPY: Final = "copy the token again, as a whole, or ask the site for a new one"


@dataclass(frozen=True, slots=True)
class Token:
    """What a site gives to one person for one laptop.

    Args:
        address: ``HOST:PORT`` where the gateway takes laptops.
        authority_pem: the site CA's certificate.
        token_id: names the token at the site; no secret.
    """

    site: str
    trust_domain: str
    name: str
    address: str
    authority_pem: bytes
    token_id: bytes
    secret: bytes = field(repr=False)

    def encode(self) -> str:
        """Return the text. Whoever has it can run models under the token's account."""
        fields = {
            "address": self.address,
            "authority": self.authority_pem.decode("ascii"),
            "name": self.name,
            "site": self.site,
            "token_id": self.token_id.hex(),
            "trust_domain": self.trust_domain,
        }
        payload = _canonical(fields | {"check": _checked(fields, self.secret)})
        secret = base64.b32encode(self.secret).decode().rstrip("=").lower()
        return f"{_FORM}.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.{secret}"


def decode(text: str) -> Token:
    """Return the token of a text; white space around it does not count.

    Raises:
        TokenError: it holds none, or a damaged one.
    """
    text = text.strip()
    parts = text.split(".") if len(text) <= MAX_TOKEN_CHARS else []
    if len(parts) != 3 or parts[0] != _FORM:
        raise TokenError(f"the text is no token: one has three parts and begins with {_FORM}.", fix=_COPY)
    if not _SECRET.fullmatch(parts[2]):
        raise TokenError("the token is damaged: its last part is not 26 letters and digits.", fix=_COPY)
    secret = base64.b32decode(parts[2].upper() + "======")
    fields = _fields(parts[1])
    said = fields.pop("check", "")
    if not hmac.compare_digest(said.encode("utf-8", "replace"), _checked(fields, secret).encode()):
        raise TokenError("the token is damaged: a character was lost or changed.", fix=_COPY)
    token = _token(fields, secret)
    if token.encode() != text:
        raise TokenError("the token is damaged: it is not written the one way.", fix=_COPY)
    return token


def check_token_name(name: str) -> str:
    """Return a token's name, which is a label as a node's. Raises FederationInputError."""
    return check_label(name, "token")


def session_key(secret: bytes) -> bytes:
    """Return the key that a token's secret is proven with; the site keeps it in the secret's place."""
    return derive(secret, _LABEL)


def proof(
    key: bytes, *, authority_pem: bytes, token_id: bytes, client_nonce: bytes, server_nonce: bytes
) -> bytes:
    """Return the proof of a token for one session: HMAC-SHA256 over CA, token and nonces."""
    if len(client_nonce) != NONCE_BYTES or len(server_nonce) != NONCE_BYTES:
        raise FederationInputError(f"the nonces of a session have {NONCE_BYTES} bytes each.")
    parts = (
        _LABEL,
        spki_sha256(read_certificate(authority_pem).public_key()),
        token_id,
        client_nonce,
        server_nonce,
    )
    return hmac.digest(key, b"".join(len(one).to_bytes(4, "big") + one for one in parts), "sha256")


def _fields(part: str) -> dict[str, str]:
    try:
        padded = part + "=" * (-len(part) % 4)
        fields: Any = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError, binascii.Error):
        fields = None
    if not isinstance(fields, dict) or not all(isinstance(one, str) for one in fields.values()):
        raise TokenError("the token is damaged: its middle part cannot be read.", fix=_COPY)
    if sorted(fields) != sorted((*_KEYS, "check")):
        raise TokenError("the token says more or less than this agent knows.", fix="use the same version")
    return fields


def _token(fields: dict[str, str], secret: bytes) -> Token:
    try:
        token = Token(
            site=check_label(fields["site"], "site"),
            trust_domain=check_trust_domain(fields["trust_domain"]),
            name=check_token_name(fields["name"]),
            address=check_address(fields["address"]),
            authority_pem=fields["authority"].encode("ascii"),
            token_id=bytes.fromhex(fields["token_id"]),
            secret=secret,
        )
        check_authority_shape(read_certificate(token.authority_pem), token.trust_domain)
    except (FederationError, ValueError) as error:
        said = error.message if isinstance(error, FederationError) else "a value is of another form."
        raise TokenError(f"the token cannot be right: {said}", fix=_COPY) from None
    if len(token.token_id) != TOKEN_ID_BYTES or len(token.name) > MAX_PERSON_CHARS:
        raise TokenError("the token cannot be right: its id has a wrong size.", fix=_COPY)
    return token


def _canonical(fields: dict[str, str]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")


def _checked(fields: dict[str, str], secret: bytes) -> str:
    return hmac.digest(derive(secret, _CHECK), _canonical(fields), "sha256")[:_CHECK_BYTES].hex()
