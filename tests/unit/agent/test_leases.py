"""Leases that run on this node: cache and runners are in memory, books, sockets and ports are real."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import blake3
import pytest

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.catalogue import Catalogue
from agent.daemon.clocks import boot_time_s
from agent.daemon.faces import LeaseEnd, Order
from agent.daemon.leases import Leases
from agent.daemon.parts import Assignment, Parcel
from agent.daemon.spares import Spares
from agent.daemon.supply import Supply
from agent.daemon.transfers import Transfers
from agent.errors import BusyError, OwnedError, RunnerError, StoppingError, UnknownLeaseError
from agent.limits import MAX_LEASE_TTL_S, MAX_LEASES
from agent.local.views import GrantedView
from agent.paths import Paths
from agent.state import LeaseRecord, NameRecord, StateFile, Store
from pyrdma.cache.client import CacheStatus, ReplicaStatus
from pyrdma.image import Manifest, lay_out

pytestmark = pytest.mark.asyncio

LAYOUT = lay_out([("w", "U8", (256,))])
MANIFEST = Manifest(layout=LAYOUT, digests=(blake3.blake3(bytes(LAYOUT.total_bytes)).digest(),))
IMAGE = MANIFEST.image_id


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition with a deadline."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.002)


def order(lease_id: str = "l1", ttl_s: float = 60.0, borrower: str = "uni-b/b1") -> Order:
    """What the gateway wants run."""
    return Order(lease_id, "m", IMAGE, ttl_s, borrower)


class Gate:
    """Something that may be held up; ``waiting`` counts who is."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = 0

    async def pass_through(self) -> None:
        self.waiting += 1
        try:
            await self.open.wait()
        finally:
            self.waiting -= 1


class Cache:
    """A weight cache that holds the one image."""

    pid = 1

    def __init__(self, warming: Gate) -> None:
        self.closed = asyncio.Event()
        self._warming = warming

    async def status(self) -> CacheStatus:
        await self._warming.pass_through()
        return CacheStatus(100, 0, 0, (ReplicaStatus(IMAGE, 256, 1, 1, 0, pulling=False),), ())

    async def attach(self, image_id: object) -> Any:
        return object()

    async def close(self) -> None:
        self.closed.set()


class Runner:
    """A runner that serves once it is let; it ends when it is stopped."""

    def __init__(self, pid: int, assigning: Gate, stopping: Gate) -> None:
        self.pid = pid
        self.ended = asyncio.Event()
        self.assigned: Assignment | None = None
        self.fault: Exception | None = None
        self.drains: list[float] = []
        self.undrains = 0
        self.mute = False
        self.undraining = Gate()
        self.kills = 0
        self._assigning = assigning
        self.stopping = stopping

    async def ready(self) -> None:
        """It is."""

    async def assign(
        self, assignment: Assignment, parcel: Parcel, on_phase: Callable[[str, float], None]
    ) -> Mapping[str, float]:
        self.assigned = assignment
        await self._assigning.pass_through()
        if self.fault is not None:
            raise self.fault
        on_phase("map", 0.1)
        return {"map": 0.1}

    async def drain(self, left_s: float) -> None:
        self.drains.append(left_s)

    async def undrain(self) -> bool:
        self.undrains += 1
        await self.undraining.pass_through()
        return not self.mute

    def kill(self) -> None:
        self.kills += 1

    def end_reason(self) -> str:
        return "was ended by SIGKILL"

    async def stop(self) -> None:
        await self.stopping.pass_through()
        self.ended.set()


class Launcher:
    """Starts runners, each after its gate."""

    def __init__(self) -> None:
        self.spawning, self.assigning, self.stopping = Gate(), Gate(), Gate()
        self.started: list[Runner] = []

    async def spawn(self, gpus: str = "") -> Any:
        await self.spawning.pass_through()
        runner = Runner(1000 + len(self.started), self.assigning, self.stopping)
        self.started.append(runner)
        return runner

    async def check(self, folder: Path) -> str:
        return ""

    @property
    def running(self) -> list[Runner]:
        return [one for one in self.started if not one.ended.is_set()]


