"""The key of a site's receipts: proven by its site, entered by the signers, remembered when replaced."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from federation.errors import FederationInputError, NotAdmittedError
from federation.limits import MAX_FORMER_RECEIPTS_KEYS
from federation.registry.documents import FormerKey, SiteDocument, canonical, decode_site, encode_site
from federation.registry.membership import ReceiptsKey
from federation.registry.request import decode_request, encode_request, make_request, receipts_fingerprint

NOW = 1_800_000_000.0


def public(key: Ed25519PrivateKey) -> str:
    """Return a key's public half as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def loaded(pem: str) -> Ed25519PublicKey:
    """Return a public key."""
    key = load_pem_public_key(pem.encode())
    assert isinstance(key, Ed25519PublicKey)
    return key


def members(world: Any, *, now_s: float = NOW) -> Any:
    """Return what a new reader believes."""
    return world.client().refresh(now_s=now_s)


def test_a_document_without_one_has_the_bytes_that_it_always_had(make_site: Any) -> None:
    """Older signers' documents stay readable, and one that names a key reads back the same."""
    document: SiteDocument = make_site("site-a").document
    assert "receipts_key" not in json.loads(encode_site(document))
    assert decode_site(encode_site(document)) == document
    key = public(Ed25519PrivateKey.generate())
    named = replace(document, receipts_key=key, former_receipts_keys=(FormerKey(key, 7), FormerKey(key, 9)))
    assert decode_site(encode_site(named)) == named


@pytest.mark.parametrize(
    "changes",
    [
        {"receipts_key": 7},
        {"receipts_key": "no PEM"},
        {"receipts_key": "-----BEGIN " + "x" * 2000},
        {"former_receipts_keys": {}},
        {"former_receipts_keys": []},
        {"former_receipts_keys": ["x"]},
        {"former_receipts_keys": [{"key": "-----BEGIN x"}]},
        {"former_receipts_keys": [{"key": "-----BEGIN x", "until_s": True}]},
        {"former_receipts_keys": [{"key": "-----BEGIN x", "until_s": -1}]},
        {"former_receipts_keys": [{"key": "-----BEGIN x", "until_s": 1 << 60}]},
        {"former_receipts_keys": [{"key": "-----BEGIN x", "until_s": 1}] * (MAX_FORMER_RECEIPTS_KEYS + 1)},
    ],
)
def test_a_malformed_key_is_refused(make_site: Any, changes: dict[str, object]) -> None:
    """By the field's name."""
    fields = json.loads(encode_site(make_site("site-a").document))
    with pytest.raises(FederationInputError, match=next(iter(changes))):
        decode_site(canonical({**fields, **changes}))


def test_a_site_proves_its_receipts_key(make_site: Any) -> None:
    """The signature is part of the request; another's key, or none, is refused."""
    site = make_site("site-a")
    site.change_receipts_key()
    request = site.request()
    assert decode_request(encode_request(request)) == request
    site.receipts_key = Ed25519PrivateKey.generate()
    with pytest.raises(FederationInputError, match="receipts key"):
        site.request()
    site.receipts_key = None
    with pytest.raises(FederationInputError, match="receipts key"):
        site.request()
    fields = json.loads(encode_request(request))
    del fields["receipts_proof"]
    with pytest.raises(FederationInputError, match="receipts key"):
        decode_request(canonical(fields))


def test_a_site_does_not_say_itself_which_keys_it_had(make_site: Any) -> None:
    """It could name a key of a time when it was somebody else's, or a time that is over."""
    site = make_site("site-a")
    key = public(Ed25519PrivateKey.generate())
    with pytest.raises(FederationInputError, match="for the signers to note"):
        make_request(replace(site.document, former_receipts_keys=(FormerKey(key, 9),)), [], site.models_key)


def test_the_first_key_of_a_member_enters_without_replacement(world: Any) -> None:
    """A site that was admitted before there were receipts: its CA proves the request."""
    site = world.admit("site-a")
    assert members(world).receipts_key("site-a") is None
    pem = site.change_receipts_key()
    assert world.consortium.admit(site.request(), world.signers, now_s=NOW)
    assert members(world).receipts_key("site-a") == loaded(pem)
    assert len(receipts_fingerprint(pem).split()) == 16
    with pytest.raises(NotAdmittedError):
        members(world).receipts_key("site-b")


