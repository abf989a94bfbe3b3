"""Weight caches as processes, and a lane with both ends in this process, over real memory and UCX."""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import namespaces
import pytest
from fault_proxy import FaultProxy

from pyrdma.cache.client import CacheClient, CacheConfig
from pyrdma.cache.reading import read_folder
from pyrdma.image import Manifest, scan_folder
from pyrdma.limits import MIB, PIECE_BYTES
from pyrdma.memory import ExtentPool, Region
from pyrdma.pull.engine import Pull, PullReport, PullSource
from pyrdma.transport import SourceGrant
from pyrdma.transport.ucx import UcxTransport

DEADLINE_S = 20.0
WORKERS = Path(__file__).with_name("lane_workers.py")


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """Wait until a condition, or one that is awaited, holds; fail after the deadline."""
    end_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < end_s:
        holds = condition()
        if isinstance(holds, Awaitable):
            holds = await holds
        if holds:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"waited in vain {what}")


def gone(pid: int) -> bool:
    """Whether a process has ended; one that waits to be reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@dataclass
class LaneBench:
    """The weight cache's side of a lane in this process: an image, an empty region, workers of any kind."""

    manifest: Manifest
    image: Region
    target: Region
    flat: Path
    log_folder: Path
    threads: ThreadPoolExecutor
    lanes: list[UcxTransport] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    session: int = 1000

    @property
    def nbytes(self) -> int:
        """The image's bytes."""
        return self.manifest.layout.total_bytes

    async def worker(self, mode: str = "", argument: Path | None = None, **options: Any) -> UcxTransport:
        """Start a worker: ours, or one of ``lane_workers.py``."""
        if mode:
            options["command"] = [sys.executable, str(WORKERS), mode, str(argument)]
        lane = await UcxTransport.start("lo", **({"slots": 4} | options))
        self.lanes.append(lane)
        return lane

    async def source(
        self, name: str, puller: UcxTransport, mode: str = "honest"
    ) -> tuple[UcxTransport, PullSource]:
        """Start a source worker that notes what it is asked for and let the puller read the image from it."""
        lane = await self.worker(mode, self.log_folder / name, slots=1)
        return lane, await self.grant(name, lane, puller)

    async def grant(self, name: str, lane: UcxTransport, puller: UcxTransport) -> PullSource:
        """Let the puller read the image from a lane; its end is noted in ``ended``."""
        self.session += 1
        await lane.serve(
            self.session, puller.address, self.image, self.nbytes, on_end=lambda: self.ended.append(name)
        )
        return PullSource(name, SourceGrant(self.session, lane.lane, lane.address))

    def asked(self, name: str) -> list[int]:
        """The pieces that a source was asked for, in order."""
        log = self.log_folder / name
        return [int(line) for line in log.read_text().split()] if log.exists() else []

    async def pull(
        self,
        lane: UcxTransport,
        sources: list[PullSource],
        proven: set[int] | None = None,
        on_progress: Callable[[Any], None] = lambda _: None,
    ) -> PullReport:
        """Pull the image into the target region."""
        there = set() if proven is None else proven
        one = Pull(self.manifest, self.target, there, transport=lane, threads=self.threads)
        return await one.run(sources, on_progress)

    def spoil(self) -> None:
        """Fill the target with junk."""
        for piece in range(self.manifest.layout.piece_count):
            offset, nbytes = self.manifest.layout.piece_range(piece)
            ctypes.memset(self.target.address(offset, nbytes), 0xEE, nbytes)

    def wrong(self, pieces: set[int] | None = None) -> list[int]:
        """Those of the pieces (all, without an argument) whose bytes in the target are not the image's."""
        found = []
        for piece in range(self.manifest.layout.piece_count) if pieces is None else pieces:
            offset, nbytes = self.manifest.layout.piece_range(piece)
            ours, theirs = self.target.address(offset, nbytes), self.image.address(offset, nbytes)
            if ctypes.string_at(ours, nbytes) != ctypes.string_at(theirs, nbytes):
                found.append(piece)
        return found


@pytest.fixture(scope="module")
def lane_memory(model_of_six_pieces: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LaneBench]:
    """The memory of ``lane_bench``, used again by each test of a module, since fresh memory is slow."""
    scan = scan_folder(model_of_six_pieces)
    pool = ExtentPool(256 * MIB)
    image, target = pool.allocate(scan.layout.total_bytes), pool.allocate(scan.layout.total_bytes)
    folder = tmp_path_factory.mktemp("lane")
    with ThreadPoolExecutor(2) as threads:
        manifest = read_folder(scan, image, threads, lambda _: None)
        with (folder / "flat").open("wb") as flat:
            for piece in range(manifest.layout.piece_count):
                offset, nbytes = manifest.layout.piece_range(piece)
                flat.write(ctypes.string_at(image.address(offset, nbytes), nbytes))
        yield LaneBench(manifest, image, target, folder / "flat", folder, threads)
    pool.release(image)
    pool.release(target)
    pool.close()


