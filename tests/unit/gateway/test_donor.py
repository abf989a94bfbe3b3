"""A site as a donor: real books on disk, nodes in memory; the rules are in ``test_gateway_leases``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.faces import (
    Emit,
    LeaseEnd,
    LeaseNotice,
    LeaseOffer,
    OfferRequest,
    Order,
    Refusal,
    Report,
    ReportedDevice,
)
from agent.daemon.pipes import Pipe
from agent.errors import PeerNodeError, RefusedError, RunnerError, StateError, UnknownLeaseError
from agent.gateway.core.book import Cause, LeaseState
from agent.gateway.core.events import Decision
from agent.gateway.core.law import Law
from agent.gateway.core.request import KnownModel, LeaseRequest
from agent.gateway.donor import LocalDonor
from agent.limits import LEASE_REPORT_GRACE_S
from agent.local.views import AcceptedView, GrantedView, LeaseView, PhaseView, PlaceView, RunEvent, StartView
from agent.state import SiteStore, StateFile
from federation.policy.policy import AccountRule, Lend, Policy, PurposeRule
from pyrdma.image.manifest import ImageId

pytestmark = pytest.mark.asyncio

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


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition with a deadline."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.002)


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


# --- from the offer to the grant --------------------------------------------------------------------------


async def test_a_lease_is_accepted_started_and_granted(tmp_path: Path) -> None:
    """Its borrower hears that it is accepted, then how it starts; it is on disk before its node hears."""
    async with site(tmp_path) as one:
        await one.report()
        offer = await one.offer()
        assert (offer.node, offer.warm) == ("n1", False)
        seen: list[RunEvent] = []
        on_disk: list[str] = []

        async def prepare(node: str, request: LeaseRequest) -> None:
            on_disk.extend(row.state for row in await one.books.leases(include_ended=False))

        one.prepare = prepare
        answer = await one.donor.commit(offer.offer_id, "uni-b", seen.append)
        lease_id = answer.lease.id
        assert seen == [AcceptedView(lease_id, 60.0, "uni-a", "n1"), PhaseView("map", 0.1)]
        assert on_disk == ["committed"]
        (order,) = one.nodes["n1"].orders
        assert (order.lease_id, order.borrower, order.ttl_s) == (lease_id, "uni-b/b1", 60.0)
        assert await one.rows() == {lease_id: ("active", "")}
        assert one.donor.lends(lease_id, "uni-b", "b1")
        assert not one.donor.lends(lease_id, "uni-b", "b2")
        assert not one.donor.lends(lease_id, "uni-c", "b1")


async def test_a_start_that_fails_is_told_as_it_is_and_the_device_comes_back(tmp_path: Path) -> None:
    """The borrower hears the node's own error; the device is free once its node has nothing of it."""
    async with site(tmp_path) as one:
        await one.report()
        one.nodes["n1"].fault = RunnerError("no engine here.", fix="install one")
        offer = await one.offer()
        with pytest.raises(RunnerError, match="no engine here"):
            await one.donor.commit(offer.offer_id, "uni-b", lambda _: None)
        await until(lambda: one.free)
        ((state, reason),) = (await one.rows()).values()
        assert (state, reason) == ("ended", "no engine here.")


async def test_an_image_that_cannot_be_brought_ends_the_lease(tmp_path: Path) -> None:
    """What fails before the node is told is a start that failed, too."""
    async with site(tmp_path) as one:

        async def prepare(node: str, request: LeaseRequest) -> None:
            raise PeerNodeError("nobody has it.")

        one.prepare = prepare
        await one.report()
        with pytest.raises(PeerNodeError, match="nobody has it"):
            await one.donor.commit((await one.offer()).offer_id, "uni-b", lambda _: None)
        assert one.nodes["n1"].orders == []
        await until(lambda: one.free)


async def test_a_defect_during_a_start_ends_the_lease_too(tmp_path: Path) -> None:
    """What is no error of ours must not leave a lease behind that nobody can use."""
    async with site(tmp_path) as one:
        await one.report()
        one.nodes["n1"].fault = ValueError("a defect")
        with pytest.raises(ValueError, match="a defect"):
            await one.donor.commit((await one.offer()).offer_id, "uni-b", lambda _: None)
        await until(lambda: one.free)
        assert [reason for _, reason in (await one.rows()).values()] == ["a defect of the donor's gateway"]


