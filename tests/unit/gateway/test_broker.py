"""A gateway that borrows: whom it asks, whom it takes, whose lease it is; donors are in memory here."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.faces import (
    Emit,
    Heed,
    LeaseNotice,
    LeaseOffer,
    OfferRequest,
    Refusal,
    SiteSummary,
    Wish,
    unheeded,
)
from agent.daemon.pipes import Pipe
from agent.errors import BusyError, PeerNodeError, RefusedError, UnknownLeaseError
from agent.gateway.broker import SiteBroker
from agent.gateway.naming import Naming
from agent.gateway.neighbours import Neighbours
from agent.limits import MAX_ASK_WAIT_S, MAX_BROKERED, MAX_DONORS_ASKED, MAX_EVENTS_HELD
from agent.local.views import (
    AcceptedView,
    GrantedView,
    LeaseView,
    NoteView,
    PhaseView,
    PlaceView,
    ProgressView,
    ReasonView,
    RunEvent,
    StartView,
    WaitingView,
)
from agent.site.trust import Trust
from agent.state import SiteStore, StateFile
from federation.errors import NotAdmittedError
from federation.registry.membership import Membership, ModelBinding
from pyrdma.image.manifest import ImageId

pytestmark = pytest.mark.asyncio

IMAGE = ImageId(b"\x07" * 32)
MODELS = {"uni-b/m": ModelBinding(IMAGE.hex(), 10)}
WISH = Wish("uni-b/m")
START = StartView("resident", 0, 0.0, 0.0, 0.1, True, (), ())
NO_DEVICE = Refusal("no-device", "it has no device.", "ask later", terminal=False)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition with a deadline."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.002)


class Donor:
    """A site that does what it is told: offers or refuses, accepts or not, starts or fails."""

    def __init__(self, site: str, *, warm: bool = False) -> None:
        self.site = site
        self.reply: LeaseOffer | Refusal | Exception = LeaseOffer(f"offer{site[-1]}", 30.0, "n1", warm)
        self.lease_id = f"lease{site[-1]}"
        self.refuses: Exception | None = None
        self.fails: Exception | None = None
        self.ttl_s = 600.0
        self.says: list[RunEvent] = []
        self.image_id = IMAGE
        self.grants = ""
        self.key = "key"
        self.go = asyncio.Event()
        self.go.set()
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.calls: list[str] = []
        self.borrowers: dict[str, str] = {}
        self.asked = 0

    def lends(self, lease_id: str, node: str) -> bool:
        return self.borrowers.get(lease_id) == node

    async def describe(self) -> SiteSummary:
        return SiteSummary(self.site, "1", 4, 1, 1, 0, 0.0)

    async def ask_offer(self, request: OfferRequest, wait_s: float = 0.0) -> LeaseOffer | PlaceView | Refusal:
        self.asked += 1
        self.request = request
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    async def commit(self, offer_id: str, emit: Emit) -> GrantedView:
        self.calls.append(f"commit {offer_id}")
        if self.refuses is not None:
            raise self.refuses
        emit(AcceptedView(self.lease_id, self.ttl_s, "whatever it says", "n\x1b1"))
        self.borrowers[self.lease_id] = self.request.borrower_node
        for event in self.says:
            emit(event)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.calls.append("called off")
            raise
        if self.fails is not None:
            raise self.fails
        lease_id = self.grants or self.lease_id
        lease = LeaseView(lease_id, "m", self.image_id.hex(), "active", 1.0, None, "", None, 7)
        return GrantedView(lease, "", self.key, START)

    async def renew(self, lease_id: str) -> float:
        self.calls.append(f"renew {lease_id}")
        if self.fails is not None:
            raise self.fails
        return self.ttl_s

    async def release(self, lease_id: str, reason: str) -> str:
        self.calls.append(f"release {lease_id}: {reason}")
        if self.fails is not None:
            raise self.fails
        return reason

    async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
        self.calls.append(f"attend {lease_id}")
        return await asyncio.shield(self.end)

    async def connect(self, lease_id: str) -> Pipe:
        raise ConnectionError(lease_id)


class Lender:
    """Nobody asks it here: every name of these tests is signed."""

    address = ""


class Bench:
    """One gateway, with its own donor and some other sites'."""

    def __init__(self, trust: Trust, file: StateFile, books: SiteStore) -> None:
        self.file = file
        self.books = books
        self.now_s = 1000.0
        self.own = Donor("uni-a")
        self.others: dict[str, Donor] = {}
        lender: Any = Lender()
        self.neighbours = Neighbours(trust, lambda site: (self.others[site], lender), lambda: self.now_s)
        self.naming = Naming("uni-a", None, dict, trust, self.neighbours)
        self.broker = self.new_broker()
        self.events: list[RunEvent] = []

    def new_broker(self) -> SiteBroker:
        return SiteBroker(
            self.own,
            self.neighbours,
            self.naming,
            self.books,
            boot_id="boot",
            clock=lambda: self.now_s,
            sign=lambda request: request,
        )

    async def borrow(self, wish: Wish = WISH, node: str = "a1") -> GrantedView:
        return await self.broker.borrow(wish, node, self.events.append)

    async def rows(self) -> dict[str, str]:
        return {one.id: one.reason or one.state for one in await self.books.leases(include_ended=True)}

    @property
    def accepted(self) -> list[AcceptedView]:
        return [one for one in self.events if isinstance(one, AcceptedView)]


