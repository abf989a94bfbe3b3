"""A donor from the offer to the grant: what it offers, commits and starts, and what is left of what fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from donor_site import IMAGE, REQUEST, site
from waiting import until

from agent.daemon.faces import LeaseOffer, Refusal
from agent.errors import PeerNodeError, RefusedError, RunnerError, StateError, UnknownLeaseError
from agent.gateway.core.request import KnownModel, LeaseRequest
from agent.local.views import AcceptedView, PhaseView, RunEvent

pytestmark = pytest.mark.asyncio


async def test_a_lease_is_accepted_started_and_granted(tmp_path: Path) -> None:
    """Its borrower hears that it is accepted, then how it starts; it is on disk before its node hears."""
    async with site(tmp_path) as one:
        await one.report()
        offer = await one.offer()
        assert (offer.node, offer.warm) == ("n1", False)
        seen: list[RunEvent] = []
        on_disk: list[str] = []

        async def prepare(node: str, request: LeaseRequest) -> None:
            on_disk.extend(row.state for row in await one.books.leases(include_ended=False))

        one.prepare = prepare
        answer = await one.donor.commit(offer.offer_id, "uni-b", seen.append)
        lease_id = answer.lease.id
        assert seen == [AcceptedView(lease_id, 60.0, "uni-a", "n1"), PhaseView("map", 0.1)]
        assert on_disk == ["committed"]
        (order,) = one.nodes["n1"].orders
        assert (order.lease_id, order.borrower, order.ttl_s) == (lease_id, "uni-b/b1", 60.0)
        assert await one.rows() == {lease_id: ("active", "")}
        assert one.donor.lends(lease_id, "uni-b", "b1")
        assert not one.donor.lends(lease_id, "uni-b", "b2")
        assert not one.donor.lends(lease_id, "uni-c", "b1")


async def test_a_start_that_fails_is_told_as_it_is_and_the_device_comes_back(tmp_path: Path) -> None:
    """The borrower hears the node's own error; the device is free once its node has nothing of it."""
    async with site(tmp_path) as one:
        await one.report()
        one.nodes["n1"].fault = RunnerError("no engine here.", fix="install one")
        offer = await one.offer()
        with pytest.raises(RunnerError, match="no engine here"):
            await one.donor.commit(offer.offer_id, "uni-b", lambda _: None)
        await until(lambda: one.free)
        ((state, reason),) = (await one.rows()).values()
        assert (state, reason) == ("ended", "no engine here.")


async def test_an_image_that_cannot_be_brought_ends_the_lease(tmp_path: Path) -> None:
    """What fails before the node is told is a start that failed, too."""
    async with site(tmp_path) as one:

        async def prepare(node: str, request: LeaseRequest) -> None:
            raise PeerNodeError("nobody has it.")

        one.prepare = prepare
        await one.report()
        with pytest.raises(PeerNodeError, match="nobody has it"):
            await one.donor.commit((await one.offer()).offer_id, "uni-b", lambda _: None)
        assert one.nodes["n1"].orders == []
        await until(lambda: one.free)


async def test_a_defect_during_a_start_ends_the_lease_too(tmp_path: Path) -> None:
    """What is no error of ours must not leave a lease behind that nobody can use."""
    async with site(tmp_path) as one:
        await one.report()
        one.nodes["n1"].fault = ValueError("a defect")
        with pytest.raises(ValueError, match="a defect"):
            await one.donor.commit((await one.offer()).offer_id, "uni-b", lambda _: None)
        await until(lambda: one.free)
        assert [reason for _, reason in (await one.rows()).values()] == ["a defect of the donor's gateway"]