class Bench:
    """One node that donates."""

    def __init__(
        self,
        file: StateFile,
        store: Store,
        paths: Paths,
        keeper: CacheKeeper,
        warming: Gate,
        devices: Devices | None,
    ) -> None:
        self.paths = paths
        self.file = file
        self.store = store
        self.warming = warming
        self.launcher = Launcher()
        transfers = Transfers()
        catalogue = Catalogue(store, keeper, self.launcher, transfers)
        supply = Supply(catalogue, keeper, transfers, lambda: ())
        spares = Spares(self.launcher, 0)
        self.leases = Leases(store, supply, keeper, spares, paths, "uni-a/a1", devices=devices)
        self.ends: list[tuple[str, str]] = []
        self.for_owner: list[str] = []
        self.leases.on_end = self._note_end

    def _note_end(self, end: LeaseEnd) -> None:
        self.ends.append((end.lease_id, end.reason))
        if end.for_owner:
            self.for_owner.append(end.lease_id)

    def start(self, what: Order) -> asyncio.Task[GrantedView]:
        return asyncio.create_task(self.leases.start_runner(what, lambda _: None))

    async def until_listed(self, state: str, reason: str) -> None:
        """Wait until the one lease is listed and written down so."""

        async def is_so() -> bool:
            row, (listed,) = await self.row(), await self.leases.list(include_ended=False)
            return (listed.state, listed.reason) == (row.state, row.reason) == (state, reason)

        deadline = time.monotonic() + 10
        while not await is_so():
            assert time.monotonic() < deadline, f"{await self.row()} is not {state}"
            await asyncio.sleep(0.002)

    async def row(self, lease_id: str = "l1") -> LeaseRecord:
        record = await self.store.lease(lease_id)
        assert record is not None
        return record


@asynccontextmanager
async def node(folder: Path, devices: Devices | None = None) -> AsyncIterator[Bench]:
    paths = Paths(folder, folder / "run")
    paths.run_dir.mkdir()
    paths.runner_socket("x").parent.mkdir(exist_ok=True)
    file = await StateFile.open(folder / "state.sqlite3")
    store = Store(file)
    await store.bind_name(NameRecord("m", IMAGE, "", 1.0), MANIFEST)
    warming = Gate()

    async def start_cache() -> Any:
        return Cache(warming)

    keeper = CacheKeeper(start_cache)
    await keeper.start()
    bench = Bench(file, store, paths, keeper, warming, devices)
    try:
        yield bench
    finally:
        await bench.leases.close()
        await keeper.close()
        await file.close()
        assert bench.launcher.running == []
        assert [one for one in asyncio.all_tasks() if one is not asyncio.current_task()] == []


async def test_an_ordered_lease_runs_until_it_is_stopped(tmp_path: Path) -> None:
    """It has no port here, its books name the borrower, and its end is told once."""
    async with node(tmp_path) as bench:
        granted = await bench.start(order())
        assert (granted.lease.state, granted.lease.borrower, granted.endpoint) == ("active", "uni-b/b1", "")
        assert granted.api_key
        assert bench.leases.lent == ("l1",)
        assert bench.leases.runs("l1")
        await bench.leases.stop_runner("l1", "enough")
        assert bench.launcher.running == []
        row = await bench.row()
        assert (row.state, row.reason) == ("ended", "enough")
        await bench.leases.stop_runner("l1", "again")
        assert bench.ends == [("l1", "enough")]
        assert bench.leases.lent == ()
        with pytest.raises(UnknownLeaseError):
            await bench.leases.connect("l1")


async def test_an_ordered_lease_ends_by_its_time_unless_it_gets_more(tmp_path: Path) -> None:
    """The gateway's answers move its end both ways; a lease of this node's own has none."""
    async with node(tmp_path) as bench:
        await asyncio.gather(*(bench.start(order(name, 60.0)) for name in ("l1", "l2", "l3")))
        own = await bench.leases.grant("m", lambda _: None)
        bench.leases.set_times({"l1": 0.3, "l2": 60.0, "l3": 0.0, "l9": 0.0, own.lease.id: 0.0})
        await until(lambda: len(bench.ends) == 2)
        reason = "its time was over and nobody renewed it"
        assert bench.ends == [("l3", reason), ("l1", reason)]
        assert bench.leases.runs("l2")
        assert bench.leases.runs(own.lease.id)
        assert bench.leases.lent == ("l2",)


