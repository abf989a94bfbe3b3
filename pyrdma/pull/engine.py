"""The pull: carries out a ``PullPlan`` over a transport, proves what arrives, reports.

One task per piece on its way; the plan is stepped on the event loop, copying and digesting happen in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from pyrdma.errors import Error, LaneError, NoSourceError, SourceError
from pyrdma.image import Manifest
from pyrdma.limits import MAX_SOURCES
from pyrdma.memory import Region
from pyrdma.pull.planner import Drop, Effect, Fetch, PullPlan, Source, SourceState
from pyrdma.pull.prove import copy_and_digest
from pyrdma.transport import SourceGrant, Transport


@dataclass(frozen=True, slots=True)
class PullSource:
    """A source by the name that people know, and the right to pull from it."""

    name: str
    grant: SourceGrant


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """What one source has done in a pull so far; ``state`` is ``active``, ``dropped`` or ``done``."""

    name: str
    lane: str
    bytes: int
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull or a publication is; bytes are proven ones."""

    done_bytes: int
    total_bytes: int
    lane: str
    sources: tuple[SourceProgress, ...] = ()


@dataclass(frozen=True, slots=True)
class PullReport:
    """What a pull did: bytes pulled now, wall seconds, the lane, each source, thread seconds of proving."""

    bytes: int
    seconds: float
    lane: str
    sources: tuple[SourceProgress, ...]
    verify_s: float


class Pull:
    """One pull of one image into one region.

    Args:
        manifest: the image; its digests decide what is right.
        region: where the flat space lies; only this process writes there.
        proven: the pieces already proven in the region; added to as they are.
        transport: the lane; no other pull uses it meanwhile.
        threads: where pieces are copied and digested.
        on_proven: called with each piece as it is proven.
    """

    def __init__(
        self,
        manifest: Manifest,
        region: Region,
        proven: set[int],
        *,
        transport: Transport,
        threads: Executor,
        on_proven: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._manifest = manifest
        self._region = region
        self._transport = transport
        self._threads = threads
        self._proven = proven
        self._plan = PullPlan(manifest.layout.piece_count, transport.slots, proven=proven)
        self._before_bytes = sum(manifest.layout.piece_range(piece)[1] for piece in proven)
        self._over = False
        self._slots = list(range(transport.slots))
        self._tasks: set[asyncio.Task[None]] = set()
        self._grants: list[SourceGrant] = []
        self._peers: list[int] = []
        self._bytes_of: list[int] = []
        self._wake = asyncio.Event()
        self._broken: Error | None = None
        self._verify_s = 0.0
        self._on_proven = on_proven
        self._on_progress: Callable[[Progress], None] = lambda _: None

    async def run(self, sources: Sequence[PullSource], on_progress: Callable[[Progress], None]) -> PullReport:
        """Pull until every piece is proven.

        Raises:
            NoSourceError: sources ran out; what is proven stays and the next pull goes on from there.
            LaneError: the lane itself broke.
        """
        started_s = time.monotonic()
        self._on_progress = on_progress
        try:
            for index, source in enumerate(sources[:MAX_SOURCES]):
                on_wait = functools.partial(self._waits, index)
                self._peers.append(await self._transport.connect(source.grant, on_wait=on_wait))
                self._grants.append(source.grant)
                self._bytes_of.append(0)
                self._perform(self._plan.add_source(source.name, time.monotonic()))
            while not self._plan.complete and not self._plan.failed and self._broken is None:
                await self._wait()
                self._perform(self._plan.tick(time.monotonic()))
        finally:
            self._over = True  # what ends now is not asked for again
            for peer in self._peers:
                await self._transport.disconnect(peer)
            while self._tasks:
                await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._plan.complete:
            raise self._broken or self._no_source()
        for one in self._plan.sources:
            if one.state is SourceState.ACTIVE:
                one.state = SourceState.DONE
        progress = self._progress()
        on_progress(progress)
        return PullReport(
            bytes=sum(self._bytes_of),
            seconds=time.monotonic() - started_s,
            lane=self._transport.lane,
            sources=progress.sources,
            verify_s=self._verify_s,
        )

    def _waits(self, source: int) -> None:
        self._plan.waits(source, time.monotonic())  # its deadline comes later: nobody is to be woken for that

    async def _wait(self) -> None:
        deadline_s = self._plan.next_deadline_s()
        timeout_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        self._wake.clear()
        # Some source's allowance may be over: the plan decides. (Not wait_for: before Python 3.12 it loses a
        # cancellation that comes together with what it waits for.)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in () if self._over else effects:
            match effect:
                case Fetch(piece, source):
                    self._start(self._carry(piece, source, self._slots.pop()))
                case Drop(source, _):
                    self._start(self._let_go(source))
                    self._on_progress(self._progress())
        self._wake.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = error if isinstance(error, Error) else LaneError(f"the pull broke: {error!r}.")
        self._wake.set()

    async def _let_go(self, source: int) -> None:
        await self._transport.disconnect(self._peers[source])

    async def _carry(self, piece: int, source: int, slot: int) -> None:
        offset, nbytes = self._manifest.layout.piece_range(piece)
        try:
            await self._transport.fetch(self._peers[source], self._grants[source], offset, nbytes, slot)
        except SourceError as error:
            self._slots.append(slot)
            reason = error.message.rstrip(".")
            self._perform(self._plan.refused(piece, source, reason, time.monotonic()))
            return
        if not self._plan.arrived(piece, source, time.monotonic()):
            self._slots.append(slot)
            self._perform(self._plan.surplus(time.monotonic()))
            return
        right = await self._prove(piece, offset, nbytes, slot)
        self._slots.append(slot)
        if right:
            self._bytes_of[source] += nbytes
            self._proven.add(piece)
            self._on_proven(piece)
        self._perform(self._plan.judged(piece, source, right, time.monotonic()))
        self._on_progress(self._progress())

    async def _prove(self, piece: int, offset: int, nbytes: int, slot: int) -> bool:
        started_s = time.monotonic()
        digest = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            copy_and_digest,
            self._transport.slot_address(slot),
            self._region.address(offset, nbytes),
            nbytes,
        )
        self._verify_s += time.monotonic() - started_s
        return digest == self._manifest.digests[piece]

    def _progress(self) -> Progress:
        return Progress(
            done_bytes=sum(self._bytes_of) + self._before_bytes,
            total_bytes=self._manifest.layout.total_bytes,
            lane=self._transport.lane,
            sources=tuple(self._source_progress(i, one) for i, one in enumerate(self._plan.sources)),
        )

    def _source_progress(self, index: int, one: Source) -> SourceProgress:
        return SourceProgress(
            one.name, self._transport.lane, self._bytes_of[index], one.state.value, one.reason
        )

    def _no_source(self) -> NoSourceError:
        told = "; ".join(f"{one.name} {one.reason}" for one in self._plan.sources)
        missing = self._manifest.layout.piece_count - len(self._plan.proven)
        return NoSourceError(
            f"no source is left for {missing} of {self._manifest.layout.piece_count} pieces"
            + (f": {told}." if told else "."),
            fix="run it again when a node that holds the model is up; finished pieces are kept",
        )
