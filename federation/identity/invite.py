"""The invite: a text that carries all that a node needs to join its site, and one secret.

``pyrdma1.PAYLOAD.SECRET``: the payload is JSON in base64url, the secret 16 bytes in base32, both without
padding. Rules: there is one way to write an invite, and what is written otherwise is refused; a check under
the secret covers the payload, so a lost or changed character is found before anything is sent. The site's CA
and the registry's digest stand in it: a node that joins fetches nothing before it trusts. The secret is in no
repr and in no error's text. How the secret is proven is in ``proof.py``, when a
site admits a node in ``admission.py``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from federation.errors import FederationInputError, IdentityError, InviteError
from federation.identity.names import check_address, check_label, check_node, check_trust_domain
from federation.identity.proof import derive
from federation.identity.shape import check_authority_shape, read_certificate
from federation.limits import MAX_INVITE_CHARS, MAX_REGISTRY_SOURCES, MAX_SOURCE_CHARS

SECRET_BYTES: Final = 16
TOKEN_ID_BYTES: Final = 8
PIN_BYTES: Final = hashlib.sha256().digest_size

_FORM: Final = "pyrdma1"
_ANY_FORM: Final = re.compile(r"pyrdma[0-9]{1,4}")
_SECRET: Final = re.compile(r"[a-z2-7]{26}")
_CHECK_BYTES: Final = 8
_KEYS: Final = frozenset(
    {
        "address",
        "authority",
        "check",
        "node",
        "registry_pin",
        "registry_sources",
        "site",
        "token_id",
        "trust_domain",
    }
)
_COPY: Final = "copy the invite again, as a whole, or ask the site for a new one"
_UPGRADE: Final = "upgrade this agent, or ask the site for an invite made by the version that runs here"


@dataclass(frozen=True, slots=True)
class Invite:
    """What a site gives to one node.

    Attributes:
        site: the site's name.
        trust_domain: the site's trust domain.
        node: the one node that may join with it.
        address: ``HOST:PORT`` of the site's enrolment port.
        token_id: names the invite at the site, 8 bytes; no secret.
        authority_pem: the site CA's certificate.
        registry_pin: SHA-256 of the registry's first root; empty where the site is in no consortium.
        registry_sources: where the registry can be read.
        secret: 16 random bytes.

    Raises:
        FederationInputError: a name or the address is none.
        IdentityError: the certificate is not that of the trust domain's CA.
        InviteError: anything else that cannot be in an invite.
    """

    site: str
    trust_domain: str
    node: str
    address: str
    token_id: bytes
    authority_pem: bytes
    registry_pin: bytes
    registry_sources: tuple[str, ...]
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_label(self.site, "site")
        check_trust_domain(self.trust_domain)
        check_node(self.node)
        check_address(self.address)
        if len(self.token_id) != TOKEN_ID_BYTES or len(self.secret) != SECRET_BYTES:
            raise InviteError(
                f"an invite has an id of {TOKEN_ID_BYTES} bytes and a secret of {SECRET_BYTES}."
            )
        if len(self.registry_pin) not in (0, PIN_BYTES):
            raise InviteError(f"an invite's registry pin has {PIN_BYTES} bytes, or none.")
        if len(self.registry_sources) > MAX_REGISTRY_SOURCES:
            raise InviteError(f"an invite names at most {MAX_REGISTRY_SOURCES} places of the registry.")
        if not all(_is_source(one) for one in self.registry_sources):
            raise InviteError(
                f"a place of the registry is 1 to {MAX_SOURCE_CHARS} printable ASCII characters."
            )
        check_authority_shape(read_certificate(self.authority_pem), self.trust_domain)

    def encode(self) -> str:
        """Return the invite's text. Whoever has it can join in the node's place."""
        fields: dict[str, object] = {
            "address": self.address,
            "authority": self.authority_pem.decode("ascii"),
            "node": self.node,
            "registry_pin": self.registry_pin.hex(),
            "registry_sources": list(self.registry_sources),
            "site": self.site,
            "token_id": self.token_id.hex(),
            "trust_domain": self.trust_domain,
        }
        payload = _canonical(fields | {"check": _check(fields, self.secret)})
        secret = base64.b32encode(self.secret).decode().rstrip("=").lower()
        return f"{_FORM}.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.{secret}"


def decode(text: str) -> Invite:
    """Return the invite that a text holds; white space around it does not count.

    Raises:
        InviteError: it holds none, a damaged one, or one of a newer agent; the sentence says which.
    """
    text = text.strip()
    if len(text) > MAX_INVITE_CHARS:
        raise InviteError(
            f"the text has more than {MAX_INVITE_CHARS} characters: it is no invite.", fix=_COPY
        )
    form, *parts = text.split(".")
    if form != _FORM and _ANY_FORM.fullmatch(form):
        raise InviteError("the invite is of a form that this agent does not know.", fix=_UPGRADE)
    if form != _FORM or len(parts) != 2:
        raise InviteError(f"the text is no invite: one has three parts and begins with {_FORM}.", fix=_COPY)
    secret, fields = _secret(parts[1]), _fields(parts[0])
    found = fields.pop("check", None)
    if not isinstance(found, str) or not hmac.compare_digest(
        found.encode("utf-8", "replace"), _check(fields, secret).encode()
    ):
        raise InviteError("the invite is damaged: a character was lost or changed.", fix=_COPY)
    return _invite(fields, secret, text)


def _secret(part: str) -> bytes:
    if not _SECRET.fullmatch(part):
        raise InviteError("the invite is damaged: its last part is not 26 letters and digits.", fix=_COPY)
    return base64.b32decode(part.upper() + "======")


def _fields(part: str) -> dict[str, Any]:
    try:
        fields = json.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError, binascii.Error):
        fields = None
    if not isinstance(fields, dict):
        raise InviteError("the invite is damaged: its middle part cannot be read.", fix=_COPY)
    for value in fields.values():
        if not all(isinstance(one, str) for one in (value if isinstance(value, list) else [value])):
            raise InviteError("the invite has a value that is neither text nor a list of texts.", fix=_COPY)
    return fields


def _invite(fields: dict[str, Any], secret: bytes, text: str) -> Invite:
    keys = fields.keys() | {"check"}
    if keys - _KEYS:
        raise InviteError("the invite says more than this agent knows.", fix=_UPGRADE)
    if _KEYS - keys:
        raise InviteError(f"the invite lacks {', '.join(sorted(_KEYS - keys))}.", fix=_COPY)
    if {key for key, value in fields.items() if isinstance(value, list)} != {"registry_sources"}:
        raise InviteError("the invite has a list where a text belongs, or a text for a list.", fix=_COPY)
    try:
        invite = Invite(
            site=fields["site"],
            trust_domain=fields["trust_domain"],
            node=fields["node"],
            address=fields["address"],
            token_id=bytes.fromhex(fields["token_id"]),
            authority_pem=fields["authority"].encode("ascii"),
            registry_pin=bytes.fromhex(fields["registry_pin"]),
            registry_sources=tuple(fields["registry_sources"]),
            secret=secret,
        )
    except (FederationInputError, IdentityError) as error:
        raise InviteError(f"the invite cannot be right: {error.message}", fix=_COPY) from None
    except ValueError:
        raise InviteError(
            "the invite cannot be right: it has a value that is not in hexadecimal or ASCII.", fix=_COPY
        ) from None
    if invite.encode() != text:
        raise InviteError("the invite is damaged: it is not written the one way.", fix=_COPY)
    return invite


def _is_source(text: str) -> bool:
    return 0 < len(text) <= MAX_SOURCE_CHARS and text.isascii() and text.isprintable()


def _canonical(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")


def _check(fields: dict[str, object], secret: bytes) -> str:
    key = derive(secret, b"pyrdma-invite-v1")
    return hmac.digest(key, _canonical(fields), "sha256")[:_CHECK_BYTES].hex()
