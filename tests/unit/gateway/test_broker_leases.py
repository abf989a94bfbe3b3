"""The leases that a gateway has borrowed: whose each is, and that it ends once in the books."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from borrowing_gateway import NO_DEVICE, Bench, Donor, Sites
from waiting import until

from agent.daemon.faces import Heed, LeaseNotice, Wish, unheeded
from agent.errors import BusyError, PeerNodeError, UnknownLeaseError
from agent.limits import MAX_BROKERED

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("site", ["uni-a", "uni-b"])
async def test_only_the_node_that_borrowed_a_lease_may_use_it(sites: Sites, site: str) -> None:
    """Another node is told that it has none, nobody else is asked, and the lease stays as it is."""
    async with sites("uni-b") as bench:
        lease_id = (await bench.borrow(Wish("uni-b/m", site=site), "a1")).lease.id
        donor = bench.own if site == "uni-a" else bench.others[site]
        donor.calls.clear()
        calls = [
            bench.broker.renew(lease_id, "a2"),
            bench.broker.release(lease_id, "mine", "a2"),
            bench.broker.attend(lease_id, "a2"),
            bench.broker.connect(lease_id, "a2"),
        ]
        for call in calls:
            with pytest.raises(UnknownLeaseError, match="a2 has borrowed no lease"):
                await call
        assert donor.calls == []
        assert await bench.broker.renew(lease_id, "a1") == 600.0


async def test_a_lease_ends_once_in_the_books(sites: Sites) -> None:
    """By its donor's word, or given back; afterwards nobody has it."""
    async with sites("uni-b") as bench:
        await bench.borrow(Wish("uni-b/m", site="uni-b"))
        attending = asyncio.create_task(bench.broker.attend("leaseb", "a1"))
        await asyncio.sleep(0)
        bench.others["uni-b"].end.set_result("its owner needs it")
        assert await attending == "its owner needs it"
        assert await bench.rows() == {"uni-b/leaseb": "its owner needs it"}
        with pytest.raises(UnknownLeaseError):
            await bench.broker.release("leaseb", "enough", "a1")
        assert await bench.rows() == {"uni-b/leaseb": "its owner needs it"}


async def test_an_end_is_written_down_though_nobody_waits_for_it(sites: Sites) -> None:
    """Whoever attends a lease may go in the moment of its end; the books must not leave it open."""
    async with sites("uni-b") as bench:
        await bench.borrow(Wish("uni-b/m", site="uni-b"))
        attending = asyncio.create_task(bench.broker.attend("leaseb", "a1"))
        await until(lambda: "attend leaseb" in bench.others["uni-b"].calls)
        reached, go = threading.Event(), threading.Event()

        def hold(db: object) -> None:
            reached.set()
            go.wait(10)

        holding = asyncio.create_task(bench.file.write(hold))
        await until(reached.is_set)
        bench.others["uni-b"].end.set_result("its owner needs it")
        await until(lambda: _unknown(bench, "leaseb"))
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)
        go.set()
        await holding
        await bench.broker.close()
        assert await bench.rows() == {"uni-b/leaseb": "its owner needs it"}


def _unknown(bench: Bench, lease_id: str) -> bool:
    try:
        bench.broker._donor_of(lease_id, "a1")
    except UnknownLeaseError:
        return True
    return False


async def test_a_lease_that_is_given_back_is_struck_off_even_if_its_donor_is_silent(sites: Sites) -> None:
    """The donor ends it by its time."""
    async with sites("uni-b") as bench:
        await bench.borrow(Wish("uni-b/m", site="uni-b"))
        bench.others["uni-b"].fails = PeerNodeError("it is not reachable.")
        with pytest.raises(PeerNodeError):
            await bench.broker.release("leaseb", "enough", "a1")
        assert await bench.rows() == {"uni-b/leaseb": "enough"}


async def test_a_lease_that_its_donor_forgot_is_struck_off(sites: Sites) -> None:
    """A renewal that the donor does not know ends it here, too; one that does not arrive does not."""
    async with sites("uni-b") as bench:
        await bench.borrow(Wish("uni-b/m", site="uni-b"))
        donor = bench.others["uni-b"]
        donor.fails = PeerNodeError("it is not reachable.")
        with pytest.raises(PeerNodeError):
            await bench.broker.renew("leaseb", "a1")
        donor.fails = UnknownLeaseError("the lease leaseb has ended: over.")
        with pytest.raises(UnknownLeaseError):
            await bench.broker.renew("leaseb", "a1")
        assert await bench.rows() == {"uni-b/leaseb": "the lease leaseb has ended: over."}


