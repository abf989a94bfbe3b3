"""A node that uses leases of others: the broker is in memory, books and ports are real."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.daemon.borrowed import BorrowedLeases
from agent.daemon.clocks import boot_time_s
from agent.daemon.faces import Emit, Heed, Wish, unheeded
from agent.daemon.pipes import Pipe
from agent.local.views import AcceptedView, GrantedView, LeaseView, RunEvent, StartView
from agent.state import LeaseRecord, StateFile, Store
from pyrdma.image.manifest import ImageId

IMAGE = ImageId(b"\x07" * 32)
WISH = Wish("uni-b/m")
HERE = "uni-a/a1"
START = StartView("resident", 0, 0.0, 0.0, 0.1, True, (), ())


class Echo:
    """A pipe that says back what it is told."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        return await self._said.get()

    async def write(self, data: bytes) -> None:
        await self._said.put(data)

    async def end(self) -> None:
        await self._said.put(b"")

    async def close(self) -> None:
        """Nothing is open."""

    def abort(self) -> None:
        """Nothing is open."""


class Broker:
    """Gets one lease after the other, unless it is told otherwise."""

    def __init__(self) -> None:
        self.accepts: list[AcceptedView] = [AcceptedView("l1", 600.0, "uni-b", "b7")]
        self.refuses: Exception | None = None
        self.silent: Exception | None = None
        self.grants = "l1"
        self.ttl_s = 600.0
        self.before = asyncio.Event()
        self.go = asyncio.Event()
        self.before.set()
        self.go.set()
        self.ends: dict[str, asyncio.Future[str]] = {}
        self.renewed: list[float] = []
        self.released: list[str] = []
        self.called_off = 0

    async def borrow(self, wish: Wish, emit: Emit) -> GrantedView:
        try:
            await self.before.wait()
            for accepted in self.accepts:
                emit(accepted)
            await self.go.wait()
        except asyncio.CancelledError:
            self.called_off += 1
            raise
        if self.refuses is not None:
            raise self.refuses
        lease = LeaseView(self.grants, "m", IMAGE.hex(), "active", 1.0, None, "", None, 7)
        return GrantedView(lease, "", "key", START)

    async def renew(self, lease_id: str) -> float:
        self.renewed.append(boot_time_s())
        if self.silent is not None:
            raise self.silent
        return self.ttl_s

    async def release(self, lease_id: str, reason: str) -> str:
        self.released.append(f"{lease_id}: {reason}")
        await asyncio.sleep(0)
        if self.silent is not None:
            raise self.silent
        return f"{reason}, its donor says"

    async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
        end = self.ends.setdefault(lease_id, asyncio.get_running_loop().create_future())
        return await asyncio.shield(end)

    async def connect(self, lease_id: str) -> Pipe:
        return Echo()


class Running:
    """Leases that run on this node, of which only the ports matter here."""

    def __init__(self) -> None:
        self.here: set[str] = set()
        self.ported: list[str] = []

    def runs(self, lease_id: str) -> bool:
        return lease_id in self.here

    async def give_port(self, granted: GrantedView) -> GrantedView:
        self.ported.append(granted.lease.id)
        return replace(granted, endpoint="http://127.0.0.1:1/v1")


class Bench:
    """One borrower."""

    def __init__(self, file: StateFile) -> None:
        self.file = file
        self.store = Store(file)
        self.broker = Broker()
        self.running = Running()
        running: Any = self.running
        self.borrowed = BorrowedLeases(self.store, self.broker, HERE, running)
        self.events: list[RunEvent] = []

    async def run(self) -> GrantedView:
        return await self.borrowed.run(WISH, self.events.append)

    async def row(self, lease_id: str = "l1") -> LeaseRecord:
        record = await self.store.lease(lease_id)
        assert record is not None
        return record

    async def until_row(self, state: str, reason: str) -> None:
        """Wait until the lease's row says this."""
        deadline = time.monotonic() + 10
        while ((row := await self.row()).state, row.reason) != (state, reason):
            assert time.monotonic() < deadline, f"{row} is not {state}: {reason}"
            await asyncio.sleep(0.005)

    async def ended(self, lease_id: str = "l1") -> LeaseRecord:
        """The lease's row once it has ended."""
        deadline = time.monotonic() + 10
        while (record := await self.row(lease_id)).ended_at is None:
            assert time.monotonic() < deadline, "it did not end"
            await asyncio.sleep(0.005)
        return record


@asynccontextmanager
async def borrower(folder: Path) -> AsyncIterator[Bench]:
    """Open a node's books in a folder; what its leases leave running when they end is found here."""
    file = await StateFile.open(folder / "state.sqlite3")
    bench = Bench(file)
    try:
        yield bench
    finally:
        await bench.borrowed.close()
        await file.close()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == [], "ended leases have left tasks behind"


async def speak(port: int) -> bytes:
    """Say something to a port and return the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    answer = await reader.read(5)
    writer.close()
    await writer.wait_closed()
    return answer


async def refused(port: int) -> bool:
    """Whether nobody listens on a port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False
