"""A consortium of four institutions as the local API tells it, and a source that tells it to the UI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pytest_textual_snapshot import SVGImageExtension

from agent.local import federation_views, views
from pyrdma.errors import Error
from tui.picture import Picture
from tui.source import Answer

# syrupy renamed the attribute that the plugin sets; without this no browser opens the pictures.
SVGImageExtension.file_extension = "svg"

NOW = 1_800_000_000.0
DAY_S = 86_400.0
GB = 10**9
IMAGE = "ab" * 32
SITE = federation_views.SiteView(
    name="eth",
    trust_domain="eth.example",
    local=False,
    state="ready",
    fault="",
    age_s=3.0,
    address="gateway.eth.example:7443",
    devices=8,
    leased=3,
    idle=5,
    nodes=2,
    images=12,
    transfer_bytes_per_s=1.24e9,
)
SITES = (
    replace(SITE, name="epfl", trust_domain="epfl.example", devices=4, leased=4, idle=0, images=7),
    replace(SITE, local=True, age_s=0.0),
    replace(
        SITE,
        name="university-of-northern-somewhere",
        trust_domain="uns.example",
        state="lost",
        fault="the gateway of uns.example does not answer.",
        age_s=4000.0,
        transfer_bytes_per_s=0.0,
    ),
    replace(
        SITE, name="tum", trust_domain="tum.example", state="unknown", age_s=None, devices=0, leased=0, idle=0
    ),
)
DEVICES = (
    federation_views.DeviceView("gpu0", "cuda", 80 * GB, "leased", "0123456789abcdef", "/epfl/lab"),
    federation_views.DeviceView("gpu1", "cuda", 80 * GB, "idle", "", ""),
    federation_views.DeviceView("gpu2", "cuda", 80 * GB, "off", "", ""),
)
NODES = (
    federation_views.NodeView("eth-2", "10.0.0.2:7443", "node", "lost", 700.0, (), 0, 0.0),
    federation_views.NodeView("eth-1", "10.0.0.1:7443", "gateway", "ready", 1.0, DEVICES, 12, 0.4e9),
)
SOURCES = (
    views.SourceView("eth-2", "tcp", 3 * GB, "active", ""),
    views.SourceView("epfl", "tcp", 0, "dropped", "sent a wrong byte"),
)
TRANSFERS = (
    views.TransferView(
        "t2",
        "llama-8b",
        IMAGE,
        "pull",
        "running",
        views.ProgressView(8 * GB, 16 * GB, "tcp", SOURCES),
        NOW - 9,
        9.0,
        "",
    ),
    views.TransferView(
        "t1", "qwen-0.5b", IMAGE, "publish", "done", views.ProgressView(GB, GB, ""), NOW - 99, 2.0, ""
    ),
    views.TransferView(
        "t0",
        "mistral-small-3.2-24b-instruct",
        IMAGE,
        "pull",
        "failed",
        views.ProgressView(GB, 48 * GB, "cuda_ipc"),
        NOW - 500,
        20.0,
        "no source is left for 2940 pieces.",
    ),
)
STATUS = views.StatusView(
    name="eth-1",
    version="0.1.0",
    uptime_s=3.5,
    pid=5,
    cache=views.CacheView(True, 6, 64 * GB, 48 * GB, 50, 0, "", (views.WorkerView("tcp", 7),)),
    spares=views.SparesView(1, 1, (8,), ""),
    peers=(),
    leases=1,
    state_fault="",
)
FEDERATION = federation_views.FederationView(
    site="eth",
    trust_domain="eth.example",
    node="eth-1",
    role="gateway",
    gateway="10.0.0.1:7443",
    certificate_expires_at=NOW + 20 * 3600,
    registry=federation_views.RegistryView("swiss-ai", "fresh", "", 4, NOW - 60, NOW + 2.5 * DAY_S),
    sites=SITES,
    nodes=NODES,
)
LEASES = (views.LeaseView("0123456789abcdef", "llama-8b", IMAGE, "active", NOW - 600, None, "", 4000, 77),)
ANSWER = Answer(STATUS, FEDERATION, TRANSFERS, LEASES)


@dataclass
class FakeAgent:
    """A source that can die, fall silent and come back; counts how often it was opened and asked."""

    answer: Answer
    fault: Error | None = None
    silent: bool = False
    opened: int = 0
    asked: int = 0
    never: asyncio.Event = field(default_factory=asyncio.Event)

    async def status(self) -> views.StatusView:
        """Count the round; then tell, fail or be silent."""
        self.asked += 1
        if self.silent:
            await self.never.wait()
        if self.fault is not None:
            raise self.fault
        return self.answer.status

    async def federation(self) -> federation_views.FederationView:
        """Tell."""
        return self.answer.federation

    async def transfers(self) -> tuple[views.TransferView, ...]:
        """Tell."""
        return self.answer.transfers

    async def leases(self) -> tuple[views.LeaseView, ...]:
        """Tell."""
        return self.answer.leases

    def open(self) -> AbstractAsyncContextManager[FakeAgent]:
        """Open it; a dead one has no socket to open."""
        if self.fault is not None:
            raise self.fault
        self.opened += 1
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[FakeAgent]:
        yield self


@pytest.fixture(autouse=True)
def with_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours as on a terminal, whatever the environment of the tests says."""
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def answer() -> Answer:
    """The answer of a gateway in a consortium of four."""
    return ANSWER


@pytest.fixture
def picture() -> Picture:
    """The picture after two samples, at a fixed time."""
    return Picture.first(ANSWER, NOW - 2, interval_s=1.5).answered(ANSWER, NOW)


@pytest.fixture
def fake_agent() -> FakeAgent:
    """An agent that answers."""
    return FakeAgent(ANSWER)


@pytest.fixture
def wait_for() -> Callable[[Any, Callable[[], bool]], Awaitable[None]]:
    """The function ``wait_for(pilot, condition)``: let the app go on until it holds, at most ten seconds."""

    async def wait(pilot: Any, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10.0):
            while not condition():
                await pilot.pause(0.01)

    return wait
