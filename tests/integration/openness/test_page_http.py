"""A gateway's page over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from agent.errors import SocketInUseError
from agent.local.queue_views import (
    DeviceCountView,
    QueueView,
    ReclaimsView,
    ShareView,
    TermsView,
    WaitCellView,
    WaitingRequestView,
)
from agent.local.views import PlaceView
from agent.openness.server import Page, PageServer

pytestmark = pytest.mark.asyncio

REQUEST = WaitingRequestView(
    "r1", "uni-b/b1", "/uni-b/secret-project", "teaching", "llama", 1, False, 60.0, PlaceView(1, 1, ())
)
VIEW = QueueView(
    site="uni-a",
    consortium="north",
    policy_version=3,
    policy_digest="ab" * 32,
    books_age_s=40.0,
    stale=False,
    requests=(REQUEST,),
    devices=(DeviceCountView("h100", 4, 3, 1),),
    waits=(
        WaitCellView("1 to 5 %", "h100", 12, 30.0, 300.0),
        WaitCellView("over 20 %", "h100", None, None, None),
    ),
    reserved_waits=(WaitCellView("<b>student</b>", "h100", 5, 2.0, 9.0),),
    reclaims=ReclaimsView(2, 8.0, 14.0),
    shares=(ShareView("/uni-b", 250, 240),),
    terms=TermsView(10.0, 5.0, 900.0, 86400.0, ("*",), ("mon-fri 20:00-06:00",)),
)


class Site:
    """A queue that counts how often it is looked at."""

    def __init__(self) -> None:
        self.view = VIEW
        self.now_s = 100.0
        self.looks = 0

    async def look(self) -> QueueView:
        self.looks += 1
        await asyncio.sleep(0)
        return self.view


@asynccontextmanager
async def served(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    server = await PageServer.start(Page(site.look, lambda: site.now_s), "127.0.0.1", 0)
    try:
        async with httpx.AsyncClient(base_url=f"http://{server.address}") as client:
            yield client
    finally:
        await server.close()


async def test_the_page_says_waits_shares_and_terms() -> None:
    """For people as HTML, for programs as JSON; what others named cannot become markup."""
    async with served(Site()) as client:
        page = await client.get("/")
        assert page.status_code == 200
        for words in ("uni-a", "version 3", "fewer than 5", "24.0 %", "mon-fri 20:00-06:00", "h100"):
            assert words in page.text
        assert "<b>student</b>" not in page.text
        data = (await client.get("/queue.json")).json()
        assert data["schema"] == 1
        assert data["waits"][0]["p90_s"] == 300.0
        assert data["waits"][1]["requests"] is None


async def test_no_request_and_no_person_is_published() -> None:
    """Neither page names a request, a node or an account of one; few that wait are not counted."""
    site = Site()
    async with served(site) as client:
        for path in ("/", "/queue.json"):
            text = (await client.get(path)).text
            assert "secret-project" not in text
            assert "uni-b/b1" not in text
        assert json.loads(text)["waiting"] is None
        five = replace(REQUEST, place=PlaceView(1, 5, ()))
        site.view, site.now_s = replace(VIEW, requests=(five,)), 200.0
        assert (await client.get("/queue.json")).json()["waiting"] == 5


async def test_however_many_look_the_queue_is_counted_once() -> None:
    """A page is shown for some seconds before it is made anew."""
    site = Site()
    async with served(site) as client:
        await asyncio.gather(*(client.get("/") for _ in range(20)), client.get("/queue.json"))
        assert site.looks == 1
        site.now_s += 6.0
        await client.get("/")
        assert site.looks == 2


async def test_nothing_else_is_served_or_taken() -> None:
    """Other paths and methods get a sentence; HEAD gets no body."""
    async with served(Site()) as client:
        assert (await client.get("/../etc/passwd")).status_code == 404
        assert (await client.post("/", content=b"x" * 1000)).status_code == 405
        head = await client.head("/queue.json")
        assert (head.status_code, head.content) == (200, b"")


async def test_an_address_that_is_taken_is_said() -> None:
    """In one sentence, not by the end of the agent."""
    async with served(Site()) as client:
        port = client.base_url.port
        assert port is not None
        with pytest.raises(SocketInUseError, match=f"127.0.0.1:{port}"):
            await PageServer.start(Page(Site().look, lambda: 0.0), "127.0.0.1", port)
