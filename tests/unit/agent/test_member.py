"""A node that is no gateway: what it reports and when, and whose orders it takes; all else is in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio
from waiting import until

from agent.daemon.faces import Order, Wish
from agent.daemon.member import Member
from agent.daemon.reports import LeaseEnd, Report
from agent.errors import NotGatewayError, PeerNodeError, RequestError
from agent.limits import MAX_REPORTED_IMAGES, REPORT_EVERY_S
from federation.identity.names import NodeIdentity
from pyrdma.errors import ChannelError
from pyrdma.image.manifest import ImageId

pytestmark = pytest.mark.asyncio

GATEWAY = NodeIdentity("uni-a.example", "a0")
NODE = NodeIdentity("uni-a.example", "a2")
ORDER = Order("l1", "m", ImageId(b"\x07" * 32), 60.0, "uni-b/b1")


class Gateway:
    """Takes reports, unless it has a fault or hangs."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.fault: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.answer: dict[str, float] = {}

    async def report(self, report: Report) -> dict[str, float]:
        self.reports.append(report)
        await self.go.wait()
        if self.fault is not None:
            raise self.fault
        return self.answer


class Running:
    """The leases of this node, of which only what the reports touch is here."""

    def __init__(self) -> None:
        self.on_end: Callable[[LeaseEnd], None] = lambda end: None
        self.times: list[Mapping[str, float]] = []
        self.lent: tuple[str, ...] = ("l1",)
        self.calls: list[str] = []

    def set_times(self, remaining_s: Mapping[str, float], since_s: float) -> None:
        self.times.append(remaining_s)

    async def close(self) -> None:
        for lease_id in self.lent:
            self.on_end(LeaseEnd(lease_id, "the agent stopped"))
        self.lent = ()

    async def start_runner(self, order: Order, emit: object) -> Any:
        self.calls.append(f"start {order.lease_id}")

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        self.calls.append(f"stop {lease_id}: {reason}")

    async def connect(self, lease_id: str) -> Any:
        self.calls.append(f"connect {lease_id}")


class Bench:
    """One node and its gateway."""

    def __init__(self, *, donates: bool = True) -> None:
        self.gateway: Any = Gateway()
        self.running: Any = Running() if donates else None
        self.unreached = 0
        self.described = 0
        self.fault: Exception | None = None
        self.member = Member(self.gateway, self.describe, self.running, "a0", self.note_unreached)

    async def describe(self, ended: tuple[LeaseEnd, ...]) -> Report:
        self.described += 1
        if self.fault is not None:
            raise self.fault
        lent = self.running.lent if self.running is not None else ()
        return Report("a1:7443", (), (), lent, 0, 0.0, donating=self.running is not None, ended=ended)

    def note_unreached(self) -> None:
        self.unreached += 1

    @property
    def said(self) -> list[tuple[tuple[str, str], ...]]:
        """The ends that each report named."""
        return [one.ended for one in self.gateway.reports]


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.member.close()


async def test_an_end_is_reported_at_once_and_until_it_was_answered(bench: Bench) -> None:
    """Once the gateway has taken it, it is not said again; times in the answer are taken over."""
    bench.gateway.answer = {"l1": 42.0}
    begun = time.monotonic()
    bench.member.start()
    await until(lambda: bench.running.times)
    assert (bench.said, bench.running.times) == ([()], [{"l1": 42.0}])
    bench.gateway.fault = PeerNodeError("it is not reachable.")
    bench.running.on_end(LeaseEnd("l1", "killed"))
    await until(lambda: len(bench.said) == 2)
    bench.running.on_end(LeaseEnd("l2", "stopped"))
    await until(lambda: len(bench.said) == 3)
    bench.gateway.fault = None
    bench.running.on_end(LeaseEnd("l3", "over"))
    await until(lambda: len(bench.said) == 4)
    bench.running.on_end(LeaseEnd("l4", "over"))
    await until(lambda: len(bench.said) == 5)
    both = (LeaseEnd("l1", "killed"), LeaseEnd("l2", "stopped"))
    assert bench.said[1:] == [both[:1], both, (*both, LeaseEnd("l3", "over")), (LeaseEnd("l4", "over"),)]
    assert time.monotonic() - begun < REPORT_EVERY_S, "no end waited for its turn"
    assert bench.unreached == 2
    assert len(bench.running.times) == 3