async def test_the_time_that_a_node_is_given_is_what_is_left_when_it_is_told(tmp_path: Path) -> None:
    """An image may take longer to come near than a lease lives; its borrower has renewed it meanwhile."""
    async with site(tmp_path) as one:
        come = asyncio.Event()

        async def prepare(node: str, request: LeaseRequest) -> None:
            await come.wait()

        one.prepare = prepare
        await one.report()
        seen: list[RunEvent] = []
        offer = await one.offer()
        committing = asyncio.create_task(one.donor.commit(offer.offer_id, "uni-b", seen.append))
        await until(lambda: seen)
        assert isinstance(seen[0], AcceptedView)
        one.now_s += 50.0
        assert await one.donor.renew(seen[0].lease_id, "uni-b") == 60.0
        one.now_s += 30.0
        await one.report()
        come.set()
        await committing
        assert one.nodes["n1"].orders[0].ttl_s == 30.0


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("moment", ["before it is on disk", "while it starts"])
async def test_a_commit_that_is_called_off_leaves_nothing(tmp_path: Path, moment: str, times: int) -> None:
    """The node hears that the start is off, then that it has to stop; the device is free, with the reason."""
    async with site(tmp_path) as one:
        await one.report()
        node = one.nodes["n1"]
        node.go.clear()
        offer = await one.offer()
        committing = asyncio.create_task(one.donor.commit(offer.offer_id, "uni-b", lambda _: None))
        if moment == "while it starts":
            await until(lambda: node.orders)
        else:
            await asyncio.sleep(0)
            assert one.donor.state.book.leases == {}
        for _ in range(times):  # a call may be cancelled by its caller, and by the server that ends
            committing.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await committing
        await until(lambda: one.free)
        assert node.running == set()
        ((lease_id, row),) = (await one.rows()).items()
        assert row == ("ended", "the request was called off")
        assert node.happened[-1] == f"stop {lease_id}: the request was called off"
        assert node.happened[:-1] in ([], ["called off"])
        assert (await one.offer()).node == "n1"


async def test_a_listener_that_refuses_the_lease_calls_it_off(tmp_path: Path) -> None:
    """Whoever takes the events may find that it does not want what they announce."""
    async with site(tmp_path) as one:
        await one.report()

        def refuse(event: RunEvent) -> None:
            raise PeerNodeError("not this one.")

        with pytest.raises(PeerNodeError, match="not this one"):
            await one.donor.commit((await one.offer()).offer_id, "uni-b", refuse)
        await until(lambda: one.free)
        assert one.nodes["n1"].running == set()


async def test_a_lease_that_ends_while_it_starts_tells_whoever_waits(tmp_path: Path) -> None:
    """The borrower hears why, and the node is told to stop."""
    async with site(tmp_path) as one:
        await one.report()
        one.nodes["n1"].go.clear()
        offer = await one.offer()
        committing = asyncio.create_task(one.donor.commit(offer.offer_id, "uni-b", lambda _: None))
        await until(lambda: one.nodes["n1"].orders)
        await one.donor.gone("n1", "its owner needs it")
        with pytest.raises(RefusedError, match="ended before its model answered: its owner needs it"):
            await committing
        await until(lambda: one.nodes["n1"].happened[-1].startswith("stop"))
        assert one.nodes["n1"].happened[0] == "called off"


async def test_an_offer_is_committed_once(tmp_path: Path) -> None:
    """The second call is refused, while the lease starts and afterwards; the first one does not notice."""
    async with site(tmp_path) as one:
        await one.report()
        one.nodes["n1"].go.clear()
        offer = await one.offer()
        first = asyncio.create_task(one.donor.commit(offer.offer_id, "uni-b", lambda _: None))
        await until(lambda: one.nodes["n1"].orders)
        with pytest.raises(RefusedError, match="taken already"):
            await one.donor.commit(offer.offer_id, "uni-b", lambda _: None)
        one.nodes["n1"].go.set()
        lease_id = (await first).lease.id
        with pytest.raises(RefusedError, match="taken already"):
            await one.donor.commit(offer.offer_id, "uni-b", lambda _: None)
        assert set(one.donor.state.book.leases) == {lease_id}
        assert len(one.nodes["n1"].orders) == 1


