"""The owner's loop: looks, guests and memory are in the test's hand, the loop and its clock are real."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from waiting import until

from agent.devices.owner import Owner
from agent.devices.ownership import Phase
from agent.devices.processes import started_ticks
from agent.devices.provider import DeviceSpec, Moment, Static, Wants
from agent.devices.settings import DeviceSettings, Will
from agent.errors import OwnedError, RequestError

pytestmark = pytest.mark.asyncio

SPECS = tuple(DeviceSpec(f"cpu{one}", "cpu", "cpu", 100) for one in range(2))


class Provider(Static):
    """Wants what the test says; a look can be made to hang."""

    def __init__(self) -> None:
        super().__init__(SPECS)
        self.wanted: dict[str, dict[str, str]] = {}
        self.go_on = threading.Event()
        self.go_on.set()
        self.fails = False

    def wants(self, moment: Moment) -> Wants:
        self.go_on.wait(20)
        if self.fails:
            raise OSError("the driver is gone")
        return {device: dict(claims) for device, claims in self.wanted.items()}


class Room:
    """What is held for guests: whether it fits is the test's to say; it can be made to hang."""

    def __init__(self) -> None:
        self.paused = 0
        self.fits = True
        self.hangs = False
        self.lent: list[int] = []

    def pause(self) -> None:
        self.paused += 1

    def resume(self) -> None:
        self.paused = 0

    async def fit(self, lent: Sequence[DeviceSpec]) -> bool:
        if self.hangs:
            await asyncio.Event().wait()
        self.lent.append(sum(one.memory_bytes for one in lent))
        return self.fits

    def in_use(self, device: DeviceSpec) -> bool:
        return False


class Guests:
    """Leases that go when they are killed, unless they are told to stay."""

    def __init__(self) -> None:
        self.owner: Owner | None = None
        self.told: list[tuple[str, str]] = []
        self.stay = False
        self.looks = 0

    def notice(self, lease_id: str, left_s: float, reason: str, *, for_owner: bool = False) -> None:
        self.told.append(("notice", lease_id))

    def withdraw(self, lease_id: str, *, for_owner: bool = False) -> None:
        assert for_owner
        self.told.append(("withdraw", lease_id))

    def kill(self, lease_id: str, reason: str) -> None:
        self.told.append(("kill", lease_id))
        if not self.stay:
            assert self.owner is not None
            asyncio.get_running_loop().call_soon(self.owner.left, lease_id, None)

    def expire(self) -> None:
        self.looks += 1


class Bench:
    """One node's devices."""

    def __init__(self, settings: Mapping[str, DeviceSettings]) -> None:
        self.provider, self.room, self.guests = Provider(), Room(), Guests()
        self.owner = Owner(self.provider, self.room, settings, clock=time.monotonic)
        self.owner.guests, self.guests.owner = self.guests, self.owner

    def phase(self, device: str = "cpu0") -> Phase:
        return self.owner.held(device).phase


@asynccontextmanager
async def node(settings: Mapping[str, DeviceSettings] | None = None) -> AsyncIterator[Bench]:
    bench = Bench(settings or {})
    bench.owner.start()
    try:
        yield bench
    finally:
        bench.provider.go_on.set()
        await bench.owner.close()


async def test_what_a_look_wants_is_taken_back_and_lent_again_when_it_is_gone() -> None:
    """Only that device; memory follows at once, and spares stand aside until it is handed over."""
    async with node() as bench:
        bench.provider.wanted = {"cpu0": {"use": "a job"}}
        begun = time.monotonic()
        await until(lambda: bench.phase() is Phase.OWNED)
        assert time.monotonic() - begun < 2.0
        assert bench.phase("cpu1") is Phase.LENT
        assert bench.room.lent[-1] == 100
        assert bench.room.paused == 0, "the other device is lent: spares stand by for it"
        bench.provider.wanted = {}
        await until(lambda: bench.phase() is Phase.LENT)
        await until(lambda: bench.room.lent[-1] == 200)


async def test_a_guest_has_notice_and_is_killed_and_no_lease_starts_meanwhile() -> None:
    """On that device; another one takes leases as before."""
    async with node() as bench:
        assert bench.owner.place("l1", ["cpu0"], 0.3) == ("cpu0",)
        bench.owner.lend_as("cpu0", DeviceSettings(will=Will.RECLAIMED))
        assert bench.guests.told == [("notice", "l1")]
        with pytest.raises(OwnedError, match="takes back cpu0: its operator has taken it back"):
            bench.owner.place("l2", ["cpu0"], 0.3)
        assert bench.owner.place("l2", [], 0.3) == ("cpu1",)
        await until(lambda: bench.phase() is Phase.OWNED)
        assert ("kill", "l1") in bench.guests.told
        assert ("kill", "l2") not in bench.guests.told
        with pytest.raises(OwnedError, match="has cpu0"):
            bench.owner.place("l3", ["cpu0"], 0.3)
        with pytest.raises(RequestError, match="no device 'gpu0'"):
            bench.owner.place("l3", ["gpu0"], 0.3)