async def test_a_lease_whose_borrower_is_gone_does_not_stay_in_the_books(sites: Sites) -> None:
    """Nobody renews it, so its donor has ended it; it is struck off when the next one is borrowed."""
    async with sites("uni-b") as bench:
        await bench.borrow(Wish("uni-b/m", site="uni-b"))
        bench.now_s += 500.0
        await bench.broker.renew("leaseb", "a1")
        bench.now_s += 500.0
        await bench.borrow(Wish("uni-b/m", site="uni-a"))
        assert await bench.rows() == {"uni-b/leaseb": "committed"}
        bench.now_s += 100.0
        await bench.borrow(Wish("uni-b/m", site="uni-a"))
        assert await bench.rows() == {"uni-b/leaseb": "its borrower did not renew it in time"}


async def test_a_gateway_that_starts_again_knows_whose_leases_there_are(sites: Sites) -> None:
    """The node that borrowed one goes on with it; what nobody renews then is struck off."""
    async with sites("uni-b") as bench:
        await bench.borrow(Wish("uni-b/m", site="uni-b"))
        bench.broker = bench.new_broker()
        await bench.broker.restore()
        with pytest.raises(UnknownLeaseError):
            await bench.broker.renew("leaseb", "a2")
        assert await bench.broker.renew("leaseb", "a1") == 600.0
        assert await bench.broker.release("leaseb", "enough", "a1") == "enough"
        assert await bench.rows() == {"uni-b/leaseb": "enough"}


async def test_a_site_borrows_a_bounded_number_of_others(sites: Sites) -> None:
    """Past it only its own devices are asked for; a site that is named is refused."""
    async with sites("uni-b") as bench:
        await bench.borrow(Wish("uni-b/m", site="uni-b"))
        (row,) = await bench.books.leases(include_ended=False)

        def fill(db: Any) -> None:
            columns = [name for name in row.__slots__ if name != "id"]
            db.execute(
                f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MAX_BROKERED}) "
                f"INSERT INTO site_leases (id, {', '.join(columns)}) "
                f"SELECT 'uni-b/x' || i, {', '.join(columns)} FROM site_leases, n"
            )

        await bench.file.write(fill)
        bench.broker = bench.new_broker()
        await bench.broker.restore()
        asked = bench.others["uni-b"].asked
        with pytest.raises(BusyError, match=f"{MAX_BROKERED} leases"):
            await bench.borrow(Wish("uni-b/m", site="uni-b"))
        assert (await bench.borrow()).lease.id == "leasea"
        assert bench.others["uni-b"].asked == asked


async def test_an_end_that_cannot_be_written_is_an_end(sites: Sites) -> None:
    """A full disk at this gateway must not hold up who gives a lease back."""
    async with sites("uni-b") as bench:
        await bench.borrow(Wish("uni-b/m", site="uni-b"))
        await bench.file.write(
            lambda db: db.execute(
                "CREATE TRIGGER full BEFORE INSERT ON site_leases BEGIN SELECT RAISE(ABORT, 'full'); END"
            )
        )
        assert await bench.broker.release("leaseb", "enough", "a1") == "enough"
        with pytest.raises(UnknownLeaseError):
            await bench.broker.renew("leaseb", "a1")


async def test_a_notice_of_a_lease_reaches_whoever_attends_it(sites: Sites) -> None:
    """Its guest can go elsewhere before the device is gone."""
    async with sites("uni-b") as bench:
        bench.own.reply = NO_DEVICE

        class Reclaiming(Donor):
            async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
                heed(LeaseNotice("its owner needs it", 10.0))
                return "its owner has it"

        bench.others["uni-b"] = bench.neighbours.get("uni-b").peer = Reclaiming("uni-b")
        await bench.borrow()
        heard: list[LeaseNotice] = []
        assert await bench.broker.attend("leaseb", "a1", heard.append) == "its owner has it"
        assert heard == [LeaseNotice("its owner needs it", 10.0)]