def test_another_key_must_be_meant_and_the_former_is_noted(world: Any) -> None:
    """With the time until which it counts; a former key never comes back."""
    site = world.admit("site-a")
    keys = []
    for at in range(3):
        keys.append((site.change_receipts_key(), site.receipts_key))
        if at:
            with pytest.raises(FederationInputError, match="another receipts key"):
                world.consortium.admit(site.request(), world.signers, now_s=NOW + at)
        world.consortium.admit(site.request(), world.signers, now_s=NOW + at, replace=bool(at))
    assert members(world, now_s=NOW + 3).receipts_keys("site-a") == (
        ReceiptsKey(loaded(keys[2][0])),
        ReceiptsKey(loaded(keys[1][0]), int(NOW) + 2),
        ReceiptsKey(loaded(keys[0][0]), int(NOW) + 1),
    )
    site.document = replace(site.document, receipts_key=keys[0][0])
    site.receipts_key = keys[0][1]
    with pytest.raises(FederationInputError, match="was replaced before"):
        world.consortium.admit(site.request(), world.signers, now_s=NOW + 4, replace=True)


def test_a_new_address_forgets_no_key(world: Any) -> None:
    """Nor does a request of an agent that knows no receipts, once the signers mean it."""
    site = world.admit("site-a")
    first = site.change_receipts_key()
    world.consortium.admit(site.request(), world.signers, now_s=NOW)
    second = site.change_receipts_key()
    world.consortium.admit(site.request(), world.signers, now_s=NOW + 1, replace=True)
    world.consortium.admit(site.request(), world.signers, now_s=NOW + 2)
    (document,) = world.consortium.sites()
    assert document.former_receipts_keys == (FormerKey(first, int(NOW) + 1),)
    site.document, site.receipts_key = replace(site.document, receipts_key=""), None
    with pytest.raises(FederationInputError, match="another receipts key"):
        world.consortium.admit(site.request(), world.signers, now_s=NOW + 3)
    world.consortium.admit(site.request(), world.signers, now_s=NOW + 3, replace=True)
    membership = members(world, now_s=NOW + 3)
    assert membership.receipts_key("site-a") is None
    assert [one.key for one in membership.receipts_keys("site-a")] == [loaded(second), loaded(first)]


def test_the_oldest_of_many_keys_is_forgotten(world: Any) -> None:
    """Each receipt may be tried against all of them."""
    site = world.admit("site-a")
    for at in range(MAX_FORMER_RECEIPTS_KEYS + 3):
        site.change_receipts_key()
        world.consortium.admit(site.request(), world.signers, now_s=NOW + at, replace=True)
    (document,) = world.consortium.sites()
    assert len(document.former_receipts_keys) == MAX_FORMER_RECEIPTS_KEYS
    assert document.former_receipts_keys[-1].until_s == int(NOW) + MAX_FORMER_RECEIPTS_KEYS + 2


def test_no_two_sites_share_a_receipts_key(world: Any, make_site: Any) -> None:
    """Neither a present one nor a former one, nor is it one of the site's other keys."""
    first = world.admit("site-a")
    first.change_receipts_key()
    world.consortium.admit(first.request(), world.signers, now_s=NOW)
    old = (first.document.receipts_key, first.receipts_key)
    first.change_receipts_key()
    world.consortium.admit(first.request(), world.signers, now_s=NOW, replace=True)
    for pem, key in (old, (first.document.receipts_key, first.receipts_key)):
        second = make_site("site-b")
        second.document, second.receipts_key = replace(second.document, receipts_key=pem), key
        with pytest.raises(FederationInputError, match="belongs to the site site-a already"):
            world.consortium.admit(second.request(), world.signers, now_s=NOW)
    third = make_site("site-c")
    third.document = replace(third.document, receipts_key=third.document.models_key)
    third.receipts_key = third.models_key
    with pytest.raises(FederationInputError, match="two keys of the site site-c are the same"):
        world.consortium.admit(third.request(), world.signers, now_s=NOW)