async def test_the_time_that_a_node_is_given_is_what_is_left_when_it_is_told(tmp_path: Path) -> None:
    """An image may take longer to come near than a lease lives; its borrower has renewed it meanwhile."""
    async with site(tmp_path) as one:
        come = asyncio.Event()

        async def prepare(node: str, request: LeaseRequest) -> None:
            await come.wait()

        one.prepare = prepare
        await one.report()
        seen: list[RunEvent] = []
        offer = await one.offer()
        committing = asyncio.create_task(one.donor.commit(offer.offer_id, "uni-b", seen.append))
        await until(lambda: seen)
        assert isinstance(seen[0], AcceptedView)
        one.now_s += 50.0
        assert await one.donor.renew(seen[0].lease_id, "uni-b") == 60.0
        one.now_s += 30.0
        await one.report()
        come.set()
        await committing
        assert one.nodes["n1"].orders[0].ttl_s == 30.0


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("moment", ["before it is on disk", "while it starts"])
async def test_a_commit_that_is_called_off_leaves_nothing(tmp_path: Path, moment: str, times: int) -> None:
    """The node hears that the start is off, then that it has to stop; the device is free, with the reason."""
    async with site(tmp_path) as one:
        await one.report()
        node = one.nodes["n1"]
        node.go.clear()
        offer = await one.offer()
        committing = asyncio.create_task(one.donor.commit(offer.offer_id, "uni-b", lambda _: None))
        if moment == "while it starts":
            await until(lambda: node.orders)
        else:
            await asyncio.sleep(0)
            assert one.donor.state.book.leases == {}
        for _ in range(times):  # a call may be cancelled by its caller, and by the server that ends
            committing.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await committing
        await until(lambda: one.free)
        assert node.running == set()
        ((lease_id, row),) = (await one.rows()).items()
        assert row == ("ended", "the request was called off")
        assert node.happened[-1] == f"stop {lease_id}: the request was called off"
        assert node.happened[:-1] in ([], ["called off"])
        assert (await one.offer()).node == "n1"


async def test_a_listener_that_refuses_the_lease_calls_it_off(tmp_path: Path) -> None:
    """Whoever takes the events may find that it does not want what they announce."""
    async with site(tmp_path) as one:
        await one.report()

        def refuse(event: RunEvent) -> None:
            raise PeerNodeError("not this one.")

        with pytest.raises(PeerNodeError, match="not this one"):
            await one.donor.commit((await one.offer()).offer_id, "uni-b", refuse)
        await until(lambda: one.free)
        assert one.nodes["n1"].running == set()


async def test_a_lease_that_ends_while_it_starts_tells_whoever_waits(tmp_path: Path) -> None:
    """The borrower hears why, and the node is told to stop."""
    async with site(tmp_path) as one:
        await one.report()
        one.nodes["n1"].go.clear()
        offer = await one.offer()
        committing = asyncio.create_task(one.donor.commit(offer.offer_id, "uni-b", lambda _: None))
        await until(lambda: one.nodes["n1"].orders)
        await one.donor.gone("n1", "its owner needs it")
        with pytest.raises(RefusedError, match="ended before its model answered: its owner needs it"):
            await committing
        await until(lambda: one.nodes["n1"].happened[-1].startswith("stop"))
        assert one.nodes["n1"].happened[0] == "called off"


async def test_an_offer_is_committed_once(tmp_path: Path) -> None:
    """The second call is refused, while the lease starts and afterwards; the first one does not notice."""
    async with site(tmp_path) as one:
        await one.report()
        one.nodes["n1"].go.clear()
        offer = await one.offer()
        first = asyncio.create_task(one.donor.commit(offer.offer_id, "uni-b", lambda _: None))
        await until(lambda: one.nodes["n1"].orders)
        with pytest.raises(RefusedError, match="taken already"):
            await one.donor.commit(offer.offer_id, "uni-b", lambda _: None)
        one.nodes["n1"].go.set()
        lease_id = (await first).lease.id
        with pytest.raises(RefusedError, match="taken already"):
            await one.donor.commit(offer.offer_id, "uni-b", lambda _: None)
        assert set(one.donor.state.book.leases) == {lease_id}
        assert len(one.nodes["n1"].orders) == 1


