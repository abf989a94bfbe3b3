"""The page of a gateway's queue over a real port: what it answers, and what strangers cannot do to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from agent.errors import SocketInUseError, StateError
from agent.limits import MAX_PAGE_CONNECTIONS, MAX_PAGE_HEAD_BYTES, PAGE_KEPT_S
from agent.local.queue_views import QueueView, ReclaimsView, TermsView, WaitingRequestView
from agent.local.views import PlaceView
from agent.openness.page import Page
from agent.openness.server import PageServer

pytestmark = pytest.mark.asyncio


def view(waiting: int = 0) -> QueueView:
    """A queue of which one request is listed."""
    listed = WaitingRequestView(
        "r1", "west/w1", "/west/lab", "", "secret", 1, False, 1.0, PlaceView(1, waiting, (), None)
    )
    return QueueView(
        site="<north>",
        consortium="demo",
        policy_version=1,
        policy_digest="ab" * 32,
        books_age_s=1.0,
        stale=False,
        requests=(listed,) if waiting else (),
        devices=(),
        waits=(),
        reserved_waits=(),
        reclaims=ReclaimsView(0, None, None),
        shares=(),
        terms=TermsView(10.0, 5.0, 900.0, 86400.0, ("*",), ()),
    )


class Site:
    """What is behind the page: a queue, a clock that only the test moves, and how often it was looked at."""

    def __init__(self) -> None:
        self.shown = view(7)
        self.fault: StateError | None = None
        self.now_s = 100.0
        self.looks = 0

    async def look(self) -> QueueView:
        self.looks += 1
        if self.fault is not None:
            raise self.fault
        return self.shown


@asynccontextmanager
async def served(site: Site, call_s: float = 10.0) -> AsyncIterator[PageServer]:
    """Serve a site's page at a port of loopback."""
    server = await PageServer.start(Page(site.look, lambda: site.now_s), "127.0.0.1", 0, call_s=call_s)
    try:
        yield server
    finally:
        await server.close()


async def connect(server: PageServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to a page."""
    host, _, port = server.address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def say(server: PageServer, sent: bytes) -> bytes:
    """Send bytes; return what comes until the other side ends."""
    reader, writer = await connect(server)
    writer.write(sent)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def ask(server: PageServer, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Return the status and the body that a path has."""
    said = await say(server, f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"content-security-policy: default-src 'none'" in head
    return int(head.split(b" ")[1]), body


async def test_people_and_programs_see_the_published_part() -> None:
    """The page and its data say how many wait, never who; a name that is markup is only text."""
    site = Site()
    async with served(site) as server:
        status, html = await ask(server, "/")
        assert status == 200
        assert b"&lt;north&gt;" in html
        assert b"<north>" not in html
        status, data = await ask(server, "/queue.json?x=1")
        document = json.loads(data)
        assert (status, document["waiting"], "requests" in document) == (200, 7, False)
        assert b"secret" not in html + data


async def test_only_two_paths_are_read_and_nothing_is_taken() -> None:
    """Other paths, other methods, and what is no request are refused in a sentence; HEAD has no body."""
    async with served(Site()) as server:
        assert (await ask(server, "/etc/passwd"))[0] == 404
        assert (await ask(server, "/", "POST"))[0] == 405
        status, body = await ask(server, "/", "HEAD")
        assert (status, body) == (200, b"")
        assert b" 400 " in await say(server, b"hello\r\n\r\n")
        assert b" 400 " in await say(server, b"GET / HTTP/1.1\r\nx: " + b"y" * 2 * MAX_PAGE_HEAD_BYTES)


async def test_the_queue_is_looked_at_once_however_many_ask() -> None:
    """Within the time that a page is kept there is one look, also when it fails; then there is another."""
    site = Site()
    async with served(site) as server:
        await asyncio.gather(*(ask(server, "/") for _ in range(20)))
        assert site.looks == 1
        site.now_s += PAGE_KEPT_S
        site.fault = StateError("the disk is full.", fix="free space")
        assert [await ask(server, "/"), await ask(server, "/queue.json")] == [
            (503, b"the page cannot be made at the moment\n")
        ] * 2
        assert site.looks == 2
        site.now_s += PAGE_KEPT_S
        site.fault = None
        assert (await ask(server, "/"))[0] == 200


async def test_connections_are_bounded_and_silent_ones_end() -> None:
    """Past the bound a caller is hung up on at once; silent ones are too, soon, and others are served."""
    async with served(Site(), call_s=0.3) as server:
        silent = [await connect(server) for _ in range(MAX_PAGE_CONNECTIONS)]
        with suppress(OSError):
            assert await say(server, b"GET / HTTP/1.1\r\n\r\n") == b""
        async with asyncio.timeout(3):
            for reader, writer in silent:
                with suppress(OSError):
                    assert await reader.read() == b""
                writer.close()
        assert (await ask(server, "/"))[0] == 200


async def test_closing_waits_for_nobody() -> None:
    """A connection that has asked for nothing, and one that reads nothing, are hung up on."""
    site = Site()
    async with served(site) as server:
        silent = [await connect(server) for _ in range(2)]
        silent[0][1].write(b"GET / HTTP/1.1\r\n")
        async with asyncio.timeout(2):
            await server.close()
        for _, writer in silent:
            writer.close()


async def test_an_address_that_is_taken_is_named() -> None:
    """The error says which one."""
    site = Site()
    async with served(site) as server:
        host, _, port = server.address.rpartition(":")
        with pytest.raises(SocketInUseError, match=port):
            await PageServer.start(Page(site.look, lambda: 0.0), host, int(port))
