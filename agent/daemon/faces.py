"""What stands on either side of a call between agents, as interfaces and values without protobuf.

A *broker* gets leases for this node; a *donor* is a site that may grant one; a *host* runs what was granted.
The gateway of a site is broker for its nodes and donor for others; each node is host of its devices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.daemon.pipes import Pipe
from agent.daemon.reports import Report, SiteSummary
from agent.limits import GRACE_S
from agent.local.federation_views import FederationView
from agent.local.people_views import UsageView
from agent.local.queue_views import QueueView
from agent.local.views import GrantedView, PlaceView, RunEvent
from federation.identity.names import NodeIdentity
from pyrdma.image.manifest import ImageId

Emit = Callable[[RunEvent], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for: a model's reference, and where it must run; empty: anywhere.

    Args:
        account: who is charged; empty: the site itself.
        purpose: what it is for; empty: nothing in particular.
        instant: it may be taken back at once, and may therefore use what is reserved for others.
        duration_s: how long it is wanted at most; 0: as long as the donor lends.
    """

    model: str
    site: str = ""
    node: str = ""
    account: str = ""
    purpose: str = ""
    instant: bool = False
    duration_s: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """A lease that a host is to run.

    Args:
        devices: which of the host's devices are its own; none: the host chooses one.
        grace_s: what it gets between notice and end when the owner of a device needs it.
        most_bytes: what the borrower said the image has, by which it was admitted: a larger one does not run;
            0: no bound.
    """

    lease_id: str
    model: str
    image_id: ImageId
    ttl_s: float
    borrower: str
    devices: tuple[str, ...] = ()
    grace_s: float = GRACE_S
    most_bytes: int = 0


@dataclass(frozen=True, slots=True)
class OfferRequest:
    """What a borrower's gateway asks of a donor; the borrower's site is known by its certificate."""

    request_id: str
    model: str
    image_id: ImageId
    total_bytes: int
    devices: int
    node: str
    borrower_node: str
    account: str = ""
    purpose: str = ""
    instant: bool = False
    duration_s: int = 0
    asked_at_s: int = 0
    nonce: str = ""
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class LeaseOffer:
    """A donor's promise to hold a device for ``ttl_s``; ``warm``: that node has the image whole in memory.

    The rest are the terms that a commit accepts: the grace before the owner has the device back, the time for
    which no other guest takes it, how long the lease lasts at most, and when other guests will have left it.
    """

    offer_id: str
    ttl_s: float
    node: str
    warm: bool
    grace_s: float = 0.0
    min_runtime_s: float = 0.0
    max_duration_s: float = 0.0
    instant: bool = False
    starts_in_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseNotice:
    """A lease will end in ``left_s``, and why; its guest can go elsewhere meanwhile."""

    reason: str
    left_s: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a donor does not; ``terminal`` when waiting would not help."""

    code: str
    sentence: str
    fix: str
    terminal: bool


Heed = Callable[[LeaseNotice | None], None]
"""Told that a lease will end; ``None``: that it goes on after all."""


def unheeded(notice: LeaseNotice | None) -> None:
    """Do nothing about a notice."""
    del notice


class Broker(Protocol):
    """What gets leases for this node. Methods raise Error; a lease that has ended is UnknownLeaseError."""

    async def borrow(self, wish: Wish, emit: Emit) -> GrantedView:
        """Get a lease and wait until it answers; being cancelled calls it off."""

    async def renew(self, lease_id: str) -> float:
        """Renew it; return the seconds that it lives from the moment of asking."""

    async def release(self, lease_id: str, reason: str) -> str:
        """End it; return the reason that the donor wrote down."""

    async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
        """Wait until it ends; return why. ``heed`` hears notices meanwhile."""

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to its runner."""