@pytest.mark.parametrize("ttl_s", [-5.0, float("nan"), float("inf"), 1e300])
async def test_a_time_that_is_none_does_no_harm(tmp_path: Path, ttl_s: float) -> None:
    """Past, no number, or without end: the lease ends now or is bounded."""
    async with node(tmp_path) as bench:
        starting = bench.start(order(ttl_s=ttl_s))
        await asyncio.wait([starting])
        if ttl_s > 0:
            assert starting.exception() is None
            timer = bench.leases._open["l1"].over
            assert timer is not None
            assert timer.when() - asyncio.get_running_loop().time() <= MAX_LEASE_TTL_S
        else:
            assert isinstance(starting.exception(), UnknownLeaseError | type(None))
            await until(lambda: bench.ends)


async def test_a_lease_whose_time_is_over_while_it_starts_is_called_off(tmp_path: Path) -> None:
    """Nobody renewed it, so nobody waits for it."""
    async with node(tmp_path) as bench:
        bench.launcher.assigning.open.clear()
        with pytest.raises(UnknownLeaseError, match="its time was over"):
            await bench.start(order(ttl_s=0.05))
        assert bench.launcher.running == []
        assert bench.launcher.assigning.waiting == 0


@pytest.mark.parametrize("phase", ["warming", "spawning", "assigning"])
@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_an_end_during_the_start_leaves_no_runner_behind(tmp_path: Path, phase: str, how: str) -> None:
    """Whatever it waits for is called off at once; whoever waits hears why, and the end is told once."""
    async with node(tmp_path) as bench:
        gate = bench.warming if phase == "warming" else getattr(bench.launcher, phase)
        gate.open.clear()
        starting = bench.start(order())
        await until(lambda: gate.waiting)
        assert bench.leases.lent == ("l1",)
        if how == "stopped":
            await bench.leases.stop_runner("l1", "not any more.")
            assert gate.waiting == 0, "nothing goes on after the end"
            with pytest.raises(UnknownLeaseError, match=r"before its model answered: not any more\.$"):
                await starting
        else:
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
        gate.open.set()
        assert bench.launcher.running == []
        reason = "not any more." if how == "stopped" else "the request was called off"
        assert bench.ends == [("l1", reason)]
        assert (await bench.row()).reason == reason


async def test_an_end_in_the_last_moment_of_a_start_is_an_end(tmp_path: Path) -> None:
    """The runner answers already: it is granted to nobody, and no row says that it runs."""
    async with node(tmp_path) as bench:
        ends: list[asyncio.Task[None]] = []

        def emit(event: object) -> None:
            ends.append(asyncio.create_task(bench.leases.stop_runner("l1", "enough")))

        with pytest.raises(UnknownLeaseError, match="before its model answered: enough"):
            await bench.leases.start_runner(order(), emit)
        await ends[0]
        assert (await bench.row()).state == "ended"
        assert bench.ends == [("l1", "enough")]
        assert bench.launcher.running == []


async def test_a_start_that_fails_ends_its_lease_with_the_reason(tmp_path: Path) -> None:
    """The runner is stopped, the error is passed on as it is."""
    async with node(tmp_path) as bench:
        bench.launcher.assigning.open.clear()
        starting = bench.start(order())
        await until(lambda: bench.launcher.assigning.waiting)
        bench.launcher.started[0].fault = RunnerError("it does not fit.", fix="none")
        bench.launcher.assigning.open.set()
        with pytest.raises(RunnerError, match="does not fit"):
            await starting
        assert bench.ends == [("l1", "it does not fit.")]
        assert bench.launcher.running == []


async def test_a_runner_that_dies_ends_its_lease(tmp_path: Path) -> None:
    """With how it died."""
    async with node(tmp_path) as bench:
        await bench.start(order())
        bench.launcher.started[0].ended.set()
        await until(lambda: bench.ends)
        assert bench.ends == [("l1", "its runner was ended by SIGKILL")]


async def test_two_ends_at_once_wait_for_one(tmp_path: Path) -> None:
    """The first reason counts; until the runner is gone the lease is still this node's."""
    async with node(tmp_path) as bench:
        await bench.start(order())
        bench.launcher.stopping.open.clear()
        ends = [asyncio.create_task(bench.leases.stop("l1", reason)) for reason in ("first", "second")]
        await until(lambda: bench.launcher.stopping.waiting)
        assert bench.leases.lent == ("l1",), "the gateway must not give the device away yet"
        assert not bench.leases.runs("l1")
        with pytest.raises(BusyError):
            await bench.start(order())
        assert bench.ends == []
        bench.launcher.stopping.open.set()
        assert [view.reason for view in await asyncio.gather(*ends)] == ["first", "first"]
        assert bench.ends == [("l1", "first")]
        with pytest.raises(UnknownLeaseError):
            await bench.leases.stop("l1")


