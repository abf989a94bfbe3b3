"""Leases that this node uses and another one runs: the broker is in memory, books and ports are real."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.daemon.borrowed import BorrowedLeases, boot_time_s
from agent.daemon.faces import Emit, Heed, LeaseNotice, Wish, unheeded
from agent.daemon.pipes import Pipe
from agent.errors import (
    PeerNodeError,
    RefusedError,
    RequestError,
    StateError,
    StoppingError,
    UnknownLeaseError,
)
from agent.limits import KILL_SLACK_S
from agent.local.views import AcceptedView, GrantedView, LeaseView, RunEvent, StartView
from agent.state import LeaseRecord, StateFile, Store
from pyrdma.image.manifest import ImageId

pytestmark = pytest.mark.asyncio

IMAGE = ImageId(b"\x07" * 32)
WISH = Wish("uni-b/m")
HERE = "uni-a/a1"
START = StartView("resident", 0, 0.0, 0.0, 0.1, True, (), ())


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition with a deadline."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.002)


class Echo:
    """A pipe that says back what it is told."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        return await self._said.get()

    async def write(self, data: bytes) -> None:
        await self._said.put(data)

    async def end(self) -> None:
        await self._said.put(b"")

    async def close(self) -> None:
        """Nothing is open."""

    def abort(self) -> None:
        """Nothing is open."""


class Broker:
    """Gets one lease after the other, unless it is told otherwise."""

    def __init__(self) -> None:
        self.accepts: list[AcceptedView] = [AcceptedView("l1", 600.0, "uni-b", "b7")]
        self.refuses: Exception | None = None
        self.silent: Exception | None = None
        self.grants = "l1"
        self.ttl_s = 600.0
        self.before = asyncio.Event()
        self.go = asyncio.Event()
        self.before.set()
        self.go.set()
        self.ends: dict[str, asyncio.Future[str]] = {}
        self.renewed: list[float] = []
        self.released: list[str] = []
        self.called_off = 0

    async def borrow(self, wish: Wish, emit: Emit) -> GrantedView:
        try:
            await self.before.wait()
            for accepted in self.accepts:
                emit(accepted)
            await self.go.wait()
        except asyncio.CancelledError:
            self.called_off += 1
            raise
        if self.refuses is not None:
            raise self.refuses
        lease = LeaseView(self.grants, "m", IMAGE.hex(), "active", 1.0, None, "", None, 7)
        return GrantedView(lease, "", "key", START)

    async def renew(self, lease_id: str) -> float:
        self.renewed.append(boot_time_s())
        if self.silent is not None:
            raise self.silent
        return self.ttl_s

    async def release(self, lease_id: str, reason: str) -> str:
        self.released.append(f"{lease_id}: {reason}")
        await asyncio.sleep(0)
        if self.silent is not None:
            raise self.silent
        return f"{reason}, its donor says"

    async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
        end = self.ends.setdefault(lease_id, asyncio.get_running_loop().create_future())
        return await asyncio.shield(end)

    async def connect(self, lease_id: str) -> Pipe:
        return Echo()


class Running:
    """Leases that run on this node, of which only the ports matter here."""

    def __init__(self) -> None:
        self.here: set[str] = set()
        self.ported: list[str] = []

    def runs(self, lease_id: str) -> bool:
        return lease_id in self.here

    async def give_port(self, granted: GrantedView) -> GrantedView:
        self.ported.append(granted.lease.id)
        return replace(granted, endpoint="http://127.0.0.1:1/v1")


class Bench:
    """One borrower."""

    def __init__(self, file: StateFile) -> None:
        self.file = file
        self.store = Store(file)
        self.broker = Broker()
        self.running = Running()
        running: Any = self.running
        self.borrowed = BorrowedLeases(self.store, self.broker, HERE, running)
        self.events: list[RunEvent] = []

    async def run(self) -> GrantedView:
        return await self.borrowed.run(WISH, self.events.append)

    async def row(self, lease_id: str = "l1") -> LeaseRecord:
        record = await self.store.lease(lease_id)
        assert record is not None
        return record

    async def until_row(self, state: str, reason: str) -> None:
        """Wait until the lease's row says this."""
        deadline = time.monotonic() + 10
        while ((row := await self.row()).state, row.reason) != (state, reason):
            assert time.monotonic() < deadline, f"{row} is not {state}: {reason}"
            await asyncio.sleep(0.005)

    async def ended(self, lease_id: str = "l1") -> LeaseRecord:
        """The lease's row once it has ended."""
        deadline = time.monotonic() + 10
        while (record := await self.row(lease_id)).ended_at is None:
            assert time.monotonic() < deadline, "it did not end"
            await asyncio.sleep(0.005)
        return record


