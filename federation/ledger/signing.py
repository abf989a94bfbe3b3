"""Who signs what: Ed25519 (RFC 8032) over a word that says what is signed, then the bytes themselves.

Rules: each kind of statement has a word of its own, ended by a zero byte, so that a signature of one kind is
never one of another: a borrower's countersignature does not stand for the donor's, nor a request for a
receipt. All agents check with one implementation (libsodium's), which refuses keys and points of small
order: two that differ in such corners would keep different books.

Private keys are those of ``cryptography``, as the site's folder has them; public keys are 32 raw bytes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError

from federation.errors import ReceiptError
from federation.registry.membership import Membership

DONOR: Final = b"pyrdma receipt v1 donor\0"
BORROWER: Final = b"pyrdma receipt v1 borrower\0"
REQUEST: Final = b"pyrdma request v1\0"
DISPUTE: Final = b"pyrdma dispute v1\0"
RESOLUTION: Final = b"pyrdma resolution v1\0"
CARBON: Final = b"pyrdma carbon v1\0"

SIGNATURE_BYTES: Final = 64
_KEY_BYTES: Final = 32

PublicKey: TypeAlias = bytes
"""An Ed25519 public key, 32 raw bytes."""


class KeyOfSite(NamedTuple):
    """A key that a site signs with; ``until_s``: nothing that it signed counts after (Unix time)."""

    key: PublicKey
    until_s: int | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """Whose signature is believed.

    Args:
        sites: each site's receipts keys, the present one first, then those before it.
        revoked: keys that count for nothing any more.
        auditors: keys whose resolutions of disputes count, by name.
    """

    sites: Mapping[str, tuple[KeyOfSite, ...]]
    revoked: frozenset[PublicKey] = frozenset()
    auditors: Mapping[str, PublicKey] = field(default_factory=dict)

    def of(self, site: str, at_s: int) -> tuple[PublicKey, ...]:
        """Return the keys with which a site may have signed what happened at this time."""
        return tuple(
            one.key
            for one in self.sites.get(site, ())
            if one.key not in self.revoked and (one.until_s is None or at_s <= one.until_s)
        )


def keys_of(membership: Membership, *, revoked: frozenset[PublicKey] = frozenset()) -> Keys:
    """Return the keys that the registry names: each site's present one, then its former; the auditors'."""
    sites = {
        one.site: tuple(
            KeyOfSite(named.key.public_bytes(Encoding.Raw, PublicFormat.Raw), named.until_s)
            for named in membership.receipts_keys(one.site)
        )
        for one in membership.sites
    }
    auditors = {one.name: public_key(one.key) for one in membership.auditors}
    return Keys(sites, revoked, auditors)


def public_key(pem: str) -> PublicKey:
    """Return the raw public key in a PEM text.

    Raises:
        ReceiptError: it holds none, or one that is not Ed25519.
    """
    try:
        key = load_pem_public_key(pem.encode("ascii"))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ReceiptError("this is no public key in PEM.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ReceiptError("the public key is not Ed25519, the one kind that signs receipts.")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def public_of(key: Ed25519PrivateKey) -> PublicKey:
    """Return the raw public half of a private key."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def sign(key: Ed25519PrivateKey, word: bytes, body: bytes) -> bytes:
    """Return the signature over a body as one kind of statement."""
    return key.sign(word + body)


def verifies(keys: Iterable[PublicKey], word: bytes, body: bytes, signature: bytes) -> bool:
    """Say whether one of the keys has signed a body as this kind of statement."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    signed = signature + word + body
    for key in keys:
        try:
            crypto_sign_open(signed, key)
        except (CryptoError, ValueError):
            continue
        return True
    return False
