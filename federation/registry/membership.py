"""What the registry says, once it is verified: the sites, their models, and how long that may be believed.

Pure: time comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from federation.errors import NotAdmittedError
from federation.limits import MAX_TRUST_STALE_S
from federation.registry.documents import SiteDocument

Freshness = Literal["fresh", "stale", "local"]


@dataclass(frozen=True, slots=True)
class ModelBinding:
    """The image that a model's name stands for: its id in hex and its size."""

    image_id: str
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Membership:
    """The members of a consortium at one moment.

    Args:
        consortium: its name.
        version: rises with each publication.
        issued_at: when it was signed last, in seconds of Unix time.
        expires_at: until when it counts without another signature.
        sites: by name, in order.
        models: ``SITE/NAME`` to image.
        faults: by site, why its document or its list of models is left out; others are not touched by it.
    """

    consortium: str
    version: int
    issued_at: float
    expires_at: float
    sites: tuple[SiteDocument, ...]
    models: Mapping[str, ModelBinding]
    faults: Mapping[str, str]

    def site(self, name: str) -> SiteDocument:
        """Return a member.

        Raises:
            NotAdmittedError: the site is none.
        """
        for document in self.sites:
            if document.site == name:
                return document
        raise NotAdmittedError(
            f"the site {name} is not in the registry of {self.consortium}.",
            fix="ask the consortium's signers to admit it",
        )

    def by_trust_domain(self, trust_domain: str) -> SiteDocument:
        """Return the member whose nodes are below a trust domain.

        Raises:
            NotAdmittedError: there is none.
        """
        for document in self.sites:
            if document.trust_domain == trust_domain:
                return document
        raise NotAdmittedError(
            f"no site of {self.consortium} has the trust domain {trust_domain}.",
            fix="ask the consortium's signers to admit it",
        )


def freshness(membership: Membership, refreshed_at_s: float, now_s: float) -> Freshness:
    """Return how far the members may be trusted.

    ``fresh``: everything. ``stale``: nobody has signed in time, but the last verified refresh is at most a
    week ago; what is known goes on, nothing new begins. ``local``: this site alone. A clock that was set back
    does not make an old registry fresh: no time before the last refresh or the last signature is believed.
    """
    now_s = max(now_s, refreshed_at_s, membership.issued_at)
    if now_s < membership.expires_at:
        return "fresh"
    return "stale" if now_s - refreshed_at_s <= MAX_TRUST_STALE_S else "local"