@asynccontextmanager
async def borrower(folder: Path) -> AsyncIterator[Bench]:
    file = await StateFile.open(folder / "state.sqlite3")
    bench = Bench(file)
    try:
        yield bench
    finally:
        await bench.borrowed.close()
        await file.close()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == [], "ended leases have left tasks behind"


async def speak(port: int) -> bytes:
    """Say something to a port and return the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    answer = await reader.read(5)
    writer.close()
    await writer.wait_closed()
    return answer


async def refused(port: int) -> bool:
    """Whether nobody listens on a port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_a_lease_has_a_port_until_it_is_stopped(tmp_path: Path) -> None:
    """The port carries bytes to the runner; stopping tells the donor, closes it, and says why."""
    async with borrower(tmp_path) as bench:
        granted = await bench.run()
        assert granted.lease.donor == "uni-b/b7"
        assert granted.lease.port is not None
        assert granted.endpoint == f"http://127.0.0.1:{granted.lease.port}/v1"
        assert await speak(granted.lease.port) == b"hello"
        assert bench.borrowed.count == 1
        row = await bench.row()
        assert (row.state, row.image_id, row.port) == ("active", IMAGE, granted.lease.port)
        assert row.key_digest
        reason = await bench.borrowed.stop("l1", "enough")
        assert reason == "enough, its donor says"
        row = await bench.row()
        assert (row.state, row.reason, row.port) == ("ended", "enough, its donor says", None)
        assert await refused(granted.lease.port)
        assert bench.borrowed.count == 0
        assert await bench.borrowed.stop("l1", "again") is None
        assert bench.broker.released == ["l1: enough"]


async def test_a_lease_that_its_donor_ends_closes_its_port(tmp_path: Path) -> None:
    """The reason is the donor's; the donor is not told what it has said itself."""
    async with borrower(tmp_path) as bench:
        granted = await bench.run()
        bench.broker.ends["l1"].set_result("its owner needs it")
        assert (await bench.ended()).reason == "its owner needs it"
        assert granted.lease.port is not None
        assert await refused(granted.lease.port)
        assert bench.broker.released == []


async def test_two_ends_at_once_are_one(tmp_path: Path) -> None:
    """Whoever asks second waits for the first; the donor is told once, and the books have one reason."""
    async with borrower(tmp_path) as bench:
        await bench.run()
        reasons = await asyncio.gather(
            bench.borrowed.stop("l1", "first"), bench.borrowed.stop("l1", "second")
        )
        assert reasons == ["first, its donor says"] * 2
        assert bench.broker.released == ["l1: first"]
        assert (await bench.row()).state == "ended"


async def test_a_lease_is_renewed_as_long_as_it_is_used(tmp_path: Path) -> None:
    """Each fifth of its time; it outlives the time that it began with."""
    async with borrower(tmp_path) as bench:
        bench.broker.accepts = [AcceptedView("l1", 1.0, "uni-b", "b7")]
        bench.broker.ttl_s = 1.0
        begun = boot_time_s()
        await bench.run()
        await until(lambda: len(bench.broker.renewed) >= 7)
        assert boot_time_s() - begun > 1.0
        gaps = [b - a for a, b in zip(bench.broker.renewed, bench.broker.renewed[1:], strict=False)]
        assert min(gaps) > 0.15
        assert (await bench.row()).state == "active"


@pytest.mark.parametrize("silence", [PeerNodeError("it is not reachable."), None], ids=["error", "no answer"])
async def test_a_lease_that_cannot_be_renewed_ends_by_its_time(
    tmp_path: Path, silence: Exception | None
) -> None:
    """Renewals are tried again until then, never longer: a call without an answer does not prolong it."""
    async with borrower(tmp_path) as bench:
        hang = asyncio.Event()

        class Mute(Broker):
            async def renew(self, lease_id: str) -> float:
                self.renewed.append(boot_time_s())
                if silence is not None:
                    raise silence
                await hang.wait()
                raise AssertionError

        bench.broker = Mute()
        bench.borrowed = BorrowedLeases(bench.store, bench.broker, HERE, None)
        bench.broker.accepts = [AcceptedView("l1", 1.0, "uni-b", "b7")]
        begun = boot_time_s()
        granted = await bench.run()
        row = await bench.ended()
        assert row.reason == "its time was over: its donor could not be reached"
        assert 1.0 <= boot_time_s() - begun < 3.0
        assert len(bench.broker.renewed) >= (3 if silence is not None else 1)
        assert granted.lease.port is not None
        assert await refused(granted.lease.port)


