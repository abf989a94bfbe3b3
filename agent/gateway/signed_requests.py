"""Requests between gateways as their sites sign them: made by the borrower, checked by the donor.

Rules: a request carries the same signed bytes wherever and however often it is asked, so that a donor's queue
can be checked by anybody later; a donor takes it from the site that its certificate names, once it has
checked it, and remembers that while it waits. When there are too many, it forgets the oldest one of the
site that has most.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.daemon.faces import OfferRequest
from agent.gateway.core.request import NO_PURPOSE
from agent.limits import MAX_REQUESTS_KNOWN
from federation.ledger.request import RequestBody, SignedRequest, encode_request, open_request, sign_request
from federation.ledger.signing import Keys
from federation.policy.policy import ANY, Policy


def default_purpose(policy: Policy | None) -> str:
    """Return the purpose of who names none: the first in the policy that anybody may claim; else none."""
    purposes = policy.purposes.values() if policy is not None else ()
    return next((one.name for one in purposes if ANY in one.claimants), "")


def signed(request: OfferRequest, site: str, key: Ed25519PrivateKey, unix_s: int) -> OfferRequest:
    """Return a request of a site as it signs it, asked now.

    Raises:
        ReceiptError: a field is outside its bounds.
    """
    asked = replace(request, asked_at_s=unix_s, nonce=secrets.token_hex(16))
    return replace(asked, signature=sign_request(key, body_of(asked, site)).signature)


def body_of(request: OfferRequest, site: str) -> RequestBody:
    """Return what a site signs of its request."""
    return RequestBody(
        id=request.request_id,
        borrower=site,
        account=request.account,
        purpose=request.purpose or NO_PURPOSE,
        model=request.model,
        image_id=request.image_id.hex(),
        devices=request.devices,
        duration_s=request.duration_s,
        min_runtime_s=None,
        instant=request.instant,
        asked_at_s=request.asked_at_s,
        nonce=request.nonce,
    )


class KnownRequests:
    """The requests that a donor has checked.

    Args:
        keys: returns all sites' keys as they are now.
        unix_s: Unix time.
    """

    def __init__(self, keys: Callable[[], Keys], unix_s: Callable[[], float]) -> None:
        self._keys = keys
        self._unix_s = unix_s
        self._known: dict[str, OrderedDict[str, bytes]] = {}
        self._count = 0

    def check(self, request: OfferRequest, site: str) -> SignedRequest | None:
        """Check a request; return it as it was signed when it comes for the first time, else nothing.

        Raises:
            ReceiptError: it is not signed by the site that brings it, or too old, or outside its bounds.
        """
        body = encode_request(body_of(request, site))
        known = self._known.setdefault(site, OrderedDict())
        contents = hashlib.sha256(body + request.signature).digest()
        if known.get(request.request_id) == contents:
            known.move_to_end(request.request_id)
            return None
        said = SignedRequest(body, request.signature)
        open_request(said, self._keys(), borrower=site, now_s=int(self._unix_s()))
        self._count += request.request_id not in known
        known[request.request_id] = contents
        known.move_to_end(request.request_id)
        while self._count > MAX_REQUESTS_KNOWN:
            max(self._known.values(), key=len).popitem(last=False)
            self._count -= 1
        return said
