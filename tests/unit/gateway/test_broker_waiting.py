"""Requests that wait in line at other sites: their places, lines that break, and whom to ask meanwhile."""

from __future__ import annotations

import asyncio

import pytest
from borrowing_gateway import NO_DEVICE, Donor, Sites
from waiting import until

from agent.daemon.faces import LeaseOffer, OfferRequest, Refusal
from agent.errors import PeerNodeError
from agent.limits import MAX_ASK_WAIT_S
from agent.local.views import PlaceView, ReasonView, WaitingView

pytestmark = pytest.mark.asyncio

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
