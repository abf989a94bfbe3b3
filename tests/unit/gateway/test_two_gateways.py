"""A lease through every hop in one process: a node, its gateway, another site's gateway, a node there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from agent.daemon.borrowed import BorrowedLeases
from agent.daemon.clocks import boot_time_s
from agent.daemon.faces import Emit, Heed, LeaseOffer, OfferRequest, Order, Refusal, Wish, unheeded
from agent.daemon.pipes import Pipe
from agent.daemon.reports import LeaseEnd, Report, ReportedDevice, ReportedImage, SiteSummary
from agent.errors import RefusedError, RunnerError, UnknownLeaseError, UnknownModelError
from agent.gateway.gateway import Gateway
from agent.gateway.neighbours import Neighbours
from agent.gateway.own import BrokerFor
from agent.local.federation_views import RegistryView
from agent.local.views import GrantedView, LeaseView, PlaceView, RunEvent, StartView
from agent.openness.history import History
from agent.resolve import ModelRef, Offer
from agent.site.home import SiteConfig
from agent.site.trust import Trust
from agent.state import LeaseRecord, SiteStore, StateFile, Store
from federation.identity.names import NodeIdentity
from federation.registry.membership import Membership
from pyrdma.image.manifest import ImageId

pytestmark = pytest.mark.asyncio

IMAGE = ImageId(b"\x07" * 32)
START = StartView("resident", 0, 0.0, 0.0, 0.1, True, (), ())
REGISTRY = RegistryView("c", "fresh", "", 2, None, None)


class Device:
    """The node b1 of uni-b, which has the one device and the image."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.fault: Exception | None = None
        self.running: dict[str, Order] = {}
        self.happened: list[str] = []

    async def start_runner(self, order: Order, emit: Emit) -> GrantedView:
        self.running[order.lease_id] = order
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.running.pop(order.lease_id, None)
            self.happened.append("called off")
            raise
        if self.fault is not None:
            del self.running[order.lease_id]
            raise self.fault
        lease = LeaseView(order.lease_id, "m", IMAGE.hex(), "active", 1.0, None, "", None, 7)
        return GrantedView(lease, "", "key", START)

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        self.happened.append(f"stop: {reason}")
        self.running.pop(lease_id, None)

    async def notice_runner(self, lease_id: str, left_s: float, reason: str) -> None:
        self.happened.append(f"notice: {reason}")

    async def withdraw_notice(self, lease_id: str) -> None:
        self.happened.append("no notice")

    async def connect(self, lease_id: str) -> Pipe:
        raise ConnectionError(lease_id)


class Site:
    """One gateway that donates nothing itself, with its books and its view of the other site."""

    def __init__(
        self,
        name: str,
        trust: Trust,
        file: StateFile,
        books: SiteStore,
        device: Device,
        others: dict[str, Site],
    ) -> None:
        self.name = name
        self.trust = trust
        self.config = _config(name)
        self.neighbours = Neighbours(
            trust, lambda site: (Line(self, others[site]), Lender(others[site])), time.monotonic
        )
        no_certificate: Any = None
        self.gateway = Gateway(
            self.config,
            None,
            trust=trust,
            neighbours=self.neighbours,
            reach=lambda node, address: device,
            books=books,
            certificate=no_certificate,
            boot_id="boot",
            clock=boot_time_s,
            lease_ttl_s=600.0,
            registry=lambda: REGISTRY,
            history=History(file),
        )
        others[name] = self

    @property
    def who(self) -> NodeIdentity:
        return self.config.identity


class Lender:
    """A site's word on images, as its gateway answers."""

    def __init__(self, site: Site) -> None:
        self.address = site.name
        self._site = site

    async def find(self, ref: ModelRef) -> Offer | None:
        found = await self._site.gateway.lending.find_image(
            ref if ref.image_id is None else None, ref.image_id
        )
        return None if found is None else Offer(self.address, found[0], found[1], "")


class Line:
    """A gateway as another one reaches it: the calls of the Site service, without the wire."""

    def __init__(self, caller: Site, site: Site) -> None:
        self.site = site.name
        self._there = site
        self._who = caller

    async def describe(self) -> SiteSummary:
        return self._there.gateway.summary()

    async def ask_offer(self, request: OfferRequest, wait_s: float = 0.0) -> LeaseOffer | PlaceView | Refusal:
        return await self._there.gateway.ask_offer(request, self._who.who, wait_s)

    async def commit(self, offer_id: str, emit: Emit) -> GrantedView:
        return await self._there.gateway.commit(offer_id, self._who.who, emit)

    async def renew(self, lease_id: str) -> float:
        return await self._there.gateway.renew(lease_id, self._who.who)

    async def release(self, lease_id: str, reason: str) -> str:
        return await self._there.gateway.release(lease_id, reason, self._who.who)

    async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
        return await self._there.gateway.attend(lease_id, self._who.who, heed)

    async def connect(self, lease_id: str) -> Pipe:
        return await self._there.gateway.connect(lease_id, self._who.who)


