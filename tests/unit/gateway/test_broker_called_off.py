"""A request to borrow that is called off: no other donor is taken, and nothing stays held."""

from __future__ import annotations

import asyncio

import pytest
from borrowing_gateway import Donor, Sites
from waiting import until

from agent.daemon.faces import Emit, LeaseOffer, OfferRequest, Refusal, Wish
from agent.errors import PeerNodeError, UnknownLeaseError
from agent.local.views import GrantedView, PlaceView

pytestmark = pytest.mark.asyncio


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