async def test_an_offer_is_its_askers_alone_and_can_be_given_back(tmp_path: Path) -> None:
    """Another site can neither commit it nor give it back; given back, its device is free."""
    async with site(tmp_path) as one:
        await one.report()
        offer = await one.offer()
        with pytest.raises(UnknownLeaseError):
            await one.donor.commit(offer.offer_id, "uni-c", lambda _: None)
        with pytest.raises(UnknownLeaseError):
            await one.donor.release(offer.offer_id, "", "uni-c")
        assert not one.free
        assert await one.donor.release(offer.offer_id, "another was taken", "uni-b") == "another was taken"
        assert one.free


async def test_what_a_donor_cannot_offer_it_refuses_with_a_sentence(tmp_path: Path) -> None:
    """The rule's refusal is passed on as it is."""
    async with site(tmp_path) as one:
        answer = await one.donor.ask_offer(REQUEST, "uni-b")
        assert isinstance(answer, Refusal)
        assert answer.code == "no-device"
        await one.report()
        answer = await one.donor.ask_offer(replace(REQUEST, total_bytes=101), "uni-b")
        assert isinstance(answer, Refusal)
        assert (answer.code, answer.terminal) == ("too-large", True)


async def test_a_commit_that_cannot_be_written_is_refused_and_the_device_is_free(tmp_path: Path) -> None:
    """Nothing is started for it, no lease is known, and its offer is gone with it."""
    async with site(tmp_path) as one:
        await one.report()
        offer = await one.offer()
        await one.refuse_writes("'committed'")
        with pytest.raises(StateError, match="the disk is full"):
            await one.donor.commit(offer.offer_id, "uni-b", lambda _: None)
        assert one.free
        assert one.donor.state.book.leases == {}
        assert one.nodes["n1"].orders == []
        assert await one.rows() == {}


async def test_a_turn_that_comes_while_a_request_is_asked_for_is_not_missed(tmp_path: Path) -> None:
    """Both that wait with one request hear of the offer at once, not when their question is over."""
    async with site(tmp_path) as one:
        await one.report()
        first = await one.offer()
        other = replace(REQUEST, request_id="r2")
        asking = [asyncio.create_task(one.donor.ask_offer(other, "uni-b", 3600.0)) for _ in range(2)]
        freeing = asyncio.create_task(one.donor.release(first.offer_id, "not wanted", "uni-b"))
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*asking)
        await freeing
        assert all(isinstance(answer, LeaseOffer) for answer in answers)
        assert one.donor._turns._turns_come == {}


async def test_a_donor_that_closes_calls_its_starts_off(tmp_path: Path) -> None:
    """Whoever waits hears that it was stopped; nothing is left to run behind the agent's back."""
    async with site(tmp_path) as one:
        await one.report()
        one.nodes["n1"].go.clear()
        offer = await one.offer()
        committing = asyncio.create_task(one.donor.commit(offer.offer_id, "uni-b", lambda _: None))
        await until(lambda: one.nodes["n1"].orders)
        await one.donor.close()
        with pytest.raises(RefusedError, match="ended before its model answered"):
            await committing
        assert one.nodes["n1"].running == set()


async def test_what_an_image_is_says_the_registry_not_the_borrower(tmp_path: Path) -> None:
    """The borrower's name for it stands in the request; what rules speak of comes from the signed lists."""
    listed = KnownModel("uni-a/secret", "uni-a", "mit", 10)
    async with site(tmp_path) as one:
        one.known[IMAGE.hex()] = (listed,)
        await one.report()
        await one.donor.ask_offer(replace(REQUEST, model="uni-b/alias"), "uni-b")
        (offer,) = one.donor.state.book.offers.values()
        assert (offer.request.model, offer.request.known) == ("uni-b/alias", (listed,))