async def test_an_offer_is_its_askers_alone_and_can_be_given_back(tmp_path: Path) -> None:
    """Another site can neither commit it nor give it back; given back, its device is free."""
    async with site(tmp_path) as one:
        await one.report()
        offer = await one.offer()
        with pytest.raises(UnknownLeaseError):
            await one.donor.commit(offer.offer_id, "uni-c", lambda _: None)
        with pytest.raises(UnknownLeaseError):
            await one.donor.release(offer.offer_id, "", "uni-c")
        assert not one.free
        assert await one.donor.release(offer.offer_id, "another was taken", "uni-b") == "another was taken"
        assert one.free


async def test_what_a_donor_cannot_offer_it_refuses_with_a_sentence(tmp_path: Path) -> None:
    """The rule's refusal is passed on as it is."""
    async with site(tmp_path) as one:
        answer = await one.donor.ask_offer(REQUEST, "uni-b")
        assert isinstance(answer, Refusal)
        assert answer.code == "no-device"
        await one.report()
        answer = await one.donor.ask_offer(replace(REQUEST, total_bytes=101), "uni-b")
        assert isinstance(answer, Refusal)
        assert (answer.code, answer.terminal) == ("too-large", True)


# --- while it lasts, and its end --------------------------------------------------------------------------


async def test_only_its_borrower_may_do_anything_with_a_lease(tmp_path: Path) -> None:
    """Every call of another site is answered as if there were no such lease, and changes nothing."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        calls: list[Awaitable[object]] = [
            one.donor.renew(lease_id, "uni-c"),
            one.donor.release(lease_id, "mine now", "uni-c"),
            one.donor.attend(lease_id, "uni-c"),
            one.donor.connect(lease_id, "uni-c"),
        ]
        for call in calls:
            with pytest.raises(UnknownLeaseError):
                await call
        assert one.donor.state.book.leases[lease_id].state is LeaseState.ACTIVE


async def test_giving_back_stops_the_runner_and_tells_who_attends(tmp_path: Path) -> None:
    """The node is told once, the end is told to everybody who waits for it, and to whoever asks later."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        attending = [asyncio.create_task(one.donor.attend(lease_id, "uni-b")) for _ in range(2)]
        await asyncio.sleep(0)
        assert await one.donor.release(lease_id, "enough", "uni-b") == "enough"
        assert await asyncio.gather(*attending) == ["enough", "enough"]
        await until(lambda: one.free)
        assert one.nodes["n1"].happened == [f"stop {lease_id}: enough"]
        assert await one.donor.attend(lease_id, "uni-b") == "enough"
        assert one.donor.lends(lease_id, "uni-b", "b1"), "its node may still hear how it ended"
        with pytest.raises(UnknownLeaseError, match="enough"):
            await one.donor.release(lease_id, "again", "uni-b")
        with pytest.raises(UnknownLeaseError, match="enough"):
            await one.donor.renew(lease_id, "uni-b")


async def test_a_lease_that_nobody_renews_ends_by_the_clock(tmp_path: Path) -> None:
    """Without any call: the donor's own clock ends it, tells who attends, and stops the runner."""
    async with site(tmp_path) as one:
        await one.donor.close()
        one.donor = one.new_donor(clock=time.monotonic, ttl_s=0.2)
        await one.donor.start()
        lease_id = await one.lease()
        async with asyncio.timeout(10):
            reason = await one.donor.attend(lease_id, "uni-b")
        assert reason == "its borrower did not renew it in time"
        await until(lambda: one.free)
        assert one.nodes["n1"].running == set()