async def test_an_owner_that_changes_its_mind_in_time_lets_guests_go_on() -> None:
    """A lease on two devices goes on when it is wanted on neither; spares and memory come back."""
    async with node() as bench:
        bench.owner.place("l1", ["cpu0", "cpu1"], 600.0)
        for device in ("cpu0", "cpu1"):
            bench.owner.lend_as(device, DeviceSettings(will=Will.RECLAIMED))
        assert bench.room.paused
        bench.owner.lend_as("cpu0", DeviceSettings())
        assert (bench.phase("cpu0"), bench.phase("cpu1")) == (Phase.LENT, Phase.RECLAIMING)
        assert ("withdraw", "l1") not in bench.guests.told
        bench.owner.lend_as("cpu1", DeviceSettings())
        assert bench.guests.told[-1] == ("withdraw", "l1")
        assert bench.owner.place("l2", ["cpu1"], 0.3) == ("cpu1",)
        await until(lambda: bench.room.lent[-1:] == [200])
        assert bench.room.paused == 0
        assert ("kill", "l1") not in bench.guests.told


async def test_a_draining_device_starts_nothing_and_ends_nothing() -> None:
    """Its guest stays."""
    async with node() as bench:
        bench.owner.place("l1", ["cpu0"], 0.0)
        bench.owner.lend_as("cpu0", DeviceSettings(draining=True))
        with pytest.raises(OwnedError, match="cpu0 is draining"):
            bench.owner.place("l2", ["cpu0"], 0.0)
        assert bench.owner.place("l2", [], 0.0) == ("cpu1",)
        assert bench.guests.told == []


async def test_a_look_or_a_cache_that_hangs_or_fails_holds_no_reclaim_up() -> None:
    """The guest is killed in time; leases still end by their clock; what was not seen free stays in doubt."""
    async with node() as bench:
        bench.provider.go_on.clear()
        bench.room.hangs = True
        bench.owner.place("l1", ["cpu0"], 0.2)
        looks = bench.guests.looks
        bench.owner.lend_as("cpu0", DeviceSettings(will=Will.RECLAIMED))
        await until(lambda: ("kill", "l1") in bench.guests.told)
        await until(lambda: bench.phase() is Phase.VERIFYING)
        assert bench.guests.looks > looks
        bench.provider.fails = True
        bench.provider.go_on.set()
        await until(lambda: bench.guests.looks > looks + 2)


async def test_memory_that_is_not_free_yet_is_looked_at_again() -> None:
    """It is handed over when it is, not before."""
    async with node() as bench:
        bench.room.fits = False
        bench.owner.lend_as("cpu0", DeviceSettings(will=Will.RECLAIMED))
        await until(lambda: len(bench.room.lent) > 2)
        assert bench.phase() is Phase.VERIFYING
        bench.room.fits = True
        await until(lambda: bench.phase() is Phase.OWNED)
        assert not bench.owner.held("cpu0").doubt


async def test_a_claim_lasts_as_long_as_its_process() -> None:
    """The command's own process holds it; whoever waits for the hand-over hears it."""
    async with node() as bench:
        child = await asyncio.create_subprocess_exec("sleep", "600")
        started = started_ticks(child.pid)
        assert started is not None
        seconds = await bench.owner.commands.take(
            "mine-1", ["cpu0"], "a command", pid=child.pid, started=started
        )
        assert 0 <= seconds < 2
        assert bench.phase() is Phase.OWNED
        child.kill()
        await until(lambda: bench.phase() is Phase.LENT)
        await child.wait()


async def test_a_claim_that_is_called_off_or_whose_process_is_another_one_is_none() -> None:
    """Nothing stays behind of it."""
    async with node() as bench:
        bench.room.fits = False
        pid, started = os.getpid(), started_ticks(os.getpid())
        assert started is not None
        taking = asyncio.create_task(
            bench.owner.commands.take("mine-1", ["cpu0"], "a command", pid=pid, started=started)
        )
        await until(lambda: bench.phase() is Phase.VERIFYING)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        assert bench.owner.held("cpu0").claims == {}
        with pytest.raises(RequestError, match="cannot be seen by the agent"):
            await bench.owner.commands.take("mine-2", ["cpu0"], "a command", pid=pid, started=started + 1)
        bench.room.fits = True
        await until(lambda: bench.phase() is Phase.LENT)


async def test_what_was_kept_back_before_is_kept_back_again() -> None:
    """A restart of the agent lends nothing that its owner has taken."""
    async with node({"cpu1": DeviceSettings(will=Will.WITHDRAWN, headroom_bytes=30)}) as bench:
        assert not bench.owner.held("cpu1").takes_guests
        await until(lambda: bench.phase("cpu1") is Phase.OWNED)
        assert bench.owner.place("l1", [], 1.0) == ("cpu0",)
        bench.owner.lend_as("cpu1", DeviceSettings(headroom_bytes=30))
        await until(lambda: bench.phase("cpu1") is Phase.LENT)
        await until(lambda: bench.room.lent[-1] == 170)
