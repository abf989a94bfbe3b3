"""What stands on either side of a call between agents, as interfaces and values without protobuf.

A *broker* gets leases for this node; a *donor* is a site that may grant one; a *host* runs what was granted.
The gateway of a site is broker for its nodes and donor for others; each node is host of its devices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.daemon.pipes import Pipe
from agent.local.views import FederationView, GrantedView, RunEvent
from federation.identity.names import NodeIdentity
from pyrdma.image.manifest import ImageId

Emit = Callable[[RunEvent], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for: a model's reference, and where it must run; empty: anywhere."""

    model: str
    site: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """A lease that a host is to run."""

    lease_id: str
    model: str
    image_id: ImageId
    ttl_s: float
    borrower: str


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


@dataclass(frozen=True, slots=True)
class LeaseOffer:
    """A donor's promise to hold a device for ``ttl_s``; ``warm``: that node has the image whole in memory."""

    offer_id: str
    ttl_s: float
    node: str
    warm: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a donor does not; ``terminal`` when waiting would not help."""

    code: str
    sentence: str
    fix: str
    terminal: bool


@dataclass(frozen=True, slots=True)
class ReportedImage:
    """An image in a node's memory, whole or not, and the names under which it was published there."""

    image_id: ImageId
    total_bytes: int
    whole: bool
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReportedDevice:
    """A device that a node donates."""

    id: str
    kind: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """A node's word on itself, to its gateway."""

    address: str
    devices: tuple[ReportedDevice, ...]
    images: tuple[ReportedImage, ...]
    leases: tuple[str, ...]
    spares_ready: int
    transfer_bytes_per_s: float
    donating: bool
    ended: tuple[tuple[str, str], ...] = ()
    """Leases that ended here since the last report that was answered, each with the reason."""


@dataclass(frozen=True, slots=True)
class SiteSummary:
    """A site's word on itself, to other gateways."""

    site: str
    version: str
    devices: int
    leased: int
    nodes: int
    images: int
    transfer_bytes_per_s: float


class Broker(Protocol):
    """What gets leases for this node. Methods raise Error; a lease that has ended is UnknownLeaseError."""

    async def borrow(self, wish: Wish, emit: Emit) -> GrantedView:
        """Get a lease and wait until it answers; being cancelled calls it off."""

    async def renew(self, lease_id: str) -> float:
        """Renew it; return the seconds that it lives from the moment of asking."""

    async def release(self, lease_id: str, reason: str) -> str:
        """End it; return the reason that the donor wrote down."""

    async def attend(self, lease_id: str) -> str:
        """Wait until it ends; return why."""

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to its runner."""


class Donor(Protocol):
    """A site that may grant leases, this one or another."""

    site: str

    async def ask_offer(self, request: OfferRequest) -> LeaseOffer | Refusal:
        """Ask for a device."""

    async def commit(self, offer_id: str, emit: Emit) -> GrantedView:
        """Take the offer and wait until the model answers; being cancelled calls it off."""

    async def renew(self, lease_id: str) -> float:
        """Renew a lease."""

    async def release(self, lease_id: str, reason: str) -> str:
        """End a lease."""

    async def attend(self, lease_id: str) -> str:
        """Wait until it ends."""

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to its runner."""


class Host(Protocol):
    """A node that runs leases of its site's gateway, this one or another."""

    async def start_runner(self, order: Order, emit: Emit) -> GrantedView:
        """Start the model; returns when it answers. Being cancelled ends it."""

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        """End it; one that is gone is no error."""

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to the runner."""


class LeaseCallsFace(Protocol):
    """What both services ask about leases; ``who`` makes the call and must be the lease's own side."""

    async def renew(self, lease_id: str, who: NodeIdentity) -> float:
        """Renew a lease."""

    async def release(self, lease_id: str, reason: str, who: NodeIdentity) -> str:
        """End a lease."""

    async def attend(self, lease_id: str, who: NodeIdentity) -> str:
        """Wait until it ends."""

    async def connect(self, lease_id: str, who: NodeIdentity) -> Pipe:
        """Open a connection to its runner."""


class SiteFace(LeaseCallsFace, Protocol):
    """What other gateways may ask of this one."""

    def summary(self) -> SiteSummary:
        """Say what the site has."""

    async def ask_offer(self, request: OfferRequest, who: NodeIdentity) -> LeaseOffer | Refusal:
        """Offer a device or refuse."""

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

    async def borrow(self, wish: Wish, who: NodeIdentity, emit: Emit) -> GrantedView:
        """Get a lease for a node."""

    async def start_runner(self, order: Order, emit: Emit) -> GrantedView:
        """Run a lease here."""

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        """End a lease that runs here."""


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
