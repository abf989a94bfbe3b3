"""Visitors' leases: kept while somebody attends them, and nobody else's business."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent.daemon.faces import Wish
from agent.daemon.visits import Visits
from agent.errors import BusyError, UnknownLeaseError
from agent.limits import MAX_STREAMS_PER_TOKEN
from agent.local.views import GrantedView, LeaseView, StartView
from agent.people.model import Who

ALICE, BOB = Who(None, "alice", account="/eth"), Who(None, "bob", account="/eth")
ROOT = Who(0, "root", owner=True)
START = StartView("tcp", 1, 0.1, 0.1, 0.1, True, (), ())
SOON_S, LONG_S = 0.01, 60.0


class StandIn:
    """A gateway's node, its borrowed leases and its desk in one: leases end when they are stopped."""

    def __init__(self) -> None:
        self.desk = self
        self.borrowed = self
        self.owner = ROOT
        self.ends: dict[str, asyncio.Future[str]] = {}
        self.stopped: list[tuple[str, Who]] = []

    async def run(self, wish: Wish, who: Who, emit: Callable[[Any], None]) -> GrantedView:
        lease_id = f"lease{len(self.ends)}"
        self.ends[lease_id] = asyncio.get_running_loop().create_future()
        lease = LeaseView(lease_id, wish.model, "00" * 32, "active", 1.0, None, "", 1, None)
        return GrantedView(lease, "", "key", START)

    async def stop(self, lease_id: str, who: Who) -> LeaseView:
        self.stopped.append((lease_id, who))
        if not self.ends[lease_id].done():
            self.ends[lease_id].set_result("stopped")
        return LeaseView(lease_id, "m", "00" * 32, "ended", 1.0, 2.0, "stopped", None, None)

    async def until_end(self, lease_id: str) -> str:
        return await asyncio.shield(self.ends[lease_id])

    async def connect(self, lease_id: str) -> str:
        return f"pipe to {lease_id}"


def visiting(work: Callable[[Visits, StandIn], Awaitable[None]], absent_s: float) -> None:
    async def run() -> None:
        node = StandIn()
        visits = Visits(node, absent_s)  # type: ignore[arg-type]
        await asyncio.wait_for(work(visits, node), 10.0)
        await visits.close()

    asyncio.run(run())


async def begin(visits: Visits, who: Who) -> str:
    return (await visits.run(Wish("m"), who, lambda _: None)).lease.id


def test_a_lease_that_nobody_attends_is_stopped() -> None:
    """The laptop that started it has gone without a word."""

    async def work(visits: Visits, node: StandIn) -> None:
        lease_id = await begin(visits, ALICE)
        assert await node.until_end(lease_id) == "stopped"
        assert node.stopped == [(lease_id, ROOT)]

    visiting(work, SOON_S)


def test_a_lease_lives_while_it_is_attended_and_a_while_after() -> None:
    """However long that is; when the attendant leaves, the time begins again."""

    async def work(visits: Visits, node: StandIn) -> None:
        lease_id = await begin(visits, ALICE)
        attending = asyncio.create_task(visits.attend(lease_id, ALICE))
        done, _ = await asyncio.wait([attending], timeout=20 * SOON_S)
        assert not done
        assert node.stopped == []
        attending.cancel()
        assert await node.until_end(lease_id) == "stopped"

    visiting(work, SOON_S)


def test_who_attends_hears_of_the_end() -> None:
    """And the lease is forgotten then."""

    async def work(visits: Visits, node: StandIn) -> None:
        lease_id = await begin(visits, ALICE)
        attending = asyncio.create_task(visits.attend(lease_id, ALICE))
        await asyncio.sleep(0)
        node.ends[lease_id].set_result("its donor took the device back")
        assert await attending == "its donor took the device back"
        with pytest.raises(UnknownLeaseError):
            await visits.attend(lease_id, ALICE)

    visiting(work, LONG_S)


def test_another_tokens_lease_is_as_unknown_as_one_that_is_not() -> None:
    """Bob cannot stop, attend or use what Alice runs, and does not learn whether it is there."""

    async def work(visits: Visits, node: StandIn) -> None:
        lease_id = await begin(visits, ALICE)
        for call in (visits.stop, visits.attend, visits.connect):
            with pytest.raises(UnknownLeaseError) as theirs:
                await call(lease_id, BOB)
            with pytest.raises(UnknownLeaseError) as nobodys:
                await call("lease9", BOB)
            assert theirs.value.message.replace(lease_id, "lease9") == nobodys.value.message
        assert node.stopped == []
        assert await visits.connect(lease_id, ALICE) == f"pipe to {lease_id}"
        assert (await visits.stop(lease_id, ALICE)).state == "ended"

    visiting(work, LONG_S)


def test_revoking_a_token_ends_its_leases_and_no_others() -> None:
    """At once, attended or not."""

    async def work(visits: Visits, node: StandIn) -> None:
        alices, bobs = await begin(visits, ALICE), await begin(visits, BOB)
        visits.end_all("alice")
        assert await node.until_end(alices) == "stopped"
        assert not node.ends[bobs].done()
        with pytest.raises(UnknownLeaseError):
            await visits.connect(alices, ALICE)

    visiting(work, LONG_S)


def test_one_token_has_so_many_streams_at_once() -> None:
    """Another token has its own; a stream that ends makes room."""

    async def work(visits: Visits, node: StandIn) -> None:
        held = [visits.stream(ALICE) for _ in range(MAX_STREAMS_PER_TOKEN)]
        for one in held:
            one.__enter__()
        with pytest.raises(BusyError):
            visits.stream(ALICE).__enter__()
        with visits.stream(BOB):
            pass
        held[0].__exit__(None, None, None)
        with visits.stream(ALICE):
            pass

    visiting(work, LONG_S)