async def test_an_order_is_carried_out_once(tmp_path: Path) -> None:
    """A second one of the same id is refused, and the first goes on."""
    async with node(tmp_path) as bench:
        await bench.start(order())
        with pytest.raises(BusyError, match="l1 is on this node already"):
            await bench.start(order())
        assert bench.leases.runs("l1")
        assert bench.ends == []


async def test_a_node_has_a_bounded_number_of_leases(tmp_path: Path) -> None:
    """One more is refused without a trace."""
    async with node(tmp_path) as bench:
        bench.warming.open.clear()
        starting = [bench.start(order(f"l{number}")) for number in range(MAX_LEASES)]
        await until(lambda: bench.leases.count == MAX_LEASES)
        with pytest.raises(BusyError, match=f"{MAX_LEASES} leases"):
            await bench.start(order("more"))
        assert await bench.store.lease("more") is None
        await bench.leases.close()
        await asyncio.wait(starting)


async def test_an_agent_that_stops_waits_for_every_end_and_starts_nothing_more(tmp_path: Path) -> None:
    """Those that were ending already as well: a child must not outlive its agent."""
    async with node(tmp_path) as bench:
        await asyncio.gather(*(bench.start(order(name)) for name in ("l1", "l2")))
        slow = bench.launcher.started[0].stopping = Gate()
        slow.open.clear()
        lease_id = bench.launcher.started[0].assigned.lease_id  # type: ignore[union-attr]
        first = asyncio.create_task(bench.leases.stop_runner(lease_id, "enough"))
        await until(lambda: slow.waiting)
        closing = asyncio.create_task(bench.leases.close())
        await until(lambda: len(bench.ends) == 1)
        with pytest.raises(StoppingError):
            await bench.start(order("l3"))
        with pytest.raises(StoppingError):
            await bench.leases.grant("m", lambda _: None)
        assert not closing.done()
        slow.open.set()
        await closing
        assert bench.launcher.running == []
        await first
        assert [reason for _, reason in bench.ends] == ["the agent stopped", "enough"]


async def test_an_end_that_cannot_be_written_is_told_all_the_same(tmp_path: Path) -> None:
    """A full disk must not keep a device."""
    async with node(tmp_path) as bench:
        await bench.start(order())
        await bench.file.write(
            lambda db: db.execute(
                "CREATE TRIGGER full BEFORE INSERT ON leases BEGIN SELECT RAISE(ABORT, 'full'); END"
            )
        )
        await bench.leases.stop_runner("l1", "enough")
        assert bench.ends == [("l1", "enough")]
        assert bench.launcher.running == []


async def test_a_lease_that_is_used_where_it_runs_gets_a_port(tmp_path: Path) -> None:
    """Its books name no borrower, and the port goes with the lease; afterwards there is none to be had."""
    async with node(tmp_path) as bench:
        granted = await bench.start(order(borrower="uni-a/a1"))
        assert granted.lease.borrower == ""
        with_port = await bench.leases.give_port(granted)
        port = with_port.lease.port
        assert with_port.endpoint == f"http://127.0.0.1:{port}/v1"
        assert (await bench.row()).port == port
        await bench.leases.stop_runner("l1", "enough")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(UnknownLeaseError):
            await bench.leases.give_port(granted)


async def test_the_gateways_answer_counts_from_when_it_was_asked(tmp_path: Path) -> None:
    """An answer that was under way while the agent was stopped must not prolong a lease that is over."""
    async with node(tmp_path) as bench:
        await bench.start(order())
        bench.leases.set_times({"l1": 60.0}, boot_time_s() - 61.0)
        with pytest.raises(UnknownLeaseError):
            await bench.leases.connect("l1")
        await until(lambda: bench.ends)
        assert bench.ends == [("l1", "its time was over and nobody renewed it")]