async def test_a_lease_that_took_longer_to_come_than_it_lives_is_asked_for_before_it_is_given_up(
    tmp_path: Path,
) -> None:
    """Other donors may have failed for that long before this one accepted: its time is its donor's to say."""
    async with borrower(tmp_path) as bench:
        bench.broker.accepts = [AcceptedView("l1", 1.0, "uni-b", "b7")]
        bench.broker.before.clear()
        running = asyncio.create_task(bench.run())
        asked = boot_time_s()
        await until(lambda: boot_time_s() > asked + 1.1)
        bench.broker.before.set()
        await running
        await until(lambda: bench.broker.renewed)
        assert bench.borrowed.count == 1


async def test_a_donor_that_no_longer_knows_a_lease_ends_it(tmp_path: Path) -> None:
    """A renewal says so; the reason comes from whoever still knows it."""
    async with borrower(tmp_path) as bench:
        bench.broker.accepts = [AcceptedView("l1", 1.0, "uni-b", "b7")]
        bench.broker.silent = UnknownLeaseError("no such lease.")
        await bench.run()
        await until(lambda: bench.broker.renewed)
        bench.broker.ends["l1"].set_result("its owner needs it")
        assert (await bench.ended()).reason == "its owner needs it"


async def test_attending_is_taken_up_again_when_it_broke(tmp_path: Path) -> None:
    """The lease lives on meanwhile; one that is unknown then has ended."""
    async with borrower(tmp_path) as bench:
        answers: list[Exception] = [PeerNodeError("the call broke."), UnknownLeaseError("no such lease.")]

        class Breaking(Broker):
            async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
                raise answers.pop(0)

        bench.broker = Breaking()
        bench.borrowed = BorrowedLeases(bench.store, bench.broker, HERE, None)
        await bench.run()
        assert (await bench.row()).state == "active"
        assert (await bench.ended()).reason == "its donor no longer knows it"
        assert answers == []


async def test_a_lease_under_notice_is_ending_until_its_donor_thinks_better_of_it(tmp_path: Path) -> None:
    """Its line says why, and stays so while it is renewed; a renewal past the deadline makes it active."""
    async with borrower(tmp_path) as bench:
        heeds: list[Heed] = []

        class Noticing(Broker):
            async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
                heeds.append(heed)
                return await super().attend(lease_id, heed)

        bench.broker = Noticing()
        bench.borrowed = BorrowedLeases(bench.store, bench.broker, HERE, None)
        bench.broker.accepts = [AcceptedView("l1", 1.0, "uni-b", "b7")]
        bench.broker.ttl_s = 1.0
        granted = await bench.run()
        await until(lambda: heeds)
        for at in range(100):
            heeds[0](LeaseNotice(f"its owner needs the device, {at}", 600.0))
        renewed = len(bench.broker.renewed)
        await until(lambda: len(bench.broker.renewed) > renewed)
        row = await bench.row()
        assert (row.state, row.reason) == ("ending", "its owner needs the device, 0"), (
            "the others were too many"
        )
        await bench.until_row("ending", "its owner needs the device, 99")
        heeds[0](LeaseNotice("it was to end by now", -2 * KILL_SLACK_S))
        renewed = len(bench.broker.renewed)
        await until(lambda: len(bench.broker.renewed) > renewed + 1)
        await bench.until_row("active", "")
        assert granted.lease.port is not None
        assert await speak(granted.lease.port) == b"hello"


async def test_a_lease_goes_on_when_its_donor_says_so(tmp_path: Path) -> None:
    """At once, and before it answers as well; of words that come in a burst the last one counts."""
    async with borrower(tmp_path) as bench:
        heeds: list[Heed] = []

        class Noticing(Broker):
            async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
                heeds.append(heed)
                heed(LeaseNotice("its owner needs the device", 600.0))
                heed(None)
                return await super().attend(lease_id, heed)

        bench.broker = Noticing()
        bench.borrowed = BorrowedLeases(bench.store, bench.broker, HERE, None)
        granted = await bench.run()
        await bench.until_row("active", "")
        for news, state, reason in (
            (LeaseNotice("its owner needs the device", 600.0), "ending", "its owner needs the device"),
            (None, "active", ""),
            (None, "active", ""),
        ):
            heeds[0](news)
            await bench.until_row(state, reason)
        for at in range(101):
            heeds[0](LeaseNotice(f"notice {at}", 600.0) if at % 2 == 0 else None)
        await bench.until_row("ending", "notice 100")
        assert granted.lease.port is not None
        assert await speak(granted.lease.port) == b"hello"


