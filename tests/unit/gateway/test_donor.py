"""A donor's leases while they last and as they end, notices too; the rules are in ``test_gateway_leases``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from donor_site import REPORT, REQUEST, site
from waiting import until

from agent.daemon.faces import LeaseNotice
from agent.daemon.reports import LeaseEnd
from agent.errors import StateError, UnknownLeaseError
from agent.gateway.core.book import Cause, LeaseState
from agent.local.views import PlaceView

pytestmark = pytest.mark.asyncio


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
