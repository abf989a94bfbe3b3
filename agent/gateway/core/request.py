"""What a borrower asks of a donor, and a donor's answers: devices, a place in its queue, or a refusal.

Texts in these values come from other sites; they are checked for length and form where they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from federation.fairshare.reasons import Reason

NO_PURPOSE: Final = "none"
"""Stands in signed requests and on receipts where nobody named a purpose."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One name that a site's signed list has for an image.

    Args:
        model: ``SITE/NAME``.
        publisher: the site.
        licence: as the list says; empty: it says none.
        total_bytes: of the image, as the list says.
    """

    model: str
    publisher: str
    licence: str
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """A wish for one lease.

    Args:
        id: the borrower's own id; asking again with the same one is the same request.
        borrower_site: who asks, as its certificate says.
        borrower_node: for which of its nodes.
        model: the name to serve it under.
        image_id: the image, 64 hexadecimal digits.
        total_bytes: what the image takes in the device's memory.
        devices: how many devices, all of one node.
        node: the one node of the donor that will do, or ``None`` for any.
        account: who is to be charged, ``/institution/group/project``.
        purpose: what it is for.
        classes: what the donor's policy says the account is in; borrowers leave it empty.
        instant: it may be taken back at once, so that it may have what is reserved for others.
        duration_s: how long it is wanted at most; 0: as long as the donor lends.
        min_runtime_s: what it is content with before other guests may take its place; ``None``: as the donor
            says.
        known: what the registry's signed lists say that the image is; borrowers leave it empty.
        asked_at_s: Unix time of the borrower when it asked first, signed.
        signature: the borrower's site's over all of the above but ``classes`` and ``known``.
    """

    id: str
    borrower_site: str
    borrower_node: str
    model: str
    image_id: str
    total_bytes: int
    devices: int = 1
    node: str | None = None
    account: str
    purpose: str
    classes: tuple[str, ...] = ()
    instant: bool = False
    duration_s: int = 0
    min_runtime_s: int | None = None
    known: tuple[KnownModel, ...] = ()
    asked_at_s: int = 0
    signature: bytes = b""

    @property
    def key(self) -> RequestKey:
        """What makes it the same request when it comes again."""
        return (self.borrower_site, self.id)


RequestKey = tuple[str, str]
"""A borrower's site and its own id of the request."""


def account_of(request: LeaseRequest) -> str:
    """Return the account under which a request stands in line; without one, its borrower's."""
    return request.account or f"/{request.borrower_site}"


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer is no.

    Args:
        code: a stable word for programs.
        sentence: one sentence that says why.
        fix: what the borrower can do about it.
        terminal: whether asking this donor the same again is of no use.
    """

    code: str
    sentence: str
    fix: str
    terminal: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request stands in a donor's queue.

    Args:
        request_id: the borrower's own id.
        position: from 1, as the line stands now; whoever has used less may come before it later.
        waiting: requests in the line, this one too.
        reasons: why it waits, the deciding one first.
        eta_s: how long it takes from now, in half and in nine of ten replays of the line; ``None``: nothing
            is known yet.
    """

    request_id: str
    position: int
    waiting: int
    reasons: tuple[Reason, ...]
    eta_s: tuple[float, float] | None = None

    @property
    def ahead(self) -> int:
        """How many requests are before it."""
        return self.position - 1
