"""A gateway that borrows, with its own donor and some other sites': donors are in memory, books are real."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agent.daemon.faces import Emit, Heed, LeaseOffer, OfferRequest, Refusal, Wish, unheeded
from agent.daemon.pipes import Pipe
from agent.daemon.reports import SiteSummary
from agent.gateway.broker import SiteBroker
from agent.gateway.naming import Naming
from agent.gateway.neighbours import Neighbours
from agent.local.views import AcceptedView, GrantedView, LeaseView, PlaceView, RunEvent, StartView
from agent.site.trust import Trust
from agent.state import SiteStore, StateFile
from federation.registry.membership import ModelBinding
from pyrdma.image.manifest import ImageId

IMAGE = ImageId(b"\x07" * 32)
MODELS = {"uni-b/m": ModelBinding(IMAGE.hex(), 10)}
WISH = Wish("uni-b/m")
START = StartView("resident", 0, 0.0, 0.0, 0.1, True, (), ())
NO_DEVICE = Refusal("no-device", "it has no device.", "ask later", terminal=False)


class Donor:
    """A site that does what it is told: offers or refuses, accepts or not, starts or fails."""

    def __init__(self, site: str, *, warm: bool = False) -> None:
        self.site = site
        self.reply: LeaseOffer | Refusal | Exception = LeaseOffer(f"offer{site[-1]}", 30.0, "n1", warm)
        self.lease_id = f"lease{site[-1]}"
        self.refuses: Exception | None = None
        self.fails: Exception | None = None
        self.ttl_s = 600.0
        self.says: list[RunEvent] = []
        self.image_id = IMAGE
        self.grants = ""
        self.key = "key"
        self.go = asyncio.Event()
        self.go.set()
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.calls: list[str] = []
        self.borrowers: dict[str, str] = {}
        self.asked = 0

    def lends(self, lease_id: str, node: str) -> bool:
        return self.borrowers.get(lease_id) == node

    async def describe(self) -> SiteSummary:
        return SiteSummary(self.site, "1", 4, 1, 1, 0, 0.0)

    async def ask_offer(self, request: OfferRequest, wait_s: float = 0.0) -> LeaseOffer | PlaceView | Refusal:
        self.asked += 1
        self.request = request
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    async def commit(self, offer_id: str, emit: Emit) -> GrantedView:
        self.calls.append(f"commit {offer_id}")
        if self.refuses is not None:
            raise self.refuses
        emit(AcceptedView(self.lease_id, self.ttl_s, "whatever it says", "n\x1b1"))
        self.borrowers[self.lease_id] = self.request.borrower_node
        for event in self.says:
            emit(event)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.calls.append("called off")
            raise
        if self.fails is not None:
            raise self.fails
        lease_id = self.grants or self.lease_id
        lease = LeaseView(lease_id, "m", self.image_id.hex(), "active", 1.0, None, "", None, 7)
        return GrantedView(lease, "", self.key, START)

    async def renew(self, lease_id: str) -> float:
        self.calls.append(f"renew {lease_id}")
        if self.fails is not None:
            raise self.fails
        return self.ttl_s

    async def release(self, lease_id: str, reason: str) -> str:
        self.calls.append(f"release {lease_id}: {reason}")
        if self.fails is not None:
            raise self.fails
        return reason

    async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
        self.calls.append(f"attend {lease_id}")
        return await asyncio.shield(self.end)

    async def connect(self, lease_id: str) -> Pipe:
        raise ConnectionError(lease_id)


class Lender:
    """Nobody asks it here: every name of these tests is signed."""

    address = ""


class Bench:
    """One gateway, with its own donor and some other sites'."""

    def __init__(self, trust: Trust, file: StateFile, books: SiteStore) -> None:
        self.file = file
        self.books = books
        self.now_s = 1000.0
        self.own = Donor("uni-a")
        self.others: dict[str, Donor] = {}
        lender: Any = Lender()
        self.neighbours = Neighbours(trust, lambda site: (self.others[site], lender), lambda: self.now_s)
        self.naming = Naming("uni-a", None, dict, trust, self.neighbours)
        self.broker = self.new_broker()
        self.events: list[RunEvent] = []

    def new_broker(self) -> SiteBroker:
        return SiteBroker(
            self.own,
            self.neighbours,
            self.naming,
            self.books,
            boot_id="boot",
            clock=lambda: self.now_s,
            sign=lambda request: request,
        )

    async def borrow(self, wish: Wish = WISH, node: str = "a1") -> GrantedView:
        return await self.broker.borrow(wish, node, self.events.append)

    async def rows(self) -> dict[str, str]:
        return {one.id: one.reason or one.state for one in await self.books.leases(include_ended=True)}

    @property
    def accepted(self) -> list[AcceptedView]:
        return [one for one in self.events if isinstance(one, AcceptedView)]


Sites = Callable[..., Any]