async def test_a_runner_that_ends_is_told_with_its_nodes_reason(tmp_path: Path) -> None:
    """The report frees the device at once; saying it again, or another node saying it, changes nothing."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        assert await one.report("n2", ended=(LeaseEnd(lease_id, "I want it"),)) == {}
        assert await one.report() == {lease_id: 60.0}
        attending = asyncio.create_task(one.donor.attend(lease_id, "uni-b"))
        await asyncio.sleep(0)
        for _ in range(2):
            assert await one.report(leases=(), ended=(LeaseEnd(lease_id, "killed by SIGKILL"),)) == {}
        assert await attending == "killed by SIGKILL"
        assert one.free
        assert one.nodes["n1"].happened == []


async def test_an_owner_whom_the_gateway_has_not_heard_is_believed_at_the_end(tmp_path: Path) -> None:
    """His device may be lent again before the next report: it is the end that says whose it was."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        end = LeaseEnd(lease_id, "the owner of cpu0 needs it", for_owner=True)
        assert await one.report("n2", ended=(end,)) == {}
        assert await one.report() == {lease_id: 60.0}, "only the lease's own node is"
        await one.report(leases=(), ended=(end,))
        assert one.donor.state.book.ended[lease_id].cause is Cause.RECLAIMED


async def test_an_end_that_is_under_way_is_over_when_its_node_says_so(tmp_path: Path) -> None:
    """A node that could not be told to stop may say by itself that the runner has gone."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        one.nodes["n1"].unreachable = True
        await one.donor.release(lease_id, "enough", "uni-b")
        assert not one.free
        await one.report(leases=(), ended=(LeaseEnd(lease_id, "its time was over"),))
        assert one.free


async def test_a_node_that_could_not_be_told_is_told_after_its_next_report(tmp_path: Path) -> None:
    """Until then its device is nobody else's."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        node = one.nodes["n1"]
        node.unreachable = True
        await one.donor.release(lease_id, "enough", "uni-b")
        second = replace(REQUEST, request_id="r2")
        assert isinstance(await one.donor.ask_offer(second, "uni-b"), PlaceView)
        await one.donor.release("r2", "not wanted any more", "uni-b")
        node.unreachable = False
        one.now_s += 1.0
        await one.report()
        await until(lambda: one.free)
        assert node.running == set()


async def test_a_node_cannot_end_what_runs_on_another_one(tmp_path: Path) -> None:
    """It is told to stop what it claims to run; the lease goes on where it is."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        await one.report("n2", leases=(lease_id,))
        await until(lambda: one.nodes["n2"].happened)
        await one.report()
        assert one.donor.state.book.leases[lease_id].state is LeaseState.ACTIVE
        assert lease_id in one.nodes["n1"].running


async def test_a_node_cannot_call_off_a_start_on_another_one(tmp_path: Path) -> None:
    """The same while the lease is being started."""
    async with site(tmp_path) as one:
        await one.report()
        one.nodes["n1"].go.clear()
        offer = await one.offer()
        committing = asyncio.create_task(one.donor.commit(offer.offer_id, "uni-b", lambda _: None))
        await until(lambda: one.nodes["n1"].orders)
        await one.report("n2", leases=(one.nodes["n1"].orders[0].lease_id,))
        await until(lambda: one.nodes["n2"].happened)
        one.nodes["n1"].go.set()
        assert (await committing).lease.state == "active"


async def test_an_order_to_stop_that_hangs_is_not_given_again(tmp_path: Path) -> None:
    """Each report of a node that does not end its runner would add another call that waits."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        node = one.nodes["n1"]
        node.may_stop.clear()
        await one.donor.release(lease_id, "enough", "uni-b")
        for _ in range(5):
            one.now_s += 2.0
            await one.report()
        assert len(node.happened) == 1
        node.may_stop.set()
        await until(lambda: one.free)


# --- the disk ---------------------------------------------------------------------------------------------


async def test_a_commit_that_cannot_be_written_is_refused_and_the_device_is_free(tmp_path: Path) -> None:
    """Nothing is started for it, no lease is known, and its offer is gone with it."""
    async with site(tmp_path) as one:
        await one.report()
        offer = await one.offer()
        await one.refuse_writes("'committed'")
        with pytest.raises(StateError, match="the disk is full"):
            await one.donor.commit(offer.offer_id, "uni-b", lambda _: None)
        assert one.free
        assert one.donor.state.book.leases == {}
        assert one.nodes["n1"].orders == []
        assert await one.rows() == {}


async def test_a_renewal_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A promise that a restart would forget is none; the lease keeps the time that it had."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        await one.refuse_writes("'active'")
        one.now_s += 20.0
        with pytest.raises(StateError):
            await one.donor.renew(lease_id, "uni-b")
        assert await one.report() == {lease_id: 40.0}


