"""A gateway that borrows: whom it asks, whom it takes, and what another site may say."""

from __future__ import annotations

from typing import Any

import pytest
from borrowing_gateway import IMAGE, NO_DEVICE, Sites
from waiting import until

from agent.daemon.faces import LeaseOffer, Wish
from agent.daemon.reports import SiteSummary
from agent.errors import PeerNodeError, RefusedError, UnknownLeaseError
from agent.limits import MAX_DONORS_ASKED, MAX_EVENTS_HELD
from agent.local.views import AcceptedView, NoteView, PhaseView, ProgressView, RunEvent
from federation.errors import NotAdmittedError
from pyrdma.image.manifest import ImageId

pytestmark = pytest.mark.asyncio


async def test_the_own_site_comes_first_and_the_others_offers_are_given_back(sites: Sites) -> None:
    """All are asked at once, one is committed; whoever was asked knows which node it is for."""
    async with sites("uni-b", "uni-c") as bench:
        granted = await bench.borrow()
        assert granted.lease.id == "leasea"
        for name, other in bench.others.items():
            await until(lambda other=other: other.calls)
            assert other.calls == [f"release offer{name[-1]}: another offer was taken"]
            assert (other.request.borrower_node, other.request.image_id) == ("a1", IMAGE)
        assert bench.accepted == [AcceptedView("leasea", 600.0, "uni-a", "n\\x1b1")]
        assert await bench.rows() == {}, "leases of this site stand in the donor's own books"


async def test_a_warm_offer_is_better_than_a_near_one(sites: Sites) -> None:
    """The image is there: another site that holds it is taken before the own one that does not."""
    async with sites("uni-b", "uni-c") as bench:
        bench.others["uni-c"].reply = LeaseOffer("offerc", 30.0, "n1", warm=True)
        granted = await bench.borrow()
        assert granted.lease.id == "leasec"
        assert bench.accepted[0].site == "uni-c", "by its certificate, whatever it calls itself"
        assert await bench.rows() == {"uni-c/leasec": "committed"}


async def test_a_site_that_is_named_is_the_only_one_asked(sites: Sites) -> None:
    """Be it another one or this one; a node that is named without a site is one of this site's."""
    async with sites("uni-b", "uni-c") as bench:
        assert (await bench.borrow(Wish("uni-b/m", site="uni-c"))).lease.id == "leasec"
        assert (await bench.borrow(Wish("uni-b/m", site="uni-a"))).lease.id == "leasea"
        assert (await bench.borrow(Wish("uni-b/m", node="a7"))).lease.id == "leasea"
        assert bench.own.request.node == "a7"
        assert bench.others["uni-b"].asked == 0
        assert bench.others["uni-c"].asked == 1
        with pytest.raises(NotAdmittedError):
            await bench.borrow(Wish("uni-b/m", site="uni-z"))


async def test_few_are_asked_and_those_with_most_devices_free(sites: Sites) -> None:
    """Each that offers holds a device; sites without one, and sites that are silent, are not asked."""
    async with sites("uni-b", "uni-c", "uni-d", "uni-e") as bench:
        summaries = {"uni-b": (1, 1), "uni-c": (4, 2), "uni-d": (9, 8), "uni-e": (9, 1)}
        for name, (devices, leased) in summaries.items():
            bench.neighbours.get(name).summary = SiteSummary(name, "1", devices, leased, 1, 0, 0.0)
        await bench.borrow()
        asked = {name for name, one in bench.others.items() if one.asked}
        assert asked == {"uni-e", "uni-c"}
        assert len(asked) + bench.own.asked == MAX_DONORS_ASKED
        bench.now_s += 3600.0
        await bench.borrow()
        assert [one.asked for one in bench.others.values()] == [0, 1, 0, 1]


async def test_all_refusals_are_said_in_one_sentence(sites: Sites) -> None:
    """With each site's reason, be it a refusal, an error, or a defect of ours."""
    async with sites("uni-b", "uni-c") as bench:
        bench.own.reply = NO_DEVICE
        bench.others["uni-b"].reply = PeerNodeError("the peer uni-b is not reachable.")
        bench.others["uni-c"].reply = ValueError("a defect")
        with pytest.raises(RefusedError) as caught:
            await bench.borrow()
        assert caught.value.message == (
            "nobody grants a lease for uni-b/m. uni-a: it has no device. "
            "uni-b: the peer uni-b is not reachable. "
            "uni-c: it could not be asked, by a defect of this gateway."
        )
        assert bench.accepted == []


async def test_a_donor_that_does_not_keep_its_offer_is_passed_over(sites: Sites) -> None:
    """The next best offer is still open and is taken; whoever waits is told."""
    async with sites("uni-b", "uni-c") as bench:
        bench.own.refuses = RefusedError("the offer is not open.")
        granted = await bench.borrow()
        assert granted.lease.id == "leaseb"
        assert NoteView("uni-a failed after its offer: the offer is not open.") in bench.events
        assert [one.asked for one in bench.others.values()] == [1, 1]
        await until(lambda: bench.others["uni-c"].calls)
        assert bench.others["uni-b"].calls == ["commit offerb"]