async def test_a_lease_whose_time_is_over_serves_nobody_before_its_timer_rings(tmp_path: Path) -> None:
    """As after a stop of the agent: neither a new connection nor one that is open carries a byte more."""
    async with node(tmp_path) as bench:
        await bench.start(order())
        answered = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            assert await reader.read() == b"", "nothing comes through"
            writer.close()
            answered.set()

        server = await asyncio.start_unix_server(answer, path=bench.paths.runner_socket("l1"))
        pipe = await bench.leases.connect("l1")
        assert await pipe.read() == b"hello"
        bench.leases._open["l1"].until_s = boot_time_s() - 0.001
        with pytest.raises(ConnectionError, match="the lease l1 is over"):
            await pipe.write(b"x")
        with pytest.raises(UnknownLeaseError):
            await bench.leases.connect("l1")
        pipe.abort()
        await answered.wait()
        server.close()
        await until(lambda: bench.ends)


async def test_the_clock_of_boots_ends_leases_whose_timers_slept(tmp_path: Path) -> None:
    """A machine that slept has missed timers; a look at the clock is enough."""
    async with node(tmp_path) as bench:
        await bench.start(order())
        bench.leases.expire()
        assert bench.leases.runs("l1")
        bench.leases._open["l1"].until_s = boot_time_s() - 1
        bench.leases.expire()
        assert not bench.leases.runs("l1")
        await until(lambda: bench.ends)


class Devices:
    """One device, whose owner may have it."""

    def __init__(self) -> None:
        self.owned = False
        self.told: list[str] = []

    def place(self, lease_id: str, wanted: Sequence[str], grace_s: float) -> str:
        if self.owned:
            raise OwnedError("the owner of this node has cpu0.")
        self.told.append(f"place {lease_id} {grace_s:g}")
        return ""

    def left(self, lease_id: str, group: int | None) -> None:
        self.told.append(f"left {lease_id} {group}")

    def sent(self, lease_id: str, nbytes: int) -> None:
        self.told.append(f"sent {lease_id} {nbytes}")


async def test_a_lease_stands_on_a_device_from_its_order_to_the_end_of_its_runner(tmp_path: Path) -> None:
    """Without one it is refused without a trace."""
    devices = Devices()
    async with node(tmp_path, devices) as bench:
        await bench.start(order())
        assert devices.told == ["place l1 10"]
        await bench.leases.stop_runner("l1", "enough")
        assert devices.told == ["place l1 10", "left l1 1000"]
        devices.owned = True
        with pytest.raises(OwnedError):
            await bench.start(order("l2"))
        assert await bench.store.lease("l2") is None


async def test_a_lease_that_has_notice_says_so_and_hears_it_once(tmp_path: Path) -> None:
    """Its runner is told to drain; whichever way it ends then, the reason is the notice's."""
    async with node(tmp_path, Devices()) as bench:
        await bench.start(order())
        for _ in range(2):
            bench.leases.notice("l1", 5.0, "its owner needs cpu0")
        await until(lambda: bench.launcher.started[0].drains)
        assert bench.launcher.started[0].drains == [5.0]
        bench.launcher.started[0].ended.set()
        await until(lambda: bench.ends)
        assert bench.ends == [("l1", "its owner needs cpu0")]
        bench.leases.notice("l1", 5.0, "again")
        bench.leases.kill("l1", "again")


async def test_a_lease_whose_notice_is_withdrawn_goes_on_once_its_runner_serves(tmp_path: Path) -> None:
    """It is listed as draining until then, and has no reason afterwards; a next notice is one of its own."""
    async with node(tmp_path, Devices()) as bench:
        await bench.start(order())
        runner = bench.launcher.started[0]
        runner.undraining.open.clear()
        bench.leases.notice("l1", 5.0, "its owner needs cpu0", for_owner=True)
        bench.leases.withdraw("l1", for_owner=True)
        await until(lambda: runner.undraining.waiting)
        await bench.until_listed("draining", "its owner needs cpu0")
        runner.undraining.open.set()
        await bench.until_listed("active", "")
        bench.leases.notice("l1", 6.0, "another guest goes first")
        await until(lambda: runner.drains == [5.0, 6.0])
        runner.ended.set()
        await until(lambda: bench.ends)
        assert (bench.ends, bench.for_owner) == ([("l1", "another guest goes first")], [])
        bench.leases.withdraw("l1")