async def test_a_defect_in_tending_does_not_leave_the_port_open(tmp_path: Path) -> None:
    """A lease that nobody renews or attends any more ends here."""
    async with borrower(tmp_path) as bench:

        class Defective(Broker):
            async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
                raise ValueError("a defect")

        bench.broker = Defective()
        bench.broker.go.clear()
        bench.borrowed = BorrowedLeases(bench.store, bench.broker, HERE, None)
        running = asyncio.create_task(bench.run())
        await until(lambda: bench.borrowed.count == 0 and bench.events)
        bench.broker.go.set()
        with pytest.raises(UnknownLeaseError, match="ended before it could be used"):
            await running
        assert (await bench.ended()).reason == "a defect of the borrower's agent"


# --- called off -------------------------------------------------------------------------------------------


async def test_being_called_off_before_anything_is_accepted_gives_nothing_back(tmp_path: Path) -> None:
    """There is nothing yet; the broker hears that nobody waits any more."""
    async with borrower(tmp_path) as bench:
        bench.broker.before.clear()
        running = asyncio.create_task(bench.run())
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (bench.broker.called_off, bench.broker.released) == (1, [])
        assert await bench.store.leases(include_ended=True) == []


@pytest.mark.parametrize("and_closed", [False, True], ids=["cancelled", "cancelled and closed"])
async def test_being_called_off_after_it_was_accepted_gives_it_back_once(
    tmp_path: Path, *, and_closed: bool
) -> None:
    """The books have it from the donor's word on, and say how it ended."""
    async with borrower(tmp_path) as bench:
        bench.broker.go.clear()
        running = asyncio.create_task(bench.run())
        await until(lambda: bench.events)
        assert (await bench.row()).state == "warming"
        running.cancel()
        if and_closed:
            await asyncio.sleep(0)
            await bench.borrowed.close()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert bench.broker.called_off == 1
        assert bench.broker.released == ["l1: the request was called off"]
        assert (await bench.row()).reason == "the request was called off, its donor says"


async def test_a_start_that_fails_is_written_down_with_its_reason(tmp_path: Path) -> None:
    """The caller hears the broker's error; what had been accepted is given back."""
    async with borrower(tmp_path) as bench:
        bench.broker.refuses = RefusedError("nobody grants it.")
        with pytest.raises(RefusedError, match="nobody grants it"):
            await bench.run()
        assert bench.broker.released == ["l1: nobody grants it."]
        assert (await bench.row()).state == "ended"
        bench.broker.accepts = []
        with pytest.raises(RefusedError):
            await bench.run()
        assert len(bench.broker.released) == 1
        with pytest.raises(RequestError):
            await bench.borrowed.run(Wish("no name"), bench.events.append)


async def test_a_donor_that_is_passed_over_is_struck_off(tmp_path: Path) -> None:
    """The lease of the next one is used; the first one's has ended in the books, and nothing tends it."""
    async with borrower(tmp_path) as bench:
        bench.broker.accepts = [
            AcceptedView("l0", 600.0, "uni-c", "c1"),
            AcceptedView("l1", 600.0, "uni-b", "b7"),
        ]
        granted = await bench.run()
        assert granted.lease.id == "l1"
        assert (await bench.ended("l0")).reason == "its donor failed; another one was taken"
        assert bench.borrowed.count == 1
        assert bench.broker.released == []


async def test_a_grant_of_a_lease_that_was_not_accepted_is_refused(tmp_path: Path) -> None:
    """What was accepted is given back."""
    async with borrower(tmp_path) as bench:
        bench.broker.grants = "l9"
        with pytest.raises(PeerNodeError, match="no donor had accepted"):
            await bench.run()
        assert len(bench.broker.released) == 1
        assert bench.borrowed.count == 0


@pytest.mark.parametrize(
    "accepted",
    [
        AcceptedView("l1", 600.0, "uni-c", "c1"),
        AcceptedView("own", 600.0, "uni-c", "c1"),
        AcceptedView("l2", float("inf"), "uni-c", "c1"),
    ],
    ids=["an open one's id", "the id of one that runs here", "no time"],
)
async def test_a_lease_that_cannot_be_is_refused_and_the_others_go_on(
    tmp_path: Path, accepted: AcceptedView
) -> None:
    """A donor names id and time: neither may touch what this node has already."""
    async with borrower(tmp_path) as bench:
        await bench.run()
        bench.running.here = {"own"}
        bench.broker.accepts = [accepted]
        with pytest.raises(PeerNodeError):
            await bench.run()
        row = await bench.row()
        assert (row.state, row.donor) == ("active", "uni-b/b7")
        assert bench.broker.released == []
        assert bench.borrowed.count == 1


