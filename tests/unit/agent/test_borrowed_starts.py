"""A borrowed lease from the wish to its port: what is accepted, refused, called off or passed over."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import psutil
import pytest
from borrowing_node import WISH, borrower
from waiting import until

from agent.daemon.faces import Wish
from agent.errors import PeerNodeError, RefusedError, RequestError, StateError, UnknownLeaseError
from agent.local.views import AcceptedView, RunEvent

pytestmark = pytest.mark.asyncio


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


async def test_a_lease_is_known_before_its_caller_sees_it(tmp_path: Path) -> None:
    """Whoever sees its id can stop it."""
    async with borrower(tmp_path) as bench:
        seen: list[int] = []

        def emit(event: RunEvent) -> None:
            seen.append(bench.borrowed.count)

        await bench.borrowed.run(WISH, emit)
        assert seen == [1]