@pytest.fixture
def lane_bench(lane_memory: LaneBench, tmp_path: Path, loop_runner: asyncio.Runner) -> Iterator[LaneBench]:
    """A bench with a spoiled target; whatever worker a test starts is ended after it."""
    lane_memory.log_folder = tmp_path
    lane_memory.ended.clear()
    lane_memory.spoil()
    yield lane_memory
    lanes, lane_memory.lanes = lane_memory.lanes, []
    for lane in lanes:
        loop_runner.run(lane.close())
    assert all(gone(lane.pid) for lane in lanes)


@pytest.fixture(scope="module")
def loop_runner() -> Iterator[asyncio.Runner]:
    """One event loop for the tests of a module, so that processes live from one to the next."""
    with asyncio.Runner() as runner:
        yield runner


@dataclass
class Caches:
    """Weight caches by name, started when first wanted and again when one was killed."""

    model: Path
    running: dict[str, CacheClient] = field(default_factory=dict)

    async def get(self, name: str, memory_bytes: int = 128 * MIB, **options: Any) -> CacheClient:
        """Return the cache of this name."""
        client = self.running.get(name)
        if client is None or client.closed.is_set():
            if client is not None:
                await client.close()
            config = CacheConfig(memory_bytes, prefault=False, **options)
            client = self.running[name] = await CacheClient.start(config)
        return client

    async def source(self, name: str) -> tuple[CacheClient, Manifest]:
        """Return a cache that holds the model of six pieces."""
        client = await self.get(name)
        return client, await client.publish(self.model, lambda _: None)

    async def empty(self) -> None:
        """Drop every image that is no longer in use."""
        for client in self.running.values():
            if not client.closed.is_set():
                for replica in (await client.status()).replicas:
                    await client.drop(replica.image_id)


@pytest.fixture(scope="module")
def cache_processes(model_of_six_pieces: Path, loop_runner: asyncio.Runner) -> Iterator[Caches]:
    """The caches of a module."""
    caches = Caches(model_of_six_pieces)
    yield caches
    for client in caches.running.values():
        loop_runner.run(client.close())
        assert gone(client.pid)


@pytest.fixture
def caches(cache_processes: Caches, loop_runner: asyncio.Runner) -> Iterator[Caches]:
    """Caches that hold nothing between tests; an image that a test leaves in use is found here."""
    yield cache_processes
    loop_runner.run(cache_processes.empty())


@pytest.fixture(scope="session")
def needs_ucx() -> None:
    """Skip, for a counted reason, where UCX is not installed."""
    if importlib.util.find_spec("ucxx") is None:
        pytest.skip("UCX is not installed here (extra 'cpu')")


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    """The function ``until(condition)``: wait for it with a deadline."""
    return until


@pytest.fixture(scope="session")
def has_ended() -> Callable[[int], bool]:
    """The function ``gone(pid)``."""
    return gone


@pytest.fixture(scope="session")
def memory_of() -> Callable[[int, str], int]:
    """A function from a process and a field of its status (``RssAnon``, ``VmHWM``...) to bytes."""

    def read(pid: int, name: str) -> int:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {name} of {pid}")

    return read


@pytest.fixture(scope="session")
def listeners_of() -> Callable[[int], list[tuple[str, int]]]:
    """A function from a process to the addresses and ports that it listens on."""

    def read(pid: int) -> list[tuple[str, int]]:
        inodes = set()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(str(entry.readlink()))
            except FileNotFoundError:
                continue
        found = []
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                    address, port = fields[1].split(":")
                    found.append((address, int(port, 16)))
        return found

    return read


@pytest.fixture(scope="session")
def network_lab() -> Any:
    """The class of a lab of so many machines on one network, from ``labs/namespaces.py``."""
    if reason := namespaces.why_not():
        pytest.skip(reason)
    return namespaces.Lab


@pytest.fixture(scope="session")
def fault_proxy() -> Any:
    """The class of a TCP proxy with faults to a host and port, from ``labs/fault_proxy.py``."""
    return FaultProxy


assert PIECE_BYTES == 16 * MIB