async def test_an_end_during_a_report_goes_into_the_next_one(bench: Bench) -> None:
    """The answer is for what was in the report, not for what has happened since."""
    bench.gateway.go.clear()
    bench.member.start()
    await until(lambda: bench.said)
    bench.running.on_end(LeaseEnd("l1", "killed"))
    bench.gateway.go.set()
    await until(lambda: len(bench.said) == 2)
    assert bench.said == [(), (LeaseEnd("l1", "killed"),)]


async def test_reports_follow_each_other_without_news(bench: Bench) -> None:
    """Each names what is the case then; a gateway that answers late delays the next one, not for ever."""
    bench.member.start()
    await until(lambda: len(bench.said) == 2)
    assert [one.leases for one in bench.gateway.reports] == [("l1",), ("l1",)]


@pytest.mark.parametrize("fault", [ChannelError("the cache starts again."), ValueError("a defect")])
async def test_a_node_that_cannot_describe_itself_does_not_blame_its_gateway(
    bench: Bench, fault: Exception
) -> None:
    """It reports again when it can."""
    bench.fault = fault
    bench.member.start()
    await until(lambda: bench.described)
    bench.fault = None
    bench.running.on_end(LeaseEnd("l1", "killed"))
    await until(lambda: bench.said)
    assert bench.said == [(LeaseEnd("l1", "killed"),)]
    assert bench.unreached == 0


async def test_the_ends_of_one_report_are_bounded(bench: Bench) -> None:
    """The gateway misses the others in what runs here."""
    for number in range(MAX_REPORTED_IMAGES + 10):
        bench.running.on_end(LeaseEnd(f"l{number}", "killed"))
    bench.member.start()
    await until(lambda: bench.said)
    assert len(bench.said[0]) == MAX_REPORTED_IMAGES


async def test_a_node_that_stops_ends_its_leases_and_says_so(bench: Bench) -> None:
    """The last report names them, and no device; nothing follows it."""
    bench.member.start()
    await until(lambda: bench.said)
    await bench.member.stop_lending()
    last = bench.gateway.reports[-1]
    assert (last.ended, last.leases, last.donating) == ((LeaseEnd("l1", "the agent stopped"),), (), False)
    bench.running.on_end(LeaseEnd("l9", "too late"))
    for _ in range(20):
        await asyncio.sleep(0)  # whatever could run has run
    assert bench.gateway.reports[-1] is last


async def test_a_node_stops_though_its_gateway_is_gone(bench: Bench) -> None:
    """What ran here has ended; its gateway will miss it."""
    bench.gateway.fault = PeerNodeError("it is not reachable.")
    await bench.member.stop_lending()
    assert bench.running.lent == ()


async def test_orders_are_carried_out_where_something_is_donated(bench: Bench) -> None:
    """A connection to a runner is the gateway's alone to ask for."""
    await bench.member.start_runner(ORDER, lambda _: None)
    await bench.member.stop_runner("l1", "enough")
    await bench.member.connect("l1", GATEWAY)
    assert bench.running.calls == ["start l1", "stop l1: enough", "connect l1"]
    with pytest.raises(NotGatewayError):
        await bench.member.connect("l1", NODE)
    assert len(bench.running.calls) == 3


async def test_a_node_that_donates_nothing_refuses_orders() -> None:
    """There is nothing to stop on it either, and it reports that it has nothing."""
    bench = Bench(donates=False)
    with pytest.raises(RequestError, match="donates nothing"):
        await bench.member.start_runner(ORDER, lambda _: None)
    await bench.member.stop_runner("l1", "enough")
    with pytest.raises(NotGatewayError):
        await bench.member.connect("l1", GATEWAY)
    bench.member.start()
    await until(lambda: bench.said)
    await bench.member.stop_lending()
    assert [one.donating for one in bench.gateway.reports] == [False, False]


async def test_what_only_a_gateway_can_do_is_refused_by_name(bench: Bench) -> None:
    """With the name of the one that can."""
    member = bench.member
    report = await bench.describe(())
    calls = [
        member.report(report, NODE),
        member.renew_certificate(b"", NODE),
        member.leave(NODE),
        member.borrow(Wish("m"), NODE, lambda _: None),
        member.renew("l1", NODE),
        member.release("l1", "", NODE),
        member.attend("l1", NODE),
    ]
    for call in calls:
        with pytest.raises(NotGatewayError) as caught:
            await call
        assert caught.value.fix == "ask its gateway, a0"
