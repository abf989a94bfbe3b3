"""Whole pulls over a transport inside this process, with sources that lie, stall, refuse and die."""

from __future__ import annotations

import asyncio
import ctypes
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import blake3
import pytest

from pyrdma.errors import LaneError, NoSourceError, SourceError
from pyrdma.image import Manifest, lay_out
from pyrdma.limits import MAX_BAD_PIECES, MIB, PIECE_BYTES
from pyrdma.memory import ExtentPool, Region
from pyrdma.pull.engine import Progress, Pull, PullReport, PullSource
from pyrdma.pull.prove import copy_and_digest
from pyrdma.transport import SourceGrant
from pyrdma.transport.memory import MemoryNetwork, MemoryTransport

SHORT_BYTES = MIB + 256
PIECES = 6
SESSION = 77


@dataclass
class Bench:
    """An image in one region, an empty region beside it, threads; reused, since fresh memory is slow."""

    manifest: Manifest
    image: Region
    target: Region
    threads: ThreadPoolExecutor

    @property
    def nbytes(self) -> int:
        """The image's bytes."""
        return self.manifest.layout.total_bytes

    def wrong_bytes(self) -> bool:
        """Whether the target differs from the image."""
        return any(
            ctypes.string_at(self.image.address(offset, nbytes), nbytes)
            != ctypes.string_at(self.target.address(offset, nbytes), nbytes)
            for offset, nbytes in map(self.manifest.layout.piece_range, range(PIECES))
        )


@pytest.fixture(scope="module")
def shared_bench() -> Iterator[Bench]:
    """An image of five pieces and a short one, over two extents."""
    layout = lay_out([("body", "U8", ((PIECES - 1) * PIECE_BYTES,)), ("tail", "U8", (SHORT_BYTES,))])
    pool = ExtentPool(256 * MIB)
    image, target = pool.allocate(layout.total_bytes), pool.allocate(layout.total_bytes)
    content = random.Random(5)
    digests = []
    for piece in range(PIECES):
        offset, nbytes = layout.piece_range(piece)
        data = content.randbytes(nbytes)
        ctypes.memmove(image.address(offset, nbytes), data, nbytes)
        digests.append(blake3.blake3(data).digest())
    with ThreadPoolExecutor(2) as threads:
        yield Bench(Manifest(layout, tuple(digests)), image, target, threads)
    pool.release(image)
    pool.release(target)
    pool.close()


@pytest.fixture
def bench(shared_bench: Bench) -> Bench:
    """The shared bench with a target full of junk."""
    for offset, nbytes in map(shared_bench.manifest.layout.piece_range, range(PIECES)):
        ctypes.memset(shared_bench.target.address(offset, nbytes), 0xEE, nbytes)
    return shared_bench


