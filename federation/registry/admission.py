"""Which request may enter a registry: the rules, as a function of the members and the request.

- the CAs have a site CA's shape, made for the site's own trust domain;
- no two sites share a trust domain, and none is below another's: a CA vouches for every name below its own;
- no two sites share a CA key or a models key;
- a site that is a member keeps its trust domain and CAs, unless the signers say that they replace them.
"""

from __future__ import annotations

from collections.abc import Sequence

from federation.errors import FederationInputError, IdentityError
from federation.identity.binding import check_authority
from federation.identity.keys import spki_sha256
from federation.limits import MAX_SITES
from federation.registry.documents import SiteDocument
from federation.registry.request import authority_key, load_models_key


def check_admission(
    members: Sequence[SiteDocument], new: SiteDocument, *, replace: bool, now_s: float
) -> SiteDocument | None:
    """Return the member that the document takes the place of, if any.

    Raises:
        FederationInputError: the document may not enter.
    """
    for pem in new.authorities:
        try:
            check_authority(pem.encode("ascii"), new.trust_domain, now_s=now_s)
        except IdentityError as error:
            raise FederationInputError(error.message, fix=error.fix) from error
    keys = _keys(new)
    if len(keys) <= len(new.authorities):
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
        if keys & _keys(other):
            raise FederationInputError(
                f"a key of the request belongs to the site {other.site} already.",
                fix="let the new site make keys of its own",
            )
    old = next((each for each in members if each.site == new.site), None)
    if old is not None and not replace and _changed(old, new):
        raise FederationInputError(
            f"the site {new.site} is a member with another trust domain or other CAs.",
            fix="compare the new CA's fingerprint with the site by phone, then add --replace",
        )
    return old


def _changed(old: SiteDocument, new: SiteDocument) -> bool:
    return old.trust_domain != new.trust_domain or set(old.authorities) != set(new.authorities)


def _overlap(one: str, other: str) -> bool:
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _keys(document: SiteDocument) -> set[bytes]:
    authorities = {spki_sha256(authority_key(pem)) for pem in document.authorities}
    return authorities | {spki_sha256(load_models_key(document.models_key))}