Sites = Callable[..., Any]


@pytest.fixture
def sites(tmp_path: Path, trust: Trust, membership: Callable[..., Membership]) -> Sites:
    """Open a gateway of uni-a that has heard of some other sites."""

    @asynccontextmanager
    async def opened(*names: str) -> AsyncIterator[Bench]:
        trust.learn(membership("uni-a", *names, models=MODELS))
        file = await StateFile.open(tmp_path / "state.sqlite3")
        bench = Bench(trust, file, await SiteStore.of(file))
        bench.others = {name: Donor(name) for name in names}
        bench.neighbours.learn()
        await bench.neighbours.ask_all()
        try:
            yield bench
        finally:
            await bench.broker.close()
            await file.close()
            assert [one for one in asyncio.all_tasks() if one is not asyncio.current_task()] == []

    return opened


# --- whom it asks, whom it takes --------------------------------------------------------------------------


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


# --- called off -------------------------------------------------------------------------------------------


async def test_being_cancelled_calls_the_lease_off_and_strikes_it_off(sites: Sites) -> None:
    """The donor hears it by the end of the call, and by a word of its own if that got lost."""
    async with sites("uni-b") as bench:
        donor = bench.others["uni-b"]
        donor.go.clear()
        borrowing = asyncio.create_task(bench.borrow(Wish("uni-b/m", site="uni-b")))
        await until(lambda: bench.accepted)
        borrowing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await borrowing
        await until(lambda: len(donor.calls) == 3)
        assert donor.calls == ["commit offerb", "called off", "release leaseb: it did not start"]
        assert await bench.rows() == {"uni-b/leaseb": "it did not start"}
        with pytest.raises(UnknownLeaseError):
            await bench.broker.renew("leaseb", "a1")


async def test_being_cancelled_takes_no_other_donor(sites: Sites) -> None:
    """Even if the donor answers the cancellation with an error."""
    async with sites("uni-b") as bench:

        class Rude(Donor):
            async def commit(self, offer_id: str, emit: Emit) -> GrantedView:
                try:
                    return await super().commit(offer_id, emit)
                except asyncio.CancelledError:
                    raise PeerNodeError("the call broke.") from None

        rude = Rude("uni-a")
        bench.own = rude
        bench.broker = bench.new_broker()
        rude.go.clear()
        borrowing = asyncio.create_task(bench.borrow())
        await until(lambda: bench.accepted)
        borrowing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await borrowing
        assert not any(call.startswith("commit") for call in bench.others["uni-b"].calls)


