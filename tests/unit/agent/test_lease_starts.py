"""How a lease of this node starts: where it stands, what ends it before it serves, what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from lending_node import Devices, node, order
from waiting import until

from agent.errors import BusyError, OwnedError, RunnerError, UnknownLeaseError
from agent.limits import MAX_LEASES

pytestmark = pytest.mark.asyncio


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