async def test_a_lease_goes_on_only_when_nobodys_notice_stands(tmp_path: Path) -> None:
    """The owner's word does not undo the gateway's, nor the other way round."""
    async with node(tmp_path, Devices()) as bench:
        await bench.start(order())
        bench.leases.withdraw("l1")
        bench.leases.notice("l1", 5.0, "its owner needs cpu0", for_owner=True)
        bench.leases.notice("l1", 5.0, "another guest goes first")
        bench.leases.withdraw("l1", for_owner=True)
        bench.leases.withdraw("l1", for_owner=True)
        await bench.until_listed("draining", "another guest goes first")
        assert bench.launcher.started[0].undrains == 0
        bench.leases.withdraw("l1")
        await bench.until_listed("active", "")
        assert bench.launcher.started[0].drains == [5.0]


@pytest.mark.parametrize("ended", [True, False])
async def test_a_runner_that_does_not_say_that_it_serves_again_ends_its_lease(
    tmp_path: Path, ended: bool
) -> None:
    """It had begun to end, or is silent: with the reason of the notice, and for whom it was."""
    async with node(tmp_path, Devices()) as bench:
        await bench.start(order())
        bench.leases.notice("l1", 5.0, "its owner needs cpu0", for_owner=True)
        bench.launcher.started[0].mute = True
        if ended:
            bench.launcher.started[0].ended.set()
        bench.leases.withdraw("l1", for_owner=True)
        await until(lambda: bench.ends)
        assert (bench.ends, bench.for_owner) == ([("l1", "its owner needs cpu0")], ["l1"])


async def test_a_notice_while_a_runner_is_told_to_serve_again_stands(tmp_path: Path) -> None:
    """What the runner says to the word before it does not count for the new one."""
    async with node(tmp_path, Devices()) as bench:
        await bench.start(order())
        runner = bench.launcher.started[0]
        runner.undraining.open.clear()
        bench.leases.notice("l1", 5.0, "its owner needs cpu0", for_owner=True)
        bench.leases.withdraw("l1", for_owner=True)
        await until(lambda: runner.undraining.waiting)
        bench.leases.notice("l1", 6.0, "its owner needs cpu0 again", for_owner=True)
        await until(lambda: runner.drains == [5.0, 6.0])
        runner.undraining.open.set()
        await until(lambda: not runner.undraining.waiting)
        await bench.until_listed("draining", "its owner needs cpu0 again")
        runner.ended.set()
        await until(lambda: bench.ends)
        assert bench.ends == [("l1", "its owner needs cpu0 again")]


async def test_a_kill_waits_for_nobody(tmp_path: Path) -> None:
    """The runner is killed before anything else of the lease ends, also when that is under way already."""
    async with node(tmp_path, Devices()) as bench:
        await bench.start(order())
        bench.launcher.stopping.open.clear()
        ending = asyncio.create_task(bench.leases.stop_runner("l1", "enough"))
        await until(lambda: bench.launcher.stopping.waiting)
        bench.leases.kill("l1", "its owner needs cpu0")
        assert bench.launcher.started[0].kills == 1
        bench.launcher.stopping.open.set()
        await ending
        assert bench.ends == [("l1", "enough")]
        assert bench.for_owner == [], "it was over before the owner came"


@pytest.mark.parametrize("way", ["drained", "killed", "starting", "preempted, then killed"])
async def test_an_end_for_the_owner_is_told_as_one(tmp_path: Path, way: str) -> None:
    """Whoever counts what a lease is charged need not have heard the notice; the gateway's own is not his."""
    async with node(tmp_path, Devices()) as bench:
        await bench.start(order("l2"))
        bench.leases.notice("l2", 5.0, "another guest goes first")
        bench.launcher.started[0].ended.set()
        await until(lambda: bench.ends)
        bench.warming.open.clear()
        starting = bench.start(order())
        if way == "starting":
            await until(lambda: bench.warming.waiting)
        else:
            bench.warming.open.set()
            await starting
        if way == "preempted, then killed":
            bench.leases.notice("l1", 5.0, "another guest goes first")
        if way in ("drained", "starting"):
            bench.leases.notice("l1", 5.0, "its owner needs cpu0", for_owner=True)
        if way == "drained":
            bench.launcher.started[-1].ended.set()
        if way.endswith("killed"):
            bench.leases.kill("l1", "its owner needs cpu0")
        await until(lambda: len(bench.ends) == 2)
        assert (bench.ends[1], bench.for_owner) == (("l1", "its owner needs cpu0"), ["l1"])
        await asyncio.gather(starting, return_exceptions=True)