def _config(name: str) -> SiteConfig:
    letter = name[-1]
    address = f"{letter}0.{name}.example:7443"
    return SiteConfig(
        site=name,
        trust_domain=f"{name}.example",
        node="g0",
        role="gateway",
        address=address,
        listen="127.0.0.1:7443",
        gateway_node="g0",
        gateway_address=address,
        join_address=address,
        join_listen="127.0.0.1:7444",
    )


class Bench:
    """The node a1 of uni-a that borrows, and what lies behind it."""

    def __init__(self, a: Site, b: Site, device: Device, store: Store) -> None:
        self.a, self.b, self.device, self.store = a, b, device, store
        self.borrowed = BorrowedLeases(store, BrokerFor(a.gateway.broker, "a1"), "uni-a/a1", None)
        self.events: list[RunEvent] = []

    async def run(self, model: str = "m") -> GrantedView:
        return await self.borrowed.run(Wish(model), self.events.append)

    async def report(self, *ended: LeaseEnd) -> dict[str, float]:
        """The device's node speaks to its gateway."""
        report = Report(
            "b1:7443",
            (ReportedDevice("cpu0", "cpu", 100),),
            (ReportedImage(IMAGE, 10, True, ("m",)),),
            tuple(self.device.running),
            1,
            0.0,
            donating=True,
            ended=ended,
        )
        return await self.b.gateway.report(report, NodeIdentity("uni-b.example", "b1"))

    async def row(self, lease_id: str) -> LeaseRecord:
        record = await self.store.lease(lease_id)
        assert record is not None
        return record

    async def ended(self, lease_id: str) -> LeaseRecord:
        """The lease's row once it has ended."""
        deadline = time.monotonic() + 10
        while (record := await self.row(lease_id)).ended_at is None:
            assert time.monotonic() < deadline, "it did not end"
            await asyncio.sleep(0.005)
        return record

    async def books(self, site: Site) -> list[tuple[str, str, str]]:
        records = await site.gateway._books.leases(include_ended=True)
        return [(one.side, one.state, one.reason) for one in records]

    async def called_back(self) -> None:
        """Wait until the device is nobody's again."""
        await until(lambda: not self.b.gateway.donor.state.book.taken())
        assert self.device.running == {}


Chain = Callable[[], Any]


