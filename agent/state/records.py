"""The rows of the state file as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pyrdma.image.manifest import ImageId


@dataclass(frozen=True, slots=True)
class NameRecord:
    """A name and the image that it stands for on this node.

    ``folder`` is where the weights can be read again, empty for an image that was pulled. ``licence`` is what
    its publisher says; empty: nothing.
    """

    name: str
    image_id: ImageId
    folder: str
    bound_at: float
    licence: str = ""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A lease; ``key_digest`` is the SHA-256 of its API key, the key itself is stored nowhere.

    ``donor`` is the ``SITE/NODE`` where it runs, ``borrower`` the one that uses it; empty: this node.
    ``account`` is charged; ``who`` is the user of this node (``uid:NUMBER``, ``token:NAME``) whose it is.
    """

    id: str
    model: str
    image_id: ImageId
    state: str
    created_at: float
    ended_at: float | None
    reason: str
    port: int | None
    key_digest: bytes
    donor: str = ""
    borrower: str = ""
    account: str = ""
    who: str = ""


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """A node that joined the site: when (Unix time), when it left, and until when its certificate holds."""

    node: str
    joined_at: float
    left_at: float | None
    certificate_not_after: float


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A key for a laptop, with what its secret is proven with; times are Unix times."""

    token_id: bytes
    key: bytes = field(repr=False)
    name: str
    account: str
    created_at: float
    expires_at: float
    used_at: float | None


@dataclass(frozen=True, slots=True)
class SiteLeaseRecord:
    """A lease in the books of a site's gateway.

    Attributes:
        side: ``lent`` by this site, or ``brokered`` at another one for a node of this one.
        created_at, ended_at: Unix time, for people.
        deadline_s: when it ends unless renewed, on CLOCK_BOOTTIME of the boot that ``boot_id`` names.
        ttl_s: what one renewal gives.
        account, purpose: who is charged, and for what.
        request_id, offer_id: what it was granted for and by, if this site lent it.
        granted_at_s: since when its times count, on the clock of ``deadline_s``; 0: nobody wrote it down.
        duration_s, grace_s, min_runtime_s, max_duration_s, instant: the terms that its borrower accepted.
        rest: what else a gateway needs to go on with a lease that it lends, in its own form; empty: nobody
            wrote it down.
    """

    id: str
    side: Literal["lent", "brokered"]
    model: str
    image_id: ImageId
    total_bytes: int
    borrower_site: str
    borrower_node: str
    donor_site: str
    node: str
    device: str
    state: str
    created_at: float
    deadline_s: float
    ttl_s: float
    boot_id: str
    ended_at: float | None = None
    reason: str = ""
    account: str = ""
    purpose: str = ""
    request_id: str = ""
    offer_id: str = ""
    granted_at_s: float = 0.0
    duration_s: int = 0
    grace_s: float | None = None
    min_runtime_s: float | None = None
    max_duration_s: float | None = None
    instant: int = 0
    rest: str = ""