async def test_a_lease_that_ends_while_its_port_opens_leaves_no_port(tmp_path: Path) -> None:
    """At whatever moment of the opening: the caller hears that it ended, or has a port that closes."""
    process = psutil.Process()
    async with borrower(tmp_path) as bench:
        for moments in range(10):
            lease_id = f"l{moments}"
            bench.broker.grants = lease_id
            bench.broker.accepts = [AcceptedView(lease_id, 600.0, "uni-b", "b7")]
            bench.broker.go.clear()
            running = asyncio.create_task(bench.run())
            await until(lambda lease_id=lease_id: lease_id in bench.broker.ends)  # type: ignore[misc]
            bench.broker.ends[lease_id].set_result("its owner needs it")
            for _ in range(moments):
                await asyncio.sleep(0)
            bench.broker.go.set()
            with contextlib.suppress(UnknownLeaseError):
                await running
            assert (await bench.ended(lease_id)).reason == "its owner needs it"
            await until(lambda: bench.borrowed.count == 0)
            listening = [one for one in process.net_connections("tcp4") if one.status == psutil.CONN_LISTEN]
            assert listening == []


async def test_a_lease_that_cannot_be_written_down_is_given_back(tmp_path: Path) -> None:
    """What the books do not have, a next start could not give back."""
    async with borrower(tmp_path) as bench:
        await bench.file.write(
            lambda db: db.execute(
                "CREATE TRIGGER full BEFORE INSERT ON leases BEGIN SELECT RAISE(ABORT, 'full'); END"
            )
        )
        with pytest.raises(StateError):
            await bench.run()
        assert len(bench.broker.released) == 1
        assert bench.borrowed.count == 0


# --- the node itself --------------------------------------------------------------------------------------


async def test_a_lease_that_runs_on_this_very_node_gets_its_port_there(tmp_path: Path) -> None:
    """Its bytes need no way through the broker, its row is the one of the lease that runs here."""
    async with borrower(tmp_path) as bench:
        bench.broker.accepts = [AcceptedView("l1", 600.0, "uni-a", "a1")]
        bench.running.here = {"l1"}
        granted = await bench.run()
        assert granted.endpoint == "http://127.0.0.1:1/v1"
        assert bench.running.ported == ["l1"]
        assert bench.borrowed.count == 0, "it counts as one that runs here"
        assert await bench.store.lease("l1") is None
        assert await bench.borrowed.stop("l1", "enough") == "enough, its donor says"


async def test_an_agent_that_stops_gives_everything_back_and_takes_nothing_more(tmp_path: Path) -> None:
    """Even a lease that is accepted in the very moment."""
    async with borrower(tmp_path) as bench:
        await bench.run()
        bench.broker.accepts = [AcceptedView("l2", 600.0, "uni-b", "b7")]
        bench.broker.before.clear()
        late = asyncio.create_task(bench.run())
        await asyncio.sleep(0)
        await bench.borrowed.close()
        assert bench.broker.released == ["l1: the borrower's agent stopped"]
        assert (await bench.row()).state == "ended"
        bench.broker.before.set()
        with pytest.raises(StoppingError):
            await late
        with pytest.raises(StoppingError):
            await bench.run()
        assert bench.borrowed.count == 0


async def test_an_agent_that_starts_again_gives_back_what_the_last_one_had(tmp_path: Path) -> None:
    """All at once, and a donor that cannot be told holds up none of the others."""
    async with borrower(tmp_path) as bench:
        await bench.run()
        old = [await bench.row(), replace(await bench.row(), id="l2")]
        bench.broker.silent = PeerNodeError("it is not reachable.")
        await bench.borrowed.give_back_old(old)
        assert sorted(bench.broker.released) == [
            "l1: the borrower's agent was started again",
            "l2: the borrower's agent was started again",
        ]
        bench.broker.silent = None


async def test_a_donor_that_cannot_be_told_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """The donor ends it by its time; here it is over at once, with the borrower's own reason."""
    async with borrower(tmp_path) as bench:
        await bench.run()
        bench.broker.silent = PeerNodeError("it is not reachable.")
        assert await bench.borrowed.stop("l1", "enough") == "enough"
        assert (await bench.row()).reason == "enough"


async def test_a_lease_is_known_before_its_caller_sees_it(tmp_path: Path) -> None:
    """Whoever sees its id can stop it."""
    async with borrower(tmp_path) as bench:
        seen: list[int] = []

        def emit(event: RunEvent) -> None:
            seen.append(bench.borrowed.count)

        await bench.borrowed.run(WISH, emit)
        assert seen == [1]
