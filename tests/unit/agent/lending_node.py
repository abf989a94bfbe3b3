"""A node that runs leases: cache and runners are in memory, books, sockets and ports are real."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import blake3

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.catalogue import Catalogue
from agent.daemon.faces import Order
from agent.daemon.leases import Leases
from agent.daemon.parts import Assignment, Parcel
from agent.daemon.reports import LeaseEnd
from agent.daemon.spares import Spares
from agent.daemon.supply import Supply
from agent.daemon.transfers import Transfers
from agent.errors import OwnedError
from agent.local.views import GrantedView
from agent.paths import Paths
from agent.state import LeaseRecord, NameRecord, StateFile, Store
from pyrdma.cache.client import CacheStatus, ReplicaStatus
from pyrdma.image import Manifest, lay_out

LAYOUT = lay_out([("w", "U8", (256,))])
MANIFEST = Manifest(layout=LAYOUT, digests=(blake3.blake3(bytes(LAYOUT.total_bytes)).digest(),))
IMAGE = MANIFEST.image_id


def order(lease_id: str = "l1", ttl_s: float = 60.0, borrower: str = "uni-b/b1") -> Order:
    """What the gateway wants run."""
    return Order(lease_id, "m", IMAGE, ttl_s, borrower)


class Gate:
    """Something that may be held up; ``waiting`` counts who is."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = 0

    async def pass_through(self) -> None:
        self.waiting += 1
        try:
            await self.open.wait()
        finally:
            self.waiting -= 1


class Cache:
    """A weight cache that holds the one image."""

    pid = 1

    def __init__(self, warming: Gate) -> None:
        self.closed = asyncio.Event()
        self._warming = warming

    async def status(self) -> CacheStatus:
        await self._warming.pass_through()
        return CacheStatus(100, 0, 0, (ReplicaStatus(IMAGE, 256, 1, 1, 0, pulling=False),), ())

    async def attach(self, image_id: object) -> Any:
        return object()

    async def close(self) -> None:
        self.closed.set()


class Runner:
    """A runner that serves once it is let; it ends when it is stopped."""

    def __init__(self, pid: int, assigning: Gate, stopping: Gate) -> None:
        self.pid = pid
        self.ended = asyncio.Event()
        self.assigned: Assignment | None = None
        self.fault: Exception | None = None
        self.drains: list[float] = []
        self.undrains = 0
        self.mute = False
        self.undraining = Gate()
        self.kills = 0
        self._assigning = assigning
        self.stopping = stopping

    async def ready(self) -> None:
        """It is."""

    async def assign(
        self, assignment: Assignment, parcel: Parcel, on_phase: Callable[[str, float], None]
    ) -> Mapping[str, float]:
        self.assigned = assignment
        await self._assigning.pass_through()
        if self.fault is not None:
            raise self.fault
        on_phase("map", 0.1)
        return {"map": 0.1}

    async def drain(self, left_s: float) -> None:
        self.drains.append(left_s)

    async def undrain(self) -> bool:
        self.undrains += 1
        await self.undraining.pass_through()
        return not self.mute

    def kill(self) -> None:
        self.kills += 1

    def end_reason(self) -> str:
        return "was ended by SIGKILL"

    async def stop(self) -> None:
        await self.stopping.pass_through()
        self.ended.set()


class Launcher:
    """Starts runners, each after its gate."""

    def __init__(self) -> None:
        self.spawning, self.assigning, self.stopping = Gate(), Gate(), Gate()
        self.started: list[Runner] = []

    async def spawn(self, gpus: str = "") -> Any:
        await self.spawning.pass_through()
        runner = Runner(1000 + len(self.started), self.assigning, self.stopping)
        self.started.append(runner)
        return runner

    async def check(self, folder: Path) -> str:
        return ""

    @property
    def running(self) -> list[Runner]:
        return [one for one in self.started if not one.ended.is_set()]


class Devices:
    """One device, whose owner may have it."""

    def __init__(self) -> None:
        self.owned = False
        self.told: list[str] = []

    def place(self, lease_id: str, wanted: Sequence[str], grace_s: float) -> str:
        if self.owned:
            raise OwnedError("the owner of this node has cpu0.")
        self.told.append(f"place {lease_id} {grace_s:g}")
        return ""

    def left(self, lease_id: str, group: int | None) -> None:
        self.told.append(f"left {lease_id} {group}")

    def sent(self, lease_id: str, nbytes: int) -> None:
        self.told.append(f"sent {lease_id} {nbytes}")


class Bench:
    """One node that donates."""

    def __init__(
        self,
        file: StateFile,
        store: Store,
        paths: Paths,
        keeper: CacheKeeper,
        warming: Gate,
        devices: Devices | None,
    ) -> None:
        self.paths = paths
        self.file = file
        self.store = store
        self.warming = warming
        self.launcher = Launcher()
        transfers = Transfers()
        catalogue = Catalogue(store, keeper, self.launcher, transfers)
        supply = Supply(catalogue, keeper, transfers, lambda: ())
        spares = Spares(self.launcher, 0)
        self.leases = Leases(store, supply, keeper, spares, paths, "uni-a/a1", devices=devices)
        self.ends: list[tuple[str, str]] = []
        self.for_owner: list[str] = []
        self.leases.on_end = self._note_end

    def _note_end(self, end: LeaseEnd) -> None:
        self.ends.append((end.lease_id, end.reason))
        if end.for_owner:
            self.for_owner.append(end.lease_id)

    def start(self, what: Order) -> asyncio.Task[GrantedView]:
        return asyncio.create_task(self.leases.start_runner(what, lambda _: None))

    async def until_listed(self, state: str, reason: str) -> None:
        """Wait until the one lease is listed and written down so."""

        async def is_so() -> bool:
            row, (listed,) = await self.row(), await self.leases.list(include_ended=False)
            return (listed.state, listed.reason) == (row.state, row.reason) == (state, reason)

        deadline = time.monotonic() + 10
        while not await is_so():
            assert time.monotonic() < deadline, f"{await self.row()} is not {state}"
            await asyncio.sleep(0.002)

    async def row(self, lease_id: str = "l1") -> LeaseRecord:
        record = await self.store.lease(lease_id)
        assert record is not None
        return record


@asynccontextmanager
async def node(folder: Path, devices: Devices | None = None) -> AsyncIterator[Bench]:
    """Start a node that has one image; what it leaves running when it stops is found here."""
    paths = Paths(folder, folder / "run")
    paths.run_dir.mkdir()
    paths.runner_socket("x").parent.mkdir(exist_ok=True)
    file = await StateFile.open(folder / "state.sqlite3")
    store = Store(file)
    await store.bind_name(NameRecord("m", IMAGE, "", 1.0), MANIFEST)
    warming = Gate()

    async def start_cache() -> Any:
        return Cache(warming)

    keeper = CacheKeeper(start_cache)
    await keeper.start()
    bench = Bench(file, store, paths, keeper, warming, devices)
    try:
        yield bench
    finally:
        await bench.leases.close()
        await keeper.close()
        await file.close()
        assert bench.launcher.running == []
        assert [one for one in asyncio.all_tasks() if one is not asyncio.current_task()] == []
