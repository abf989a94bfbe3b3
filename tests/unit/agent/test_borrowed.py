"""Leases that this node uses and another one runs: their ports, renewals, notices and ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from borrowing_node import HERE, IMAGE, Broker, borrower, refused, speak
from waiting import until

from agent.daemon.borrowed import BorrowedLeases
from agent.daemon.clocks import boot_time_s
from agent.daemon.faces import Heed, LeaseNotice, unheeded
from agent.errors import PeerNodeError, StoppingError, UnknownLeaseError
from agent.limits import KILL_SLACK_S
from agent.local.views import AcceptedView

pytestmark = pytest.mark.asyncio


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
