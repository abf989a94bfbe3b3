"""Which request may enter a registry: the rules, as a function of the members and the request.

- the CAs have a site CA's shape, made for the site's own trust domain;
- no two sites share a trust domain, and none is below another's: a CA vouches for every name below its own;
- no two sites share a CA key, a models key or a receipts key;
- a site that is a member keeps its trust domain, CAs and receipts key, unless the signers say that they
  replace them; a receipts key that was replaced is noted with the time, and never comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as changed

from federation.errors import FederationInputError, IdentityError
from federation.identity.binding import check_authority
from federation.identity.keys import spki_sha256
from federation.limits import MAX_FORMER_RECEIPTS_KEYS, MAX_SITES
from federation.registry.documents import FormerKey, SiteDocument
from federation.registry.request import authority_key, load_models_key, load_receipts_key


def check_admission(
    members: Sequence[SiteDocument], new: SiteDocument, *, replace: bool, now_s: float
) -> SiteDocument:
    """Return the document to be entered: the new one, with the receipts keys that the site had before.

    Raises:
        FederationInputError: the document may not enter.
    """
    for pem in new.authorities:
        try:
            check_authority(pem.encode("ascii"), new.trust_domain, now_s=now_s)
        except IdentityError as error:
            raise FederationInputError(error.message, fix=error.fix) from error
    keys = _keys(new)
    if len(keys) < len(new.authorities) + 1 + bool(new.receipts_key):
        raise FederationInputError(f"two keys of the site {new.site} are the same.")
    others = [each for each in members if each.site != new.site]
    if len(others) >= MAX_SITES:
        raise FederationInputError(f"a consortium has at most {MAX_SITES} sites.")
    for other in others:
        if _overlap(other.trust_domain, new.trust_domain):
            raise FederationInputError(
                f"the trust domain {new.trust_domain} is that of the site {other.site}, or above or below.",
                fix="let the new site choose a trust domain that no other contains",
            )
        if keys & (_keys(other) | {_receipts_id(one.key) for one in other.former_receipts_keys}):
            raise FederationInputError(
                f"a key of the request belongs to the site {other.site} already.",
                fix="let the new site make keys of its own",
            )
    old = next((each for each in members if each.site == new.site), None)
    if old is not None and not replace and _changed(old, new):
        raise FederationInputError(
            f"the site {new.site} is a member with another trust domain, other CAs or another receipts key.",
            fix="compare the new fingerprints with the site by phone, then add --replace",
        )
    former = _former(old, new, now_s=now_s)
    if new.receipts_key and _receipts_id(new.receipts_key) in {_receipts_id(one.key) for one in former}:
        raise FederationInputError(
            f"the receipts key of {new.site} was replaced before, and does not come back.",
            fix="let the site make another: remove receipts.key from its folder and repeat pyrdma-agent init",
        )
    return changed(new, former_receipts_keys=former)


def _former(old: SiteDocument | None, new: SiteDocument, *, now_s: float) -> tuple[FormerKey, ...]:
    if old is None:
        return ()
    known = old.former_receipts_keys
    if old.receipts_key and old.receipts_key != new.receipts_key:
        known = (*known, FormerKey(old.receipts_key, int(now_s)))
    return known[-MAX_FORMER_RECEIPTS_KEYS:]


def _changed(old: SiteDocument, new: SiteDocument) -> bool:
    receipts = old.receipts_key and old.receipts_key != new.receipts_key
    domain = old.trust_domain != new.trust_domain
    return bool(receipts) or domain or set(old.authorities) != set(new.authorities)


def _overlap(one: str, other: str) -> bool:
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _keys(document: SiteDocument) -> set[bytes]:
    authorities = {spki_sha256(authority_key(pem)) for pem in document.authorities}
    keys = {spki_sha256(load_models_key(document.models_key))}
    if document.receipts_key:
        keys.add(_receipts_id(document.receipts_key))
    return authorities | keys


def _receipts_id(pem: str) -> bytes:
    return spki_sha256(load_receipts_key(pem))
