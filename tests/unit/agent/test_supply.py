"""How an image comes from peers when this node's own lane fails; cache and peer are in memory here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import blake3
import pytest

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.catalogue import Catalogue
from agent.daemon.supply import Found, Supplied, Supply
from agent.daemon.transfers import Transfers
from agent.errors import RequestError
from agent.local.views import NoteView
from agent.resolve import ModelRef, Offer
from agent.state import StateFile, Store
from pyrdma.cache.client import (
    CacheStatus,
    Progress,
    PullReport,
    PullSource,
    ReplicaStatus,
    SourceGrant,
)
from pyrdma.errors import LaneError
from pyrdma.image import ImageId, Manifest, lay_out

LAYOUT = lay_out([("w", "U8", (256,))])
MANIFEST, OTHER = (
    Manifest(layout=LAYOUT, digests=(blake3.blake3(bytes([fill]) * LAYOUT.total_bytes).digest(),))
    for fill in (0, 1)
)
MANIFESTS = {one.image_id: one for one in (MANIFEST, OTHER)}


class Cache:
    """A weight cache whose lane dies in the first pulls; each new lane has another address."""

    pid = 1

    def __init__(self, deaths: int) -> None:
        self.closed = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.deaths = deaths
        self.lanes = 0
        self.pulled_from: list[bytes] = []
        self.whole: tuple[ReplicaStatus, ...] = ()

    async def status(self) -> CacheStatus:
        return CacheStatus(0, 0, 0, self.whole, ())

    async def lane_address(self) -> bytes:
        self.lanes += 1
        return f"lane {self.lanes}".encode()

    async def pull(
        self, manifest: Manifest, sources: Sequence[PullSource], progress: Callable[[Progress], None]
    ) -> PullReport:
        self.pulled_from.append(sources[0].grant.address)
        await self.may_end.wait()
        if len(self.pulled_from) <= self.deaths:
            raise LaneError("the UCX lane worker died.")
        return PullReport(manifest.layout.total_bytes, 0.1, "tcp", (), 0.0)

    async def close(self) -> None:
        self.closed.set()


class Peer:
    """A node that has the image and answers to whatever lane it is told."""

    address = "unix:/peer"

    def __init__(self) -> None:
        self.open = 0
        self.most_open = 0
        self.on_manifest: Callable[[], None] = lambda: None

    async def find(self, ref: ModelRef) -> Offer:
        assert ref.image_id is not None
        return Offer(self.address, MANIFESTS[ref.image_id].image_id, LAYOUT.total_bytes, "peer")

    async def manifest(self, image_id: ImageId) -> Manifest:
        self.on_manifest()
        return MANIFESTS[image_id]

    @asynccontextmanager
    async def open_source(
        self, image_id: ImageId, lane_address: bytes, limit_s: float
    ) -> AsyncIterator[SourceGrant]:
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            yield SourceGrant(1, "tcp", lane_address)
        finally:
            self.open -= 1


def provide(
    folder: Path,
    cache: Cache,
    peer: Peer,
    told: list[Any],
    images: Sequence[Manifest] = (MANIFEST,),
    most_bytes: int = 0,
) -> tuple[list[Supplied], list[str]]:
    """Supply images at once; return the outcomes and the states of all transfers, newest first."""

    async def run() -> tuple[list[Supplied], list[str]]:
        file = await StateFile.open(folder / "state.sqlite3")
        store = Store(file)

        async def start() -> Any:
            return cache

        keeper = CacheKeeper(start)
        await keeper.start()
        transfers = Transfers()
        launcher: Any = None  # publishes nothing here
        catalogue = Catalogue(store, keeper, launcher, transfers)
        peers: Any = [peer]
        try:
            supply = Supply(catalogue, keeper, transfers, lambda: peers)
            work = [
                supply.provide("m", Found(image.image_id, (), most_bytes), told.append) for image in images
            ]
            supplied = await asyncio.gather(*work)
            return supplied, [transfer.state for transfer in transfers.list()]
        finally:
            await keeper.close()
            await file.close()

    return asyncio.run(run())


def test_a_lane_that_dies_costs_one_more_try_with_sources_opened_anew(tmp_path: Path) -> None:
    """The second try speaks to the new lane; the caller is told; no source stays open."""
    cache, peer = Cache(deaths=1), Peer()
    told: list[Any] = []
    (supplied,), states = provide(tmp_path, cache, peer, told)
    assert supplied.lane == "tcp"
    assert cache.pulled_from == [b"lane 1", b"lane 2"]
    assert states == ["done", "failed"]
    assert any(isinstance(event, NoteView) and "started again" in event.text for event in told)
    assert peer.open == 0


def test_a_lane_that_dies_again_fails_the_start(tmp_path: Path) -> None:
    """Two deaths in one start are a defect, not bad luck: its sentence reaches the caller."""
    cache, peer = Cache(deaths=2), Peer()
    with pytest.raises(LaneError, match="died"):
        provide(tmp_path, cache, peer, [])
    assert peer.open == 0


def test_two_pulls_take_turns_and_open_their_sources_when_it_is_theirs(tmp_path: Path) -> None:
    """A source that waited behind a long pull would fall silent and end; the second caller is told why."""
    cache, peer = Cache(deaths=0), Peer()
    told: list[Any] = []
    asked: list[None] = []
    cache.may_end.clear()

    def on_manifest() -> None:
        asked.append(None)
        if len(asked) == 2:  # the second one looks for its turn in this very step
            asyncio.get_running_loop().call_soon(cache.may_end.set)

    peer.on_manifest = on_manifest
    supplied, states = provide(tmp_path, cache, peer, told, (MANIFEST, OTHER))
    assert [one.lane for one in supplied] == ["tcp", "tcp"]
    assert states == ["done", "done"]
    assert peer.most_open == 1
    assert any(isinstance(event, NoteView) and "another pull" in event.text for event in told)


def test_an_image_that_is_larger_than_was_claimed_is_not_pulled(tmp_path: Path) -> None:
    """It was admitted by the claim: by its size, and by the memory that it needs."""
    cache, peer = Cache(deaths=0), Peer()
    with pytest.raises(RequestError, match="asked for with"):
        provide(tmp_path, cache, peer, [], most_bytes=LAYOUT.total_bytes - 1)
    assert (cache.pulled_from, peer.most_open) == ([], 0)
    provide(tmp_path, Cache(deaths=0), peer, [], most_bytes=LAYOUT.total_bytes)
    resident = Cache(deaths=0)
    resident.whole = (ReplicaStatus(MANIFEST.image_id, LAYOUT.total_bytes, 1, 1, 0, pulling=False),)
    with pytest.raises(RequestError, match="asked for with"):  # also where it is in memory by now
        provide(tmp_path, resident, peer, [], most_bytes=1)
