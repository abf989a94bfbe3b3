"""A site as a donor: real books on disk, nodes in memory, and a clock that only the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from agent.daemon.faces import Emit, LeaseOffer, OfferRequest, Order
from agent.daemon.pipes import Pipe
from agent.daemon.reports import Report, ReportedDevice
from agent.errors import PeerNodeError
from agent.gateway.core.events import Decision
from agent.gateway.core.law import Law
from agent.gateway.core.request import KnownModel, LeaseRequest
from agent.gateway.donor import LocalDonor
from agent.local.views import GrantedView, LeaseView, PhaseView, StartView
from agent.state import SiteStore, StateFile
from federation.policy.policy import AccountRule, Lend, Policy, PurposeRule
from pyrdma.image.manifest import ImageId

IMAGE = ImageId(b"\x07" * 32)
REQUEST = OfferRequest(
    request_id="r1", model="m", image_id=IMAGE, total_bytes=10, devices=1, node="", borrower_node="b1"
)
REPORT = Report("n1:7443", (ReportedDevice("cpu0", "cpu", 100),), (), (), 1, 0.0, donating=True)
START = StartView("resident", 0, 0.0, 0.0, 0.1, True, (), ())


def granted(lease_id: str, image_id: ImageId = IMAGE) -> GrantedView:
    """A lease that answers, as its node says it."""
    return GrantedView(
        LeaseView(lease_id, "m", image_id.hex(), "active", 1.0, None, "", None, 7), "", "key", START
    )


def _policy(min_runtime_s: int) -> Policy:
    """A policy under which anybody may have devices for so long at least."""
    return Policy(
        name="c",
        version=1,
        effective_at_s=0,
        digest="d" * 64,
        accounts={"/uni-b": AccountRule("/uni-b", 1, (), ("uni-b",), {}, open=True)},
        classes={},
        purposes={"teaching": PurposeRule("teaching", 1000, ("*",))},
        device_classes={"cpu": 1000},
        lend=Lend(10, 10, 4, min_runtime_s, 7200),
    )


class Node:
    """A host that starts what it is told once ``go`` is set, unless it has a fault."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.fault: Exception | None = None
        self.may_hear = asyncio.Event()
        self.may_hear.set()
        self.unreachable = False
        self.missed = 0
        self.orders: list[Order] = []
        self.running: set[str] = set()
        self.happened: list[str] = []

    async def start_runner(self, order: Order, emit: Emit) -> GrantedView:
        self.orders.append(order)
        self.running.add(order.lease_id)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.running.discard(order.lease_id)
            self.happened.append("called off")
            raise
        if self.fault is not None:
            self.running.discard(order.lease_id)
            raise self.fault
        emit(PhaseView("map", 0.1))
        return granted(order.lease_id)

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        if self.unreachable:
            raise PeerNodeError("the node is not reachable.")
        self.happened.append(f"stop {lease_id}: {reason}")
        await self.may_stop.wait()
        self.running.discard(lease_id)

    async def notice_runner(self, lease_id: str, left_s: float, reason: str) -> None:
        await self.may_hear.wait()
        self.happened.append(f"notice {lease_id}: {reason}")

    async def withdraw_notice(self, lease_id: str) -> None:
        if self.unreachable:
            self.missed += 1
            raise PeerNodeError("the node is not reachable.")
        self.happened.append(f"goes on {lease_id}")

    async def connect(self, lease_id: str) -> Pipe:
        raise ConnectionError(lease_id)


class Site:
    """A donor with its nodes, its books and a clock that only the test moves."""

    def __init__(self, folder: Path, file: StateFile, books: SiteStore) -> None:
        self.folder = folder
        self.file = file
        self.books = books
        self.now_s = 1000.0
        self.nodes = {"n1": Node(), "n2": Node()}
        self.prepared: list[str] = []
        self.prepare: Callable[[str, LeaseRequest], Awaitable[None]] = self._prepare
        self.decisions: list[Decision] = []
        self.known: dict[str, tuple[KnownModel, ...]] = {}
        self.donor = self.new_donor()

    def new_donor(
        self,
        *,
        boot_id: str = "boot",
        clock: Callable[[], float] | None = None,
        ttl_s: float = 60.0,
        min_runtime_s: int = 0,
    ) -> LocalDonor:
        return LocalDonor(
            "uni-a",
            host=self.nodes.__getitem__,
            prepare=lambda node, request: self.prepare(node, request),
            books=self.books,
            boot_id=boot_id,
            clock=clock or (lambda: self.now_s),
            lease_ttl_s=ttl_s,
            record=self.decisions.append,
            law=Law("uni-a", policy=_policy(min_runtime_s) if min_runtime_s else None),
            known=lambda image_id: self.known.get(image_id, ()),
        )

    async def _prepare(self, node: str, request: LeaseRequest) -> None:
        self.prepared.append(node)

    async def report(self, node: str = "n1", **changed: object) -> dict[str, float]:
        leases = changed.pop("leases", tuple(sorted(self.nodes[node].running)))
        return await self.donor.heard(node, replace(REPORT, leases=leases, **changed))  # type: ignore[arg-type]

    async def offer(self, request: OfferRequest = REQUEST, site: str = "uni-b") -> LeaseOffer:
        offer = await self.donor.ask_offer(request, site)
        assert isinstance(offer, LeaseOffer)
        return offer

    async def lease(self, request: OfferRequest = REQUEST) -> str:
        """A lease of uni-b's node b1 that runs on n1."""
        await self.report()
        offer = await self.offer(request)
        return (await self.donor.commit(offer.offer_id, "uni-b", lambda _: None)).lease.id

    async def rows(self) -> dict[str, tuple[str, str]]:
        records = await self.books.leases(include_ended=True)
        return {one.id: (one.state, one.reason) for one in records}

    async def refuse_writes(self, states: str) -> None:
        """From now on the disk takes no lease in these states."""
        await self.file.write(
            lambda db: db.execute(
                f"CREATE TRIGGER full BEFORE INSERT ON site_leases WHEN NEW.state IN ({states}) "
                "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
            )
        )

    @property
    def free(self) -> bool:
        """Whether n1's device is nobody's."""
        return all(one.node != "n1" for one in self.donor.state.book.taken())


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    """Open a donor's books in a folder; what it leaves running when it closes is found here."""
    file = await StateFile.open(folder / "state.sqlite3")
    one = Site(folder, file, await SiteStore.of(file))
    await one.donor.start()
    try:
        yield one
    finally:
        await one.donor.close()
        await file.close()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == [], "a closed donor has left tasks behind"
