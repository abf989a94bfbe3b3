"""Leases that run on this node, as they last and end: their time, their runners, notices, and owners."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from lending_node import Devices, Gate, node, order
from waiting import until

from agent.daemon.clocks import boot_time_s
from agent.errors import BusyError, StoppingError, UnknownLeaseError
from agent.limits import MAX_LEASE_TTL_S

pytestmark = pytest.mark.asyncio


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
            timer = bench.leases._open.known("l1").over
            assert timer is not None
            assert timer.when() - asyncio.get_running_loop().time() <= MAX_LEASE_TTL_S
        else:
            assert isinstance(starting.exception(), UnknownLeaseError | type(None))
            await until(lambda: bench.ends)


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
        bench.leases._open.known("l1").until_s = boot_time_s() - 0.001
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
        bench.leases._open.known("l1").until_s = boot_time_s() - 1
        bench.leases.expire()
        assert not bench.leases.runs("l1")
        await until(lambda: bench.ends)


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