async def test_a_start_that_fails_after_it_was_accepted_goes_to_the_next(sites: Sites) -> None:
    """The other offers are gone by then, so the others are asked again; what failed is given back."""
    async with sites("uni-b", "uni-c") as bench:
        bench.others["uni-b"].reply = LeaseOffer("offerb", 30.0, "n1", warm=True)
        bench.others["uni-b"].fails = PeerNodeError("no engine there.")
        bench.own.reply = NO_DEVICE
        granted = await bench.borrow()
        assert granted.lease.id == "leasec"
        assert [one.lease_id for one in bench.accepted] == ["leaseb", "leasec"]
        assert bench.others["uni-b"].asked == 1
        assert bench.others["uni-c"].calls == ["release offerc: another offer was taken", "commit offerc"]
        await until(lambda: len(bench.others["uni-b"].calls) == 2)
        assert bench.others["uni-b"].calls[1] == "release leaseb: it did not start"
        assert await bench.rows() == {"uni-b/leaseb": "it did not start", "uni-c/leasec": "committed"}


async def test_when_every_start_fails_each_reason_is_said(sites: Sites) -> None:
    """Nothing is left behind in the books."""
    async with sites("uni-b") as bench:
        bench.own.fails = PeerNodeError("no engine here.")
        bench.others["uni-b"].fails = PeerNodeError("no engine there.")
        with pytest.raises(RefusedError, match=r"uni-a: no engine here\. uni-b: no engine there\."):
            await bench.borrow()
        assert await bench.rows() == {"uni-b/leaseb": "it did not start"}


async def test_a_borrower_hears_of_a_lease_when_it_is_in_the_books(sites: Sites) -> None:
    """What its donor says meanwhile comes afterwards, in order, and as much of it as is bounded."""
    async with sites("uni-b") as bench:
        donor = bench.others["uni-b"]
        donor.says = [PhaseView(f"p{number}", 0.0) for number in range(MAX_EVENTS_HELD + 5)]
        written: list[bool] = []

        def emit(event: RunEvent) -> None:
            with_lease = bench.file.read_now(lambda db: db.table("site_leases").count)
            written.append(with_lease == 1)
            bench.events.append(event)

        await bench.broker.borrow(Wish("uni-b/m", site="uni-b"), "a1", emit)
        assert all(written)
        assert isinstance(bench.events[0], AcceptedView)
        assert bench.events[1:] == donor.says[-MAX_EVENTS_HELD:]


async def test_a_lease_that_cannot_be_written_down_is_not_taken(sites: Sites) -> None:
    """The start is called off, the lease is given back, and the borrower never hears of it."""
    async with sites("uni-b") as bench:
        await bench.file.write(
            lambda db: db.execute(
                "CREATE TRIGGER full BEFORE INSERT ON site_leases BEGIN SELECT RAISE(ABORT, 'full'); END"
            )
        )
        donor = bench.others["uni-b"]
        donor.go.clear()
        with pytest.raises(RefusedError, match="cannot be opened or written: full"):
            await bench.borrow(Wish("uni-b/m", site="uni-b"))
        await until(lambda: len(donor.calls) == 3)
        assert donor.calls[1:] == ["called off", "release leaseb: it did not start"]
        assert bench.accepted == []
        with pytest.raises(UnknownLeaseError):
            await bench.broker.renew("leaseb", "a1")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lease_id": "../../x"}, "sends what is no lease's id"),
        ({"lease_id": "x" * 65}, "sends what is no lease's id"),
        ({"ttl_s": float("nan")}, "promises a lease for nan s"),
        ({"ttl_s": 1e12}, "promises a lease for"),
        ({"says": [AcceptedView("another", 600.0, "", "")]}, "accepts one offer twice"),
        ({"grants": "another"}, "grants a lease that it has not accepted"),
        ({"image_id": ImageId(b"\x08" * 32)}, "starts another image"),
        ({"key": "k\x1b[2J"}, "sends what is no key"),
        ({"key": "k" * 1000}, "sends what is no key"),
        ({"key": ""}, "sends what is no key"),
    ],
)
async def test_a_donor_that_says_something_else_than_it_offered_is_passed_over(
    sites: Sites, changed: dict[str, Any], said: str
) -> None:
    """Each is refused with its name, nothing of it is kept, and no other lease of this site is touched."""
    async with sites("uni-b", "uni-c") as bench:
        await bench.borrow(Wish("uni-b/m", site="uni-c"), "a2")
        donor = bench.others["uni-b"]
        for name, value in changed.items():
            setattr(donor, name, value)
        with pytest.raises(RefusedError, match=f"uni-b: uni-b {said}"):
            await bench.borrow(Wish("uni-b/m", site="uni-b"))
        open_rows = [one.id for one in await bench.books.leases(include_ended=False)]
        assert open_rows == ["uni-c/leasec"]
        assert await bench.broker.renew("leasec", "a2") == 600.0


async def test_a_lease_id_of_another_lease_is_refused_and_that_lease_goes_on(sites: Sites) -> None:
    """A donor names its ids: one that is known already must not put itself in another's place."""
    async with sites("uni-b", "uni-c") as bench:
        await bench.borrow(Wish("uni-b/m", site="uni-c"), "a2")
        bench.others["uni-b"].lease_id = "leasec"
        with pytest.raises(RefusedError, match="names a lease that is another one"):
            await bench.borrow(Wish("uni-b/m", site="uni-b"))
        assert await bench.broker.renew("leasec", "a2") == 600.0
        assert not any("release" in call for call in bench.others["uni-c"].calls)
        assert await bench.rows() == {"uni-c/leasec": "committed"}


async def test_notes_of_other_sites_are_safe_to_print(sites: Sites) -> None:
    """They are shown in a terminal."""
    async with sites("uni-b") as bench:
        bench.others["uni-b"].says = [NoteView("a\x1b[2Jb"), ProgressView(1, 2, "tcp")]
        await bench.borrow(Wish("uni-b/m", site="uni-b"))
        assert NoteView("a\\x1b[2Jb") in bench.events
        assert ProgressView(1, 2, "tcp") in bench.events