async def test_an_end_goes_on_though_it_cannot_be_written(tmp_path: Path) -> None:
    """A full disk keeps no device, and a start that has answered is granted all the same."""
    async with site(tmp_path) as one:
        await one.refuse_writes("'active', 'ended'")
        lease_id = await one.lease()
        assert await one.donor.release(lease_id, "enough", "uni-b") == "enough"
        await until(lambda: one.free)
        assert await one.rows() == {lease_id: ("committed", "")}


# --- after a start of the gateway -------------------------------------------------------------------------


async def test_a_lease_that_runs_on_is_adopted_after_a_restart(tmp_path: Path) -> None:
    """It keeps its device until its node has spoken, then lives on, with the birthday that it had."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        (born,) = [row.created_at for row in await one.books.leases(include_ended=False)]
        await one.donor.close()
        one.donor = one.new_donor()
        await one.donor.start()
        assert not one.free
        assert one.donor.lends(lease_id, "uni-b", "b1")
        assert await one.report() == {lease_id: 60.0}
        assert one.donor.state.book.leases[lease_id].state is LeaseState.ACTIVE
        one.now_s += 30.0
        assert await one.donor.renew(lease_id, "uni-b") == 60.0
        (row,) = await one.books.leases(include_ended=False)
        assert (row.created_at, row.deadline_s) == (born, one.now_s + 60.0)


async def test_a_lease_keeps_its_terms_after_a_restart(tmp_path: Path) -> None:
    """What was accepted, since when it has run, for which request; to commit again gives no new one."""
    async with site(tmp_path) as one:
        await one.report()
        request = replace(REQUEST, instant=True, duration_s=3600, account="/uni-b/lab", purpose="research")
        offer = await one.offer(request)
        lease_id = (await one.donor.commit(offer.offer_id, "uni-b", lambda _: None)).lease.id
        before = one.donor.state.book.leases[lease_id]
        assert (before.terms.instant, before.terms.max_duration_s, before.terms.grace_s) == (True, 3600, 5)
        await one.donor.close()
        one.now_s += 30.0
        one.donor = one.new_donor()
        await one.donor.start()
        await one.report()
        after = one.donor.state.book.leases[lease_id]
        for name in ("offer_id", "devices", "terms", "granted_at_s", "deadline_s"):
            assert getattr(after, name) == getattr(before, name), name
        for name in ("id", "devices", "account", "purpose", "instant", "duration_s"):
            assert getattr(after.request, name) == getattr(before.request, name), name
        refusal = await one.donor.ask_offer(request, "uni-b")
        assert isinstance(refusal, Refusal)
        assert refusal.code == "granted-already"
        with pytest.raises(RefusedError, match=f"its lease is {lease_id}"):
            await one.donor.commit(offer.offer_id, "uni-b", lambda _: None)


async def test_a_lease_of_a_long_boot_does_not_end_by_a_restart(tmp_path: Path) -> None:
    """Its longest time counts from its grant, not from when the machine was started."""
    async with site(tmp_path) as one:
        one.now_s = 30 * 86400.0
        lease_id = await one.lease()
        await one.donor.close()
        one.donor = one.new_donor()
        await one.donor.start()
        await one.report()
        one.now_s += 30.0
        assert await one.donor.renew(lease_id, "uni-b") == 60.0


async def test_a_turn_that_comes_while_a_request_is_asked_for_is_not_missed(tmp_path: Path) -> None:
    """Both that wait with one request hear of the offer at once, not when their question is over."""
    async with site(tmp_path) as one:
        await one.report()
        first = await one.offer()
        other = replace(REQUEST, request_id="r2")
        asking = [asyncio.create_task(one.donor.ask_offer(other, "uni-b", 3600.0)) for _ in range(2)]
        freeing = asyncio.create_task(one.donor.release(first.offer_id, "not wanted", "uni-b"))
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*asking)
        await freeing
        assert all(isinstance(answer, LeaseOffer) for answer in answers)
        assert one.donor._turns._turns_come == {}


async def test_a_defect_of_who_is_told_keeps_nothing_from_being_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the journal, nor who counts grants, nor one who attends keeps a lease from its course."""
    async with site(tmp_path) as one:

        def broken(*_: object) -> None:
            raise ValueError("a defect")

        one.donor._turns._record = broken
        one.donor.on_granted(broken)
        lease_id = await one.lease()
        heard: list[Any] = []
        attending = [
            asyncio.create_task(one.donor.attend(lease_id, "uni-b", heed)) for heed in (broken, heard.append)
        ]
        await until(lambda: len(one.donor._turns._heeds.get(lease_id, ())) == 2)
        await one.report(devices=(replace(REPORT.devices[0], state="reclaiming", reclaim_left_s=10.0),))
        assert [one.left_s for one in heard] == [10.0]
        assert "news to uni-b" in caplog.text
        await one.donor.gone("n1", "its owner needs it")
        assert await asyncio.gather(*attending) == ["its owner needs it"] * 2
        await until(lambda: one.free)
        assert one.donor._turns._heeds == {}
        assert one.donor._turns._ends == {}


