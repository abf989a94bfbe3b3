"""What a gateway shows of its queue, and remembers for it; the last week is in a real state file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.daemon.reports import Report, ReportedDevice
from agent.gateway.core.book import Lease, LeaseState
from agent.gateway.core.events import ClockRead, NodeHeard, OfferAsked, OfferCommitted, PolicyChanged
from agent.gateway.core.fleet import Device, DeviceRef, NodeReport
from agent.gateway.core.leases import State, step
from agent.gateway.core.request import LeaseRequest
from agent.gateway.publishing import Publishing
from agent.limits import MAX_HISTORY_ROWS, MAX_NODES
from agent.openness import history
from agent.openness.history import History
from agent.openness.statistics import KEPT_S, Reclaim
from agent.state import StateFile
from federation.policy.policy import ANY, AccountRule, ClassRule, Policy, PurposeRule

pytestmark = pytest.mark.asyncio

NOW_S = 1000.0
POLICY = Policy(
    name="lab",
    version=3,
    effective_at_s=0,
    digest="ab" * 32,
    accounts={
        "/uni-b": AccountRule("/uni-b", 3, (), ("uni-b",), {}, True),
        "/uni-c": AccountRule("/uni-c", 1, ("student",), ("uni-c",), {}, True),
    },
    classes={"student": ClassRule("student", 100, ()), "newcomer": ClassRule("newcomer", 0, ())},
    purposes={"research": PurposeRule("research", 1000, (ANY,))},
    device_classes={"h100": 1000},
)
REQUEST = LeaseRequest(
    id="r1",
    borrower_site="uni-b",
    borrower_node="b1",
    model="llama",
    image_id="a" * 64,
    total_bytes=10,
    account="/uni-b/lab",
    purpose="research",
)
LEASE = Lease(
    id="l1",
    offer_id="o1",
    request=REQUEST,
    devices=(DeviceRef("n1", "gpu0"),),
    state=LeaseState.COMMITTED,
    deadline_s=2000.0,
)


def device(name: str = "gpu0", reclaims: int = 0, last_reclaim_s: float = 0.0) -> ReportedDevice:
    """A device as its node reports it."""
    return ReportedDevice(
        name, "gpu", 100, device_class="h100", reclaims=reclaims, last_reclaim_s=last_reclaim_s
    )


def report(*devices: ReportedDevice) -> Report:
    """A node's word."""
    return Report("n1:7443", devices, (), (), 1, 0.0, donating=True)


class Bench:
    """One gateway's publishing over a state that the test makes."""

    def __init__(self, file: StateFile) -> None:
        self.file = file
        self.history = History(file)
        self.state, _ = step(State(), ClockRead(1_700_000_000, 0, NOW_S))
        self.publishing = Publishing("uni-a", lambda: self.state, self.history, lambda: NOW_S)

    def fill(self, *waiting: LeaseRequest) -> None:
        """Have a policy, one device that is leased, and requests that wait."""
        one = Device("gpu0", "gpu", 100, device_class="h100")
        node = NodeReport("n1", "n1:7443", (one,), (), (), 1, True, 0.0)
        for event in (PolicyChanged(POLICY, NOW_S), NodeHeard(node, NOW_S)):
            self.state, _ = step(self.state, event)
        student = replace(REQUEST, id="r0", borrower_site="uni-c", account="/uni-c")
        self.state, _ = step(self.state, OfferAsked(student, "o0", NOW_S))
        self.state, _ = step(self.state, OfferCommitted("o0", "uni-c", NOW_S))
        for request in waiting:
            self.state, _ = step(self.state, OfferAsked(request, f"o-{request.id}", NOW_S))

    async def written(self) -> None:
        await asyncio.gather(*self.publishing._writing)


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    """Open one."""
    file = await StateFile.open(folder / "state.sqlite3")
    one = Bench(file)
    try:
        yield one
    finally:
        await one.publishing.close()
        await file.close()


