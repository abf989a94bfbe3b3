"""A request for a lease, signed by the borrower's site, so that a donor's queue can be checked afterwards.

Rules: the site signs who asks for what and when, with a nonce of its own; a donor takes a request once for
each ``id``, only from the site that its certificate names, within ``REQUEST_LIFE_S`` after ``asked_at_s``
and not ahead of our clock by more than the skew. Asking again with the same id carries the same bytes.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.errors import ReceiptError
from federation.ledger import document
from federation.ledger.document import ACCOUNT_FORM, HEX32_FORM, ID_FORM, LABEL_FORM
from federation.ledger.signing import REQUEST, Keys, sign, verifies
from federation.limits import (
    LEDGER_CLOCK_LEAD_S,
    MAX_RECEIPT_DEVICES,
    MAX_SIGNED_REQUEST_BYTES,
    REQUEST_LIFE_S,
)

_WHAT: Final = "a signed request"
_MODEL: Final = re.compile(r"[\x21-\x7e]{1,160}")
_NONCE: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBody:
    """What a borrower's site asks for.

    Args:
        id: the borrower's own; with its site it names the request.
        borrower: the site.
        account, purpose: who is charged, and what it is for.
        model: the name to serve it under.
        image_id: the image, 64 hex digits.
        devices: how many.
        duration_s: for how long at most; 0: as long as the donor lends.
        min_runtime_s: what it wants to count on; ``None``: what the policy gives.
        instant: whether it may be ended at once, so that idle reserve can be lent to it.
        asked_at_s: Unix time of the first asking, by the borrower's clock.
        nonce: 32 hex digits, random.
    """

    id: str
    borrower: str
    account: str
    purpose: str
    model: str
    image_id: str
    devices: int
    duration_s: int
    min_runtime_s: int | None
    instant: bool
    asked_at_s: int
    nonce: str


_KEYS: Final = frozenset(RequestBody.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request as it travels: the canonical bytes, and Ed25519 over them."""

    body: bytes
    signature: bytes


def encode_request(request: RequestBody) -> bytes:
    """Return the one form of a request.

    Raises:
        ReceiptError: a field is outside its bounds.
    """
    body = document.write(asdict(request))
    decode_request(body)
    return body


def decode_request(body: bytes) -> RequestBody:
    """Return the request that the bytes hold.

    Raises:
        ReceiptError: they hold none in its one form.
    """
    fields = document.read(body, _KEYS, max_bytes=MAX_SIGNED_REQUEST_BYTES, what=_WHAT)
    least = fields["min_runtime_s"]
    if not isinstance(fields["instant"], bool):
        raise document.wrong(_WHAT, "instant")
    return RequestBody(
        id=document.text(fields, "id", ID_FORM, _WHAT),
        borrower=document.text(fields, "borrower", LABEL_FORM, _WHAT),
        account=document.text(fields, "account", ACCOUNT_FORM, _WHAT),
        purpose=document.text(fields, "purpose", LABEL_FORM, _WHAT),
        model=document.text(fields, "model", _MODEL, _WHAT),
        image_id=document.text(fields, "image_id", HEX32_FORM, _WHAT),
        devices=document.number(fields, "devices", _WHAT, least=1, most=MAX_RECEIPT_DEVICES),
        duration_s=document.number(fields, "duration_s", _WHAT),
        min_runtime_s=None if least is None else document.number(fields, "min_runtime_s", _WHAT),
        instant=fields["instant"],
        asked_at_s=document.number(fields, "asked_at_s", _WHAT),
        nonce=document.text(fields, "nonce", _NONCE, _WHAT),
    )


def sign_request(key: Ed25519PrivateKey, request: RequestBody) -> SignedRequest:
    """Return a request signed with the borrower site's receipts key."""
    body = encode_request(request)
    return SignedRequest(body, sign(key, REQUEST, body))


def open_request(signed: SignedRequest, keys: Keys, *, borrower: str, now_s: int) -> RequestBody:
    """Return what a request asks for, after every check.

    Args:
        signed: as it came.
        keys: of all sites.
        borrower: the site that brings it, as its certificate says.
        now_s: our clock, Unix time.

    Raises:
        ReceiptError: it is another site's, is not signed by it, is too old, or lies ahead.
    """
    request = decode_request(signed.body)
    if request.borrower != borrower:
        raise ReceiptError(f"{borrower} brings a request of {request.borrower}.")
    if not verifies(keys.of(borrower, request.asked_at_s), REQUEST, signed.body, signed.signature):
        raise ReceiptError(
            f"the request is not signed with a receipts key of {borrower}.",
            fix="compare the site's key with the one in the registry",
        )
    if request.asked_at_s > now_s + LEDGER_CLOCK_LEAD_S:
        raise ReceiptError(
            f"the request was made {request.asked_at_s - now_s} s ahead of our clock.",
            fix="set both machines' clocks by NTP",
        )
    if request.asked_at_s < now_s - REQUEST_LIFE_S:
        raise ReceiptError("the request is too old.", fix="ask anew")
    return request