async def test_being_cancelled_before_anything_is_accepted_gives_the_offers_back(sites: Sites) -> None:
    """The others' devices are free at once, not when their offers are over."""
    async with sites("uni-b") as bench:
        reached, go = asyncio.Event(), asyncio.Event()

        class Slow(Donor):
            async def commit(self, offer_id: str, emit: Emit) -> GrantedView:
                reached.set()
                await go.wait()
                raise AssertionError("it is cancelled before")

        slow = bench.own = Slow("uni-a")
        bench.broker = bench.new_broker()
        borrowing = asyncio.create_task(bench.borrow())
        await reached.wait()
        borrowing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await borrowing
        await until(lambda: slow.calls and bench.others["uni-b"].calls)
        assert bench.others["uni-b"].calls == ["release offerb: the request was called off"]
        assert slow.calls == ["release offera: the request was called off"], (
            "it may not have heard of the rest"
        )


async def test_being_cancelled_while_the_sites_are_asked_gives_back_what_they_offer(sites: Sites) -> None:
    """What was asked is given up by its id, which stands for its place and for an offer on its way."""
    async with sites("uni-b") as bench:
        reached, go, asked = asyncio.Event(), asyncio.Event(), list[str]()

        class Slow(Donor):
            async def ask_offer(
                self, request: OfferRequest, wait_s: float = 0.0
            ) -> LeaseOffer | PlaceView | Refusal:
                asked.append(request.request_id)
                reached.set()
                await go.wait()
                return await super().ask_offer(request, wait_s)

        slow = bench.own = Slow("uni-a")
        bench.broker = bench.new_broker()
        borrowing = asyncio.create_task(bench.borrow())
        await reached.wait()
        borrowing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await borrowing
        go.set()
        await until(lambda: slow.calls and bench.others["uni-b"].calls)
        assert slow.calls == [f"release {asked[0]}: the request was called off"]
        assert bench.others["uni-b"].calls == ["release offerb: the request was called off"]


# --- what another site may say ----------------------------------------------------------------------------


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


# --- whose lease it is ------------------------------------------------------------------------------------


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


# --- requests that wait -----------------------------------------------------------------------------------

FULL = PlaceView(2, 7, (ReasonView("waiting-for-capacity", "every device is in use.", "a lease ends"),))


class Queue(Donor):
    """A site where a request waits until ``turn`` is set; asked to wait, it keeps the question open."""

    def __init__(self, site: str) -> None:
        super().__init__(site)
        self.turn = asyncio.Event()
        self.waits: list[float] = []

    async def ask_offer(self, request: OfferRequest, wait_s: float = 0.0) -> LeaseOffer | PlaceView | Refusal:
        self.waits.append(wait_s)
        self.request = request
        if wait_s:
            await self.turn.wait()
        return await super().ask_offer(request, wait_s) if self.turn.is_set() else FULL


async def test_a_request_waits_where_every_device_is_in_use(sites: Sites) -> None:
    """Each donor keeps its place, the borrower hears where it stands; the first that offers is taken."""
    async with sites("uni-b", "uni-c") as bench:
        bench.own.reply = NO_DEVICE
        queues = bench.others["uni-b"], bench.others["uni-c"] = Queue("uni-b"), Queue("uni-c")
        bench.neighbours.learn()
        for queue in queues:
            bench.neighbours.get(queue.site).peer = queue
        borrowing = asyncio.create_task(bench.borrow())
        await until(lambda: all(len(queue.waits) == 2 for queue in queues))
        assert queues[0].waits == [0.0, MAX_ASK_WAIT_S], "a place first, then a question that is kept open"
        waiting = [one for one in bench.events if isinstance(one, WaitingView)]
        assert {one.site for one in waiting} == {"uni-b", "uni-c"}
        assert {one.place for one in waiting} == {FULL}
        assert queues[0].request.request_id == queues[1].request.request_id, "one request, wherever it waits"
        queues[1].turn.set()
        assert (await borrowing).lease.id == "leasec"
        await until(lambda: queues[0].calls)
        assert queues[0].calls == [f"release {queues[0].request.request_id}: another offer was taken"]