WANTED = replace(REPORT.devices[0], state="reclaiming", reclaim_left_s=10.0)


async def test_an_owner_that_changes_its_mind_lets_the_lease_go_on_and_its_borrower_hears_it(
    tmp_path: Path,
) -> None:
    """Its node gave the notice itself: it is told only that the gateway has none."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        heard: list[LeaseNotice | None] = []
        attending = asyncio.create_task(one.donor.attend(lease_id, "uni-b", heard.append))
        await until(lambda: one.donor._turns._heeds)
        await one.report(devices=(WANTED,))
        await one.report()
        assert heard == [LeaseNotice("its owner needs the device", 10.0), None]
        assert one.donor.state.book.leases[lease_id].notice_deadline_s is None
        await until(lambda: not one.donor._turns.orders._words)
        assert one.nodes["n1"].happened == [f"goes on {lease_id}"]
        await one.donor.release(lease_id, "enough", "uni-b")
        assert await attending == "enough"


async def test_a_notice_of_the_gateways_own_is_withdrawn_once_its_node_hears_it(tmp_path: Path) -> None:
    """Not before the notice itself came there; again when it was not heard; not once the lease is over."""
    async with site(tmp_path) as one:
        lease_id, node = await one.lease(), one.nodes["n1"]
        turns, node.may_hear = one.donor._turns, asyncio.Event()
        lease = one.donor.state.book.leases[lease_id]
        preempted = replace(
            lease,
            notice_deadline_s=one.now_s + 60.0,
            notice_cause=Cause.PREEMPTED,
            notice_reason="uni-c goes first by the policy",
        )
        book = replace(turns.state.book, leases={lease_id: preempted})
        turns.state = replace(turns.state, book=book)
        turns.orders.notice(preempted, 60.0, preempted.notice_reason)
        await one.report(devices=(WANTED,))
        await one.report()
        node.unreachable = True
        node.may_hear.set()
        await until(lambda: node.missed)
        assert f"goes on {lease_id}" not in node.happened
        node.unreachable = False
        await until(lambda: not turns.orders._words)
        assert node.happened == [
            f"notice {lease_id}: uni-c goes first by the policy",
            f"goes on {lease_id}",
        ]
        node.unreachable, missed = True, node.missed
        await one.report(devices=(WANTED,))
        await one.report()
        await until(lambda: node.missed > missed)
        await one.donor.release(lease_id, "enough", "uni-b")
        await until(lambda: not turns.orders._words)


async def test_a_lease_that_its_node_does_not_know_ends_after_a_restart(tmp_path: Path) -> None:
    """Who attends it after the restart hears so."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        await one.donor.close()
        one.donor = one.new_donor()
        await one.donor.start()
        attending = asyncio.create_task(one.donor.attend(lease_id, "uni-b"))
        one.nodes["n1"].running.clear()
        one.now_s += LEASE_REPORT_GRACE_S
        await one.report()
        assert await attending == "its node no longer runs it"
        assert one.free