async def test_the_queue_is_shown_in_its_order_with_reasons(tmp_path: Path) -> None:
    """Each request with its place and why; nothing is changed by looking."""
    async with bench(tmp_path) as one:
        mine = replace(REQUEST, id="r2")
        theirs = replace(REQUEST, id="r3", borrower_site="uni-c", account="/uni-c")
        one.fill(mine, theirs)
        before = one.state
        view = await one.publishing.view()
        assert one.state is before
        assert [each.place.position for each in view.requests] == [1, 2]
        assert {each.borrower for each in view.requests} == {"uni-b/b1", "uni-c/b1"}
        assert all(each.place.reasons[0].sentence and each.place.waiting == 2 for each in view.requests)
        assert (view.consortium, view.policy_version) == ("lab", 3)
        assert [(each.device_class, each.lent, each.used) for each in view.devices] == [("h100", 1, 1)]
        assert [(each.institution, each.due_permille) for each in view.shares] == [
            ("/uni-b", 750),
            ("/uni-c", 250),
        ]


async def test_a_grant_is_remembered_with_its_class_and_the_size_of_its_share(tmp_path: Path) -> None:
    """Figures are shown once there are enough; classes with a reserve have their own."""
    async with bench(tmp_path) as one:
        one.fill()
        student = replace(LEASE, request=replace(REQUEST, account="/uni-c", classes=("student", "newcomer")))
        for waited_s in (1.0, 2.0, 3.0, 4.0):
            one.publishing.granted(student, waited_s)
        await one.written()
        (cell,) = (await one.publishing.view()).reserved_waits
        assert (cell.group, cell.requests, cell.p50_s) == ("student", None, None)
        one.publishing.granted(student, 5.0)
        await one.written()
        view = await one.publishing.view()
        (cell,) = view.reserved_waits
        assert (cell.group, cell.device_class, cell.requests, cell.p90_s) == ("student", "h100", 5, 5.0)
        assert [each.group for each in view.waits] == ["over 20 %"]


async def test_reclaims_are_counted_from_a_nodes_first_report_on(tmp_path: Path) -> None:
    """Once each; an agent that starts again begins at none, and one that is gone is not remembered."""
    async with bench(tmp_path) as one:
        one.publishing.heard("n1", report(device(reclaims=4, last_reclaim_s=9.0)))
        one.publishing.heard("n1", report(device(reclaims=5, last_reclaim_s=2.5)))
        one.publishing.heard("n1", report(device(reclaims=5, last_reclaim_s=2.5)))
        one.publishing.heard("n1", report(device(reclaims=0)))
        one.publishing.heard("n1", report(device(reclaims=1, last_reclaim_s=3.5)))
        await one.written()
        reclaims = (await one.publishing.view()).reclaims
        assert (reclaims.reclaims, reclaims.p50_s, reclaims.longest_s) == (2, 2.5, 3.5)


async def test_what_nodes_say_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Devices under ever other names, and nodes that come and go, are forgotten."""
    async with bench(tmp_path) as one:
        one.fill()
        for at in range(50):
            one.publishing.heard("n1", report(device(f"gpu{at}")))
        for at in range(MAX_NODES + 50):
            one.publishing.heard(f"gone{at}", report(device()))
        one.publishing.heard("n1", report(device()))
        kept = one.publishing._reclaims
        assert len(kept) <= MAX_NODES
        assert list(kept["n1"]) == ["gpu0"]


async def test_a_disk_that_fails_costs_a_figure_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The grant itself was carried out long before."""
    async with bench(tmp_path) as one:
        await one.file.write(
            lambda db: db.execute(
                "CREATE TRIGGER full BEFORE INSERT ON waits BEGIN SELECT RAISE(ABORT, 'it is full'); END"
            )
        )
        one.publishing.granted(LEASE, 1.0)
        await one.written()
        assert "could not be written" in caplog.text
        assert (await one.publishing.view()).waits == ()


async def test_the_week_is_bounded_by_time_and_by_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too old goes with the next; a clock that jumps back does not let it grow for ever."""
    assert MAX_HISTORY_ROWS > 1000
    monkeypatch.setattr(history, "MAX_HISTORY_ROWS", 3)
    async with bench(tmp_path) as one:
        await one.history.add_reclaim(Reclaim(100.0, 1.0))
        await one.history.add_reclaim(Reclaim(200.0 + KEPT_S, 2.0))
        assert [each.seconds for each in await one.history.reclaims(0.0)] == [2.0]
        for at in range(20):
            await one.history.add_reclaim(Reclaim(1000.0 - at, float(at)))
        assert len(await one.history.reclaims(0.0)) <= 4
