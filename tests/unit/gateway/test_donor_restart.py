"""A donor's leases after a start of the gateway: what goes on, on which terms, and what ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from donor_site import REQUEST, site
from waiting import until

from agent.daemon.faces import LeaseNotice, Refusal
from agent.daemon.reports import LeaseEnd, ReportedDevice
from agent.errors import RefusedError
from agent.gateway.core.book import Cause, LeaseState
from agent.limits import LEASE_REPORT_GRACE_S

pytestmark = pytest.mark.asyncio


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
