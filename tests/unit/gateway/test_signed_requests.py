"""Requests as sites sign them: what a donor takes, what it remembers, whom a flood of them hurts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.daemon.faces import OfferRequest
from agent.gateway import signed_requests
from agent.gateway.signed_requests import KnownRequests, signed
from federation.errors import ReceiptError
from federation.ledger.signing import KeyOfSite, Keys
from federation.limits import LEDGER_CLOCK_LEAD_S, REQUEST_LIFE_S
from pyrdma.image.manifest import ImageId

NOW_S = 1_700_000_000
KEYS = {site: Ed25519PrivateKey.generate() for site in ("uni-a", "uni-b", "uni-c")}
KNOWN = Keys({site: (KeyOfSite(key.public_key().public_bytes_raw()),) for site, key in KEYS.items()})
REQUEST = OfferRequest(
    request_id="r1",
    model="uni-a/m",
    image_id=ImageId(b"\x07" * 32),
    total_bytes=10,
    devices=1,
    node="",
    borrower_node="b1",
    account="/uni-b/lab",
    purpose="research",
)


class Clock:
    """Unix time that only the test moves."""

    def __init__(self) -> None:
        self.now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


def asked(request_id: str = "r1", site: str = "uni-b", at_s: int = NOW_S) -> OfferRequest:
    """A request as its site signs it."""
    return signed(replace(REQUEST, request_id=request_id), site, KEYS[site], at_s)


def known(clock: Callable[[], float]) -> KnownRequests:
    """A donor that has checked nothing yet."""
    return KnownRequests(lambda: KNOWN, clock)


def test_a_request_is_checked_once_and_may_wait_longer_than_it_may_be_old() -> None:
    """Asking again with the same bytes is no new request, however old it is by then."""
    clock = Clock()
    donor, request = known(clock), asked()
    first = donor.check(request, "uni-b")
    assert first is not None
    assert first.signature == request.signature
    clock.now_s += REQUEST_LIFE_S + 1
    assert donor.check(request, "uni-b") is None
    with pytest.raises(ReceiptError, match="too old"):
        known(clock).check(request, "uni-b")


def test_what_was_not_signed_by_who_brings_it_is_not_taken() -> None:
    """Another site's, a changed one, one without a signature, one of the future: refused each time."""
    donor, request = known(Clock()), asked()
    for wrong, site in (
        (request, "uni-c"),
        (replace(request, devices=2), "uni-b"),
        (replace(request, account="/uni-c"), "uni-b"),
        (replace(request, signature=b""), "uni-b"),
        (asked(at_s=NOW_S + LEDGER_CLOCK_LEAD_S + 1), "uni-b"),
        (replace(request, account="no account"), "uni-b"),
    ):
        for _ in range(2):
            with pytest.raises(ReceiptError):
                donor.check(wrong, site)
    assert donor.check(request, "uni-b") is not None


def test_the_same_id_with_other_contents_is_another_request() -> None:
    """It is checked anew; whoever copies an id has to sign for it."""
    donor = known(Clock())
    assert donor.check(asked(), "uni-b") is not None
    with pytest.raises(ReceiptError):
        donor.check(replace(asked(), devices=3), "uni-b")
    assert donor.check(asked(), "uni-b") is not None


def test_a_flood_of_one_site_makes_a_donor_forget_no_other_sites_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The flooder's own oldest ones go; what is remembered is bounded."""
    monkeypatch.setattr(signed_requests, "MAX_REQUESTS_KNOWN", 50)
    clock = Clock()
    donor, honest = known(clock), [asked(f"h{at}", "uni-c") for at in range(10)]
    for request in honest:
        donor.check(request, "uni-c")
    flood = [asked(f"f{at}") for at in range(120)]
    for request in flood:
        donor.check(request, "uni-b")
    clock.now_s += REQUEST_LIFE_S + 1
    assert [donor.check(request, "uni-c") for request in honest] == [None] * 10
    kept = 0
    for request in flood:
        try:
            kept += donor.check(request, "uni-b") is None
        except ReceiptError:
            continue
    assert kept == 40


def test_two_signings_of_one_wish_differ() -> None:
    """Each has a nonce of its own, so that no signature says more than its one request."""
    assert asked().nonce != asked().nonce
    assert asked().signature != asked().signature