async def test_who_waits_no_more_gives_its_places_up(sites: Sites) -> None:
    """A place that nobody wants must not stand before others."""
    async with sites("uni-b") as bench:
        bench.own.reply = NO_DEVICE
        queue = bench.others["uni-b"] = bench.neighbours.get("uni-b").peer = Queue("uni-b")
        borrowing = asyncio.create_task(bench.borrow())
        await until(lambda: len(queue.waits) == 2)
        borrowing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await borrowing
        await until(lambda: queue.calls)
        assert queue.calls == [f"release {queue.request.request_id}: the request was called off"]


async def test_a_place_outlives_a_broken_line(sites: Sites) -> None:
    """The donor keeps it for a minute: it is asked again, not given up."""
    async with sites("uni-b") as bench:
        bench.own.reply = NO_DEVICE
        queue = bench.others["uni-b"] = bench.neighbours.get("uni-b").peer = Queue("uni-b")
        offer = queue.reply
        borrowing = asyncio.create_task(bench.borrow())
        await until(lambda: len(queue.waits) == 2)
        queue.reply = PeerNodeError("the peer uni-b is not reachable.")
        queue.turn.set()
        await until(lambda: len(queue.waits) == 3)
        queue.reply = offer
        assert (await borrowing).lease.id == "leaseb"


async def test_a_donor_that_does_not_keep_the_question_open_is_no_reason_to_spin(sites: Sites) -> None:
    """It is asked as seldom as one that cannot be reached, however fast it answers."""
    async with sites("uni-b") as bench:
        bench.own.reply = NO_DEVICE

        class Hasty(Queue):
            async def ask_offer(self, request: OfferRequest, wait_s: float = 0.0) -> PlaceView:
                self.waits.append(wait_s)
                await asyncio.sleep(0)
                return FULL

        queue = bench.others["uni-b"] = bench.neighbours.get("uni-b").peer = Hasty("uni-b")
        borrowing = asyncio.create_task(bench.borrow())
        await until(lambda: len(queue.waits) == 2)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(queue.waits) == 2
        borrowing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await borrowing


async def test_who_could_not_serve_is_asked_anew_while_it_waits_elsewhere(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site that was not there may have a device by then; one that refused for good has none."""
    monkeypatch.setattr("agent.gateway.broker.WIDEN_S", 0.05)
    async with sites("uni-b", "uni-c") as bench:
        bench.own.reply = Refusal("too-large", "it does not fit.", "", terminal=True)
        bench.neighbours.get("uni-b").peer = Queue("uni-b")
        late = bench.others["uni-c"]
        late.reply = PeerNodeError("the peer uni-c is not reachable.")
        borrowing = asyncio.create_task(bench.borrow())
        await until(lambda: late.asked == 2)
        late.reply = LeaseOffer("offerc", 30.0, "n1", warm=False)
        assert (await borrowing).lease.id == "leasec"
        assert bench.own.asked == 1


async def test_when_nobody_is_left_the_next_sites_are_asked(sites: Sites) -> None:
    """Sites that refuse are no reason to give up while others have not been asked."""
    async with sites("uni-b", "uni-c", "uni-d", "uni-e") as bench:
        for one in (bench.own, *bench.others.values()):
            one.reply = NO_DEVICE
        bench.others["uni-e"].reply = LeaseOffer("offere", 30.0, "n1", warm=False)
        assert (await bench.borrow()).lease.id == "leasee"


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