class Source(MemoryTransport):
    """A source that counts what it was asked for."""

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        super().__init__(network, name.encode(), slots=1)
        self.asked: list[int] = []

    async def answer(self, session: int, offset: int, nbytes: int, into: int) -> None:
        """Send the piece."""
        self.asked.append(offset // PIECE_BYTES)
        await super().answer(session, offset, nbytes, into)


class Liar(Source):
    """Flips one bit of a share of its pieces."""

    share = 1.0
    seed = 1

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        super().__init__(network, name)
        self.lies = 0
        self._random = random.Random(self.seed)

    async def answer(self, session: int, offset: int, nbytes: int, into: int) -> None:
        """Send the piece, perhaps with one bit changed."""
        await super().answer(session, offset, nbytes, into)
        if self._random.random() < self.share:
            self.lies += 1
            at = into + self._random.randrange(nbytes)
            ctypes.memset(at, ctypes.string_at(at, 1)[0] ^ 1, 1)


class Refuser(Source):
    """Refuses everything."""

    async def answer(self, session: int, offset: int, nbytes: int, into: int) -> None:
        """Refuse."""
        raise SourceError("it does not know you.")


class Mortal(Source):
    """Dies after two pieces."""

    async def answer(self, session: int, offset: int, nbytes: int, into: int) -> None:
        """Send the piece, or be gone."""
        if len(self.asked) >= 2:
            raise SourceError("the source is gone.")
        await super().answer(session, offset, nbytes, into)


class Lazy(Source):
    """Sends each piece only when it is told to."""

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        super().__init__(network, name)
        self.go = asyncio.Event()

    async def answer(self, session: int, offset: int, nbytes: int, into: int) -> None:
        """Wait, then send."""
        await self.go.wait()
        await super().answer(session, offset, nbytes, into)


class Puller(MemoryTransport):
    """The puller's lane; letting go of a source ends the fetches that still wait for it, as UCX's does."""

    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__(network, b"puller", slots=6)
        self.waiting: dict[int, set[asyncio.Task[None]]] = {}
        self.fetched: list[int] = []
        self.begun = 0

    async def fetch(self, peer: int, grant: SourceGrant, offset: int, nbytes: int, slot: int) -> None:
        """Fetch, and be ended by ``disconnect``."""
        self.begun += 1
        task = asyncio.ensure_future(super().fetch(peer, grant, offset, nbytes, slot))
        self.waiting.setdefault(peer, set()).add(task)
        await asyncio.wait([task])
        if task.cancelled():
            raise SourceError("let go of.")
        task.result()
        self.fetched.append(offset // PIECE_BYTES)

    async def disconnect(self, peer: int) -> None:
        """End what waits."""
        await super().disconnect(peer)
        for task in self.waiting.pop(peer, ()):
            task.cancel()


@dataclass
class Outcome:
    """What a pull did, and what was there."""

    proven: set[int]
    report: PullReport | None = None
    error: Exception | None = None
    progress: list[Progress] = field(default_factory=list)
    lane: Puller | None = None
    sources: list[Source] = field(default_factory=list)


def pull(
    bench: Bench,
    *kinds: type[Source],
    proven: set[int] | None = None,
    meanwhile: Callable[[Outcome], object] | None = None,
) -> Outcome:
    """Run one pull from one source of each kind, named after it."""

    async def run() -> Outcome:
        network = MemoryNetwork()
        outcome = Outcome(set() if proven is None else proven, lane=Puller(network))
        assert outcome.lane is not None
        for number, kind in enumerate(kinds):
            source = kind(network, f"{kind.__name__}{number}")
            await source.serve(SESSION, b"puller", bench.image, bench.nbytes, on_end=lambda: None)
            outcome.sources.append(source)
        one = Pull(
            bench.manifest, bench.target, outcome.proven, transport=outcome.lane, threads=bench.threads
        )
        wanted = [
            PullSource(source.address.decode(), SourceGrant(SESSION, "memory", source.address))
            for source in outcome.sources
        ]

        def on_progress(progress: Progress) -> None:
            outcome.progress.append(progress)
            if meanwhile is not None:
                meanwhile(outcome)

        try:
            outcome.report = await asyncio.wait_for(one.run(wanted, on_progress), 60)
        except (NoSourceError, LaneError) as error:
            outcome.error = error
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in left if "_carry" in repr(task) or "_let_go" in repr(task)]
        return outcome

    return asyncio.run(run())


def test_an_honest_source_gives_the_whole_image(bench: Bench) -> None:
    """Every byte is right, each piece is fetched once, and the report adds up."""
    outcome = pull(bench, Source)
    assert not bench.wrong_bytes()
    assert sorted(outcome.sources[0].asked) == list(range(PIECES))
    assert outcome.proven == set(range(PIECES))
    assert outcome.report is not None
    assert outcome.report.bytes == bench.nbytes
    assert outcome.report.lane == "memory"
    assert outcome.report.verify_s > 0
    assert [(one.name, one.state) for one in outcome.report.sources] == [("Source0", "done")]
    done = [progress.done_bytes for progress in outcome.progress]
    assert done == sorted(done)
    assert done[-1] == bench.nbytes


def test_two_sources_share_the_work(bench: Bench) -> None:
    """Both are used, nothing is fetched twice, and their bytes sum up to the image."""
    outcome = pull(bench, Source, Source)
    assert not bench.wrong_bytes()
    asked = [piece for source in outcome.sources for piece in source.asked]
    assert sorted(asked) == list(range(PIECES))
    assert all(source.asked for source in outcome.sources)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("honest", [1, 2])
def test_a_liar_changes_no_byte(bench: Bench, share: float, honest: int) -> None:
    """Whatever share of its pieces is wrong, the image is right, and no more than three lies are taken."""
    liar = type("Liar", (Liar,), {"share": share, "seed": int(share * 100)})
    outcome = pull(bench, liar, *[Source] * honest)
    assert not bench.wrong_bytes()
    assert outcome.report is not None
    told = outcome.report.sources[0]
    lies = outcome.sources[0].lies
    assert told.state == ("dropped" if lies >= MAX_BAD_PIECES else "done")
    if lies >= MAX_BAD_PIECES:
        assert told.reason == "sent 3 pieces with a wrong digest"
    assert share < 1.0 or (lies >= MAX_BAD_PIECES and told.bytes == 0)


def test_only_liars_give_an_error_that_names_them(bench: Bench) -> None:
    """Nobody's word is enough: two liars, no proven piece, both named."""
    outcome = pull(bench, Liar, Liar)
    assert isinstance(outcome.error, NoSourceError)
    assert outcome.error.message == (
        "no source is left for 6 of 6 pieces: Liar0 sent 3 pieces with a wrong digest;"
        " Liar1 sent 3 pieces with a wrong digest."
    )
    assert outcome.proven == set()


def test_a_source_that_refuses_is_dropped_and_the_other_finishes(bench: Bench) -> None:
    """Refusals cost a source its place, not the pull."""
    outcome = pull(bench, Refuser, Source)
    assert not bench.wrong_bytes()
    assert outcome.report is not None
    assert [one.state for one in outcome.report.sources] == ["dropped", "done"]
    assert outcome.report.sources[0].reason == "it does not know you"


def test_a_source_that_dies_is_replaced_and_done_pieces_are_not_fetched_again(bench: Bench) -> None:
    """Each proven piece came once, whoever died meanwhile."""
    outcome = pull(bench, Mortal, Source)
    assert not bench.wrong_bytes()
    assert outcome.lane is not None
    assert sorted(outcome.lane.fetched) == list(range(PIECES))


def test_no_source_keeps_what_is_proven_and_the_next_pull_fetches_the_rest(bench: Bench) -> None:
    """After the only source died, a new one is asked for exactly the missing pieces."""
    first = pull(bench, Mortal)
    assert isinstance(first.error, NoSourceError)
    assert "no source is left for 4 of 6 pieces: Mortal0 the source is gone." in first.error.message
    assert "kept" in first.error.fix
    kept = set(first.proven)
    assert len(kept) == 2
    second = pull(bench, Source, proven=first.proven)
    assert not bench.wrong_bytes()
    assert sorted(second.sources[0].asked) == sorted(set(range(PIECES)) - kept)
    assert second.report is not None
    assert second.report.bytes == bench.nbytes - sum(
        bench.manifest.layout.piece_range(one)[1] for one in kept
    )
    assert second.progress[-1].done_bytes == bench.nbytes


def test_progress_of_a_resumed_pull_counts_real_bytes(bench: Bench) -> None:
    """A short last piece that was there before counts for what it has, not for a whole piece."""
    whole = pull(bench, Source)
    assert whole.report is not None
    resumed = pull(bench, Source, proven={PIECES - 1})
    assert min(one.done_bytes for one in resumed.progress) == SHORT_BYTES + PIECE_BYTES
    assert max(one.done_bytes for one in resumed.progress) == bench.nbytes


def test_a_whole_image_is_not_pulled_again(bench: Bench) -> None:
    """A pull of what is there asks nobody and reports nothing moved."""
    outcome = pull(bench, Source, proven=set(range(PIECES)))
    assert outcome.report is not None
    assert outcome.report.bytes == 0
    assert outcome.sources[0].asked == []


def test_without_sources_the_error_is_a_sentence(bench: Bench) -> None:
    """Nobody to ask is said at once."""
    outcome = pull(bench)
    assert str(outcome.error) == "no source is left for 6 of 6 pieces."


def test_a_late_copy_is_never_written_over_a_proven_piece(bench: Bench) -> None:
    """The copy of a piece that the lazy source sends after another source's was proven is thrown away.

    The lazy one lies, so that a copy that was taken would show.
    """

    class LazyLiar(Lazy):
        async def answer(self, session: int, offset: int, nbytes: int, into: int) -> None:
            await super().answer(session, offset, nbytes, into)
            ctypes.memset(into, 0xBD, nbytes)

    def all_but_one(outcome: Outcome) -> None:
        # Four pieces are in flight from the lazy one; it sends once one of them has come from elsewhere.
        if len(outcome.sources[1].asked) > PIECES - 4:
            outcome.sources[0].go.set()

    outcome = pull(bench, LazyLiar, Source, meanwhile=all_but_one)
    assert not bench.wrong_bytes()
    assert outcome.proven == set(range(PIECES))


def test_a_lane_that_breaks_ends_the_pull_and_keeps_what_is_proven(bench: Bench) -> None:
    """A LaneError comes out as it is; proven pieces stay and no task is left behind."""

    class Breaking(Source):
        async def answer(self, session: int, offset: int, nbytes: int, into: int) -> None:
            if len(self.asked) == 3:
                raise LaneError("the lane broke.")
            await super().answer(session, offset, nbytes, into)

    outcome = pull(bench, Breaking)
    assert isinstance(outcome.error, LaneError)
    assert outcome.proven <= set(range(PIECES))
    again = pull(bench, Source, proven=outcome.proven)
    assert again.report is not None
    assert not bench.wrong_bytes()


def test_a_cancelled_pull_leaves_nothing_behind_that_writes(bench: Bench) -> None:
    """When a pull that was cancelled has returned, no task of it is left and the region stays as it is."""

    async def scenario() -> None:
        network = MemoryNetwork()
        lane, sources = Puller(network), [Lazy(network, "a"), Lazy(network, "b")]
        for source in sources:
            await source.serve(SESSION, b"puller", bench.image, bench.nbytes, on_end=lambda: None)
        one = Pull(bench.manifest, bench.target, set(), transport=lane, threads=bench.threads)
        wanted = [
            PullSource(source.address.decode(), SourceGrant(SESSION, "memory", source.address))
            for source in sources
        ]
        running = asyncio.create_task(one.run(wanted, lambda _: None))
        for _ in range(10):
            await asyncio.sleep(0)
        assert lane.begun == PIECES
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert lane.begun == PIECES, "what ends with the pull is asked of nobody else"
        for source in sources:
            source.go.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert sources[0].asked == sources[1].asked == []

    asyncio.run(scenario())
    assert ctypes.string_at(bench.target.address(0, 16), 16) == b"\xee" * 16


def test_a_cancellation_that_comes_together_with_a_piece_is_not_lost(bench: Bench) -> None:
    """Whoever gives up in the turn in which a piece is proven gives up all the same."""

    class FirstOnly(Source):
        async def answer(self, session: int, offset: int, nbytes: int, into: int) -> None:
            if offset:
                await asyncio.Event().wait()
            await super().answer(session, offset, nbytes, into)

    async def scenario() -> None:
        network = MemoryNetwork()
        lane, source = Puller(network), FirstOnly(network, "a")
        await source.serve(SESSION, b"puller", bench.image, bench.nbytes, on_end=lambda: None)
        one = Pull(bench.manifest, bench.target, set(), transport=lane, threads=bench.threads)
        wanted = [PullSource("a", SourceGrant(SESSION, "memory", source.address))]
        running = asyncio.create_task(one.run(wanted, lambda _: running.cancel()))
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(running), 2)

    asyncio.run(scenario())


def test_a_slot_that_changes_while_it_is_read_proves_what_was_written(bench: Bench) -> None:
    """The digest is of the copy: a worker that rewrites its slot gets a wrong digest or a right image."""
    stop = threading.Event()
    slot = (ctypes.c_ubyte * PIECE_BYTES)()
    address = ctypes.addressof(slot)

    def rewrite() -> None:
        while not stop.is_set():
            for at in range(0, PIECE_BYTES, MIB):
                ctypes.memset(address + at, 1, MIB)
                ctypes.memset(address + at, 2, MIB)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(5):
            digest = copy_and_digest(address, bench.target.address(0, PIECE_BYTES), PIECE_BYTES)
            there = ctypes.string_at(bench.target.address(0, PIECE_BYTES), PIECE_BYTES)
            assert digest == blake3.blake3(there).digest()
    finally:
        stop.set()
        writer.join()