class Donor(Protocol):
    """A site that may grant leases, this one or another."""

    site: str

    async def ask_offer(self, request: OfferRequest, wait_s: float = 0.0) -> LeaseOffer | PlaceView | Refusal:
        """Ask for a device, or again for the place; a request that waits is answered within ``wait_s``.

        ``release`` with the request's id gives the place up.
        """

    async def commit(self, offer_id: str, emit: Emit) -> GrantedView:
        """Take the offer and wait until the model answers; being cancelled calls it off."""

    async def renew(self, lease_id: str) -> float:
        """Renew a lease."""

    async def release(self, lease_id: str, reason: str) -> str:
        """End a lease."""

    async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
        """Wait until it ends. ``heed`` hears notices meanwhile."""

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to its runner."""


class Host(Protocol):
    """A node that runs leases of its site's gateway, this one or another."""

    async def start_runner(self, order: Order, emit: Emit) -> GrantedView:
        """Start the model; returns when it answers. Being cancelled ends it."""

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        """End it; one that is gone is no error."""

    async def notice_runner(self, lease_id: str, left_s: float, reason: str) -> None:
        """Let it take nothing new and finish what it has begun, since it is stopped in ``left_s``."""

    async def withdraw_notice(self, lease_id: str) -> None:
        """Take the gateway's notice back; a lease that is gone, or has none, is no error."""

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to the runner."""


class LeaseCallsFace(Protocol):
    """What both services ask about leases; ``who`` makes the call and must be the lease's own side."""

    async def renew(self, lease_id: str, who: NodeIdentity) -> float:
        """Renew a lease."""

    async def release(self, lease_id: str, reason: str, who: NodeIdentity) -> str:
        """End a lease."""

    async def attend(self, lease_id: str, who: NodeIdentity, heed: Heed = unheeded) -> str:
        """Wait until it ends. ``heed`` hears notices meanwhile."""

    async def connect(self, lease_id: str, who: NodeIdentity) -> Pipe:
        """Open a connection to its runner."""


class SiteFace(LeaseCallsFace, Protocol):
    """What other gateways may ask of this one."""

    def summary(self) -> SiteSummary:
        """Say what the site has."""

    async def ask_offer(
        self, request: OfferRequest, who: NodeIdentity, wait_s: float
    ) -> LeaseOffer | PlaceView | Refusal:
        """Offer a device, let the request wait, or refuse."""

    async def commit(self, offer_id: str, who: NodeIdentity, emit: Emit) -> GrantedView:
        """Carry out an offer."""


class MemberFace(LeaseCallsFace, Protocol):
    """What nodes of this site may ask of this one. At a node that is no gateway, most of it is refused."""

    async def report(self, report: Report, who: NodeIdentity) -> dict[str, float]:
        """Take a node's word; return the seconds that each of its leases has left."""

    async def renew_certificate(self, csr: bytes, who: NodeIdentity) -> bytes:
        """Return a new certificate, PEM."""

    async def leave(self, who: NodeIdentity) -> None:
        """Strike the node off the site's list."""

    async def federation(self) -> FederationView:
        """Return the site's view of itself and the consortium."""

    async def queue(self) -> QueueView:
        """Return what waits at the site, and what it publishes."""

    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        """Return what accounts of the site have used."""

    async def borrow(self, wish: Wish, who: NodeIdentity, emit: Emit) -> GrantedView:
        """Get a lease for a node."""

    async def start_runner(self, order: Order, emit: Emit) -> GrantedView:
        """Run a lease here."""

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        """End a lease that runs here."""

    async def notice_runner(self, lease_id: str, left_s: float, reason: str) -> None:
        """Tell a runner here that it will be stopped."""

    async def withdraw_notice(self, lease_id: str) -> None:
        """Tell a runner here that the gateway does not stop it after all."""


class SitePeer(Donor, Protocol):
    """Another site's gateway."""

    async def describe(self) -> SiteSummary:
        """Ask what the site has."""


class Gateway(Broker, Protocol):
    """This site's gateway, as a node reaches it."""

    async def report(self, report: Report) -> dict[str, float]:
        """Say what this node has; return the seconds that each of its leases has left."""

    async def renew_certificate(self, csr: bytes) -> bytes:
        """Return a new certificate, PEM."""

    async def leave(self) -> None:
        """Leave the site."""

    async def federation(self) -> FederationView:
        """Return the site's view."""

    async def queue(self) -> QueueView:
        """Return what waits at the site."""

    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        """Return what accounts of the site have used."""
