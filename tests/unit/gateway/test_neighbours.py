"""The other sites, as a gateway last heard from each; they are in memory here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from waiting import until

from agent.daemon.reports import SiteSummary
from agent.errors import PeerNodeError
from agent.gateway.neighbours import Neighbours
from agent.limits import MAX_SITE_QUESTIONS, SITE_SILENCE_S
from agent.site.trust import Trust
from federation.errors import NotAdmittedError
from federation.registry.membership import Membership

pytestmark = pytest.mark.asyncio


class Peer:
    """A gateway: it answers, has a fault, or hangs."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.fault: Exception | None = None
        self.hangs = False
        self.asked = 0
        self.called_off = 0

    async def describe(self) -> SiteSummary:
        self.asked += 1
        if self.hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.called_off += 1
                raise
        if self.fault is not None:
            raise self.fault
        return SiteSummary(self.site, "1", 4, 5, 2, 3, 7.0)


class Bench:
    """What uni-a knows of the others, on a clock that only the test moves."""

    def __init__(self, trust: Trust, membership: Callable[..., Membership]) -> None:
        self.trust = trust
        self.membership = membership
        self.now_s = 1000.0
        self.peers: dict[str, Peer] = {}
        self.reached: list[str] = []

        def reach(site: str) -> Any:
            self.reached.append(site)
            return self.peers.setdefault(site, Peer(site)), object()

        self.neighbours = Neighbours(trust, reach, lambda: self.now_s)

    def admit(self, *sites: str) -> None:
        self.trust.learn(self.membership("uni-a", *sites))
        self.neighbours.learn()

    @property
    def ready(self) -> list[str]:
        return [one.document.site for one in self.neighbours.ready()]

    @property
    def states(self) -> dict[str, str]:
        return {one.name: one.state for one in self.neighbours.views()}


@pytest_asyncio.fixture
async def bench(trust: Trust, membership: Callable[..., Membership]) -> AsyncIterator[Bench]:
    made = Bench(trust, membership)
    yield made
    await made.neighbours.close()
    assert [one for one in asyncio.all_tasks() if one.get_name().startswith("ask-")] == []


async def test_a_site_is_ready_from_its_answer_until_it_was_silent_for_too_long(bench: Bench) -> None:
    """Never asked it is unknown, then ready, then lost; its last figures stay, with their age."""
    bench.admit("uni-b")
    assert (bench.states, bench.ready) == ({"uni-b": "unknown"}, [])
    await bench.neighbours.ask_all()
    assert (bench.states, bench.ready) == ({"uni-b": "ready"}, ["uni-b"])
    bench.now_s += SITE_SILENCE_S
    assert bench.ready == ["uni-b"]
    bench.now_s += 0.1
    (view,) = bench.neighbours.views()
    assert (view.state, view.devices, view.leased, view.idle) == ("lost", 4, 5, 0)
    assert view.age_s == pytest.approx(SITE_SILENCE_S + 0.1)
    assert bench.ready == []


async def test_a_fault_is_shown_until_the_site_answers_again(bench: Bench) -> None:
    """A site that answered a moment ago is ready still; one that never did is lost."""
    bench.admit("uni-b", "uni-c")
    bench.peers["uni-c"].fault = NotAdmittedError("the site uni-c is not in the registry.")
    await bench.neighbours.ask_all()
    bench.peers["uni-b"].fault = PeerNodeError("the peer uni-b is not reachable.")
    await bench.neighbours.ask_all()
    assert bench.states == {"uni-b": "ready", "uni-c": "lost"}
    assert [one.fault for one in bench.neighbours.views()] == [
        "the peer uni-b is not reachable.",
        "the site uni-c is not in the registry.",
    ]
    bench.peers["uni-b"].fault = bench.peers["uni-c"].fault = None
    await bench.neighbours.ask_all()
    assert [one.fault for one in bench.neighbours.views()] == ["", ""]
    assert bench.ready == ["uni-b", "uni-c"]


async def test_sites_come_and_go_with_the_registry(bench: Bench) -> None:
    """One that left is forgotten, and a question to it is called off; one that stays keeps what it said."""
    bench.admit("uni-b", "uni-c")
    await bench.neighbours.ask_all()
    bench.peers["uni-c"].hangs = True
    asking = asyncio.create_task(bench.neighbours.ask_all())
    await until(lambda: bench.peers["uni-c"].asked == 2)
    bench.admit("uni-b", "uni-d")
    await asking
    assert bench.peers["uni-c"].called_off == 1
    assert bench.states == {"uni-b": "ready", "uni-d": "unknown"}
    assert bench.reached == ["uni-b", "uni-c", "uni-d"]
    with pytest.raises(NotAdmittedError, match="no site uni-c"):
        bench.neighbours.get("uni-c")
    bench.trust.learn(None)
    bench.neighbours.learn()
    assert bench.states == {}


async def test_a_site_that_hangs_is_asked_once_and_holds_up_nobody(bench: Bench) -> None:
    """Many silent sites wait for each other; those that answer are asked beside them."""
    silent = [f"silent{number}" for number in range(2 * MAX_SITE_QUESTIONS)]
    bench.admit(*silent, "zuni")
    for name in silent:
        bench.peers[name].fault = PeerNodeError("it is not reachable.")
    await bench.neighbours.ask_all()
    for name in silent:
        bench.peers[name].hangs = True
    asking = [asyncio.create_task(bench.neighbours.ask_all()) for _ in range(3)]
    await until(lambda: bench.peers["zuni"].asked >= 2)
    assert all(bench.peers[name].asked <= 2 for name in silent)
    assert sum(bench.peers[name].asked == 2 for name in silent) == MAX_SITE_QUESTIONS
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_sites_are_asked_by_themselves_until_the_gateway_closes(bench: Bench) -> None:
    """Nothing goes on afterwards, and a defect of one question stops no other."""
    bench.admit("uni-b", "uni-c")
    bench.peers["uni-b"].hangs = True
    bench.neighbours.start()
    await until(lambda: bench.ready == ["uni-c"])
    people = asyncio.create_task(bench.neighbours.ask_all())
    await until(lambda: bench.peers["uni-c"].asked == 2)
    assert bench.peers["uni-b"].asked == 1, "it is being asked already"
    await bench.neighbours.close()
    await people
    assert bench.peers["uni-b"].called_off == 1


async def test_a_silent_site_that_calls_is_asked_at_once(bench: Bench) -> None:
    """It is back before its turn comes; one that is ready, or unknown, is not asked for that."""
    bench.admit("uni-b")
    await bench.neighbours.ask_all()
    bench.neighbours.knocked("uni-b")
    bench.neighbours.knocked("uni-x")
    assert bench.peers["uni-b"].asked == 1
    bench.now_s += SITE_SILENCE_S + 1
    assert bench.ready == []
    for _ in range(2):
        bench.neighbours.knocked("uni-b")
    await until(lambda: bench.ready == ["uni-b"])
    assert bench.peers["uni-b"].asked == 2