@pytest.fixture
def chain(
    tmp_path: Path, authorities: Callable[[str], bytes], membership: Callable[..., Membership]
) -> Chain:
    """Open the whole way."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Bench]:
        async with AsyncExitStack() as ending:
            device, others = Device(), dict[str, Site]()
            for name in ("uni-a", "uni-b"):
                file = await StateFile.open(tmp_path / f"{name}.sqlite3")
                ending.push_async_callback(file.close)
                trust = Trust(_config(name), authorities(name), lambda node: True)
                trust.learn(membership("uni-a", "uni-b"))
                Site(name, trust, file, await SiteStore.of(file), device, others)
            for site in others.values():
                site.neighbours.learn()
                await site.gateway.start()
                ending.push_async_callback(site.gateway.close)
            file = await StateFile.open(tmp_path / "a1.sqlite3")
            ending.push_async_callback(file.close)
            bench = Bench(others["uni-a"], others["uni-b"], device, Store(file))
            ending.push_async_callback(bench.borrowed.close)
            await bench.report()
            await others["uni-a"].neighbours.ask_all()
            yield bench
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == []

    return opened


async def test_a_lease_goes_through_both_gateways_and_back(chain: Chain) -> None:
    """Each hop has it in its books; giving it back stops the runner, and each has the reason."""
    async with chain() as bench:
        granted = await bench.run()
        lease_id = granted.lease.id
        (order,) = bench.device.running.values()
        assert (order.lease_id, order.borrower) == (lease_id, "uni-a/a1")
        assert granted.lease.donor == "uni-b/b1"
        assert await bench.report() == {lease_id: pytest.approx(600.0, abs=5.0)}
        assert await bench.books(bench.a) == [("brokered", "committed", "")]
        assert await bench.books(bench.b) == [("lent", "active", "")]
        assert bench.b.gateway.summary().leased == 1
        assert await bench.borrowed.stop(lease_id, "enough") == "enough"
        await bench.called_back()
        assert bench.device.happened == ["stop: enough"]
        assert (await bench.row(lease_id)).reason == "enough"
        assert await bench.books(bench.a) == [("brokered", "ended", "enough")]
        assert await bench.books(bench.b) == [("lent", "ended", "enough")]


async def test_a_runner_that_dies_is_heard_of_by_its_borrower(chain: Chain) -> None:
    """With the reason that its node gave, at every hop."""
    async with chain() as bench:
        lease_id = (await bench.run()).lease.id
        bench.device.running.clear()
        await bench.report(LeaseEnd(lease_id, "its runner was ended by SIGKILL"))
        assert (await bench.ended(lease_id)).reason == "its runner was ended by SIGKILL"
        assert (await bench.books(bench.a))[0][2] == "its runner was ended by SIGKILL"
        await bench.called_back()


async def test_a_caller_that_goes_away_calls_it_off_at_every_hop(chain: Chain) -> None:
    """The node hears it, the device is free, and nothing is open in any books."""
    async with chain() as bench:
        bench.device.go.clear()
        running = asyncio.create_task(bench.run())
        await until(lambda: bench.device.running and bench.events)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await bench.called_back()
        assert bench.device.happened[0] == "called off"
        for site in (bench.a, bench.b):
            ((_, state, _),) = await bench.books(site)
            assert state == "ended"
        (record,) = await bench.store.leases(include_ended=True)
        assert record.state == "ended"
        bench.device.go.set()
        assert (await bench.run()).lease.state == "active"


async def test_no_moment_is_a_wrong_one_to_go_away(chain: Chain) -> None:
    """Whatever is under way in it, no books are left open, and the device comes back."""
    async with chain() as bench:
        for moments in range(60):
            bench.device.go.clear()
            running = asyncio.create_task(bench.run())
            for _ in range(moments):
                await asyncio.sleep(0)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            bench.device.go.set()
            await bench.called_back()
            assert bench.borrowed.count == 0
            assert await bench.store.leases(include_ended=False) == []
            for site in (bench.a, bench.b):
                assert {state for _, state, _ in await bench.books(site)} <= {"ended"}


async def test_a_start_that_fails_over_there_is_said_over_here(chain: Chain) -> None:
    """With the words of the node that could not."""
    async with chain() as bench:
        bench.device.fault = RunnerError("no engine there.", fix="install one")
        with pytest.raises(RefusedError, match=r"uni-b: no engine there\."):
            await bench.run()
        await bench.called_back()
        (record,) = await bench.store.leases(include_ended=True)
        assert (record.state, "no engine there" in record.reason) == ("ended", True)


async def test_a_node_that_leaves_ends_what_it_runs(chain: Chain) -> None:
    """Its borrower hears why."""
    async with chain() as bench:
        lease_id = (await bench.run()).lease.id
        await bench.b.gateway.leave(NodeIdentity("uni-b.example", "b1"))
        assert (await bench.ended(lease_id)).reason == "the node b1 has left uni-b"
        with pytest.raises(UnknownModelError):
            await bench.run()


async def test_whose_lease_it_is_is_settled_by_who_calls(chain: Chain) -> None:
    """Another node of the borrower's site, a node of the donor's own, and a stranger have none."""
    async with chain() as bench:
        lease_id = (await bench.run()).lease.id
        for gateway, who in (
            (bench.a.gateway, NodeIdentity("uni-a.example", "a2")),
            (bench.b.gateway, NodeIdentity("uni-b.example", "b1")),
            (bench.b.gateway, NodeIdentity("uni-c.example", "g0")),
        ):
            with pytest.raises(UnknownLeaseError):
                await gateway.renew(lease_id, who)
            with pytest.raises(UnknownLeaseError):
                await gateway.release(lease_id, "mine", who)
            with pytest.raises(UnknownLeaseError):
                await gateway.attend(lease_id, who)
            with pytest.raises(UnknownLeaseError):
                await gateway.connect(lease_id, who)
        assert await bench.a.gateway.renew(lease_id, NodeIdentity("uni-a.example", "a1")) > 590.0


async def test_a_site_shows_itself_and_the_others(chain: Chain) -> None:
    """What people see of the consortium from one gateway."""
    async with chain() as bench:
        await bench.run()
        await bench.a.neighbours.ask_all()
        view = await bench.a.gateway.federation()
        assert [(one.name, one.local, one.state, one.devices, one.leased) for one in view.sites] == [
            ("uni-a", True, "ready", 0, 0),
            ("uni-b", False, "ready", 1, 1),
        ]
        assert [(one.name, one.state) for one in view.nodes] == [("g0", "ready")]