async def test_nothing_outlives_a_boot(tmp_path: Path) -> None:
    """Its clock began anew, and nothing that ran then runs now."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        await one.donor.close()
        one.donor = one.new_donor(boot_id="another boot")
        await one.donor.start()
        assert one.donor.state.book.leases == {}
        assert (await one.rows())[lease_id][0] == "ended"


async def test_a_notice_is_repeated_after_a_restart_and_kept(tmp_path: Path) -> None:
    """Killed mid-notice: who attends hears again how long it has; at the deadline it ends for that reason."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        device = ReportedDevice("cpu0", "cpu", 100, state="reclaiming", reclaim_left_s=50.0)
        await one.report(devices=(device,))
        one.now_s += 20.0
        await one.donor.close()
        one.donor = one.new_donor()
        await one.donor.start()
        heard: list[LeaseNotice | None] = []
        attending = asyncio.create_task(one.donor.attend(lease_id, "uni-b", heard.append))
        await until(lambda: heard)
        assert heard == [LeaseNotice("its owner needs the device", 30.0)]
        await one.donor.renew(lease_id, "uni-b")
        one.nodes["n1"].running.clear()
        await one.report(ended=(LeaseEnd(lease_id, "killed"),), devices=(device,))
        assert await attending == "its owner needs the device"
        (over,) = one.donor.state.book.ended.values()
        assert over.cause is Cause.RECLAIMED


async def test_a_lease_keeps_its_minimum_time_and_its_request_over_a_restart(tmp_path: Path) -> None:
    """Killed before it: the same request gets no second lease, and an owner's reclaim is refunded."""
    async with site(tmp_path) as one:
        await one.donor.close()
        one.donor = one.new_donor(min_runtime_s=900)
        await one.donor.start()
        lease_id = await one.lease(request := replace(REQUEST, purpose="teaching", signature=b"\x05" * 64))
        before = one.donor.state.book.leases[lease_id]
        one.now_s += 30.0
        await one.donor.close()
        one.donor = one.new_donor(min_runtime_s=0)
        await one.donor.start()
        await one.report()
        after = one.donor.state.book.leases[lease_id]
        assert after == replace(before, state=LeaseState.ACTIVE, watched_from_s=one.now_s)
        refusal = await one.donor.ask_offer(request, "uni-b")
        assert isinstance(refusal, Refusal)
        assert refusal.code == "granted-already"
        with pytest.raises(RefusedError, match=f"its lease is {lease_id}"):
            await one.donor.commit(after.offer_id, "uni-b", lambda _: None)
        await one.donor.gone("n1", "its owner needs it")
        assert one.donor.state.book.ended[lease_id].refunded


async def test_a_damaged_row_ends_its_lease_and_nothing_else(tmp_path: Path) -> None:
    """The agent starts; who attends the lease hears why; its runner is told to stop."""
    async with site(tmp_path) as one:
        lease_id = await one.lease()
        await one.donor.close()
        await one.file.write(lambda db: db.execute("UPDATE site_leases SET rest = 'x' || rest"))
        one.donor = one.new_donor()
        await one.donor.start()
        reason = "what its donor had written down of it is damaged"
        assert await one.donor.attend(lease_id, "uni-b") == reason
        await until(lambda: one.free)
        assert await one.rows() == {lease_id: ("ended", reason)}
        assert one.nodes["n1"].happened == [f"stop {lease_id}: {reason}"]


async def test_a_donor_that_closes_calls_its_starts_off(tmp_path: Path) -> None:
    """Whoever waits hears that it was stopped; nothing is left to run behind the agent's back."""
    async with site(tmp_path) as one:
        await one.report()
        one.nodes["n1"].go.clear()
        offer = await one.offer()
        committing = asyncio.create_task(one.donor.commit(offer.offer_id, "uni-b", lambda _: None))
        await until(lambda: one.nodes["n1"].orders)
        await one.donor.close()
        with pytest.raises(RefusedError, match="ended before its model answered"):
            await committing
        assert one.nodes["n1"].running == set()


async def test_what_an_image_is_says_the_registry_not_the_borrower(tmp_path: Path) -> None:
    """The borrower's name for it stands in the request; what rules speak of comes from the signed lists."""
    listed = KnownModel("uni-a/secret", "uni-a", "mit", 10)
    async with site(tmp_path) as one:
        one.known[IMAGE.hex()] = (listed,)
        await one.report()
        await one.donor.ask_offer(replace(REQUEST, model="uni-b/alias"), "uni-b")
        (offer,) = one.donor.state.book.offers.values()
        assert (offer.request.model, offer.request.known) == ("uni-b/alias", (listed,))
