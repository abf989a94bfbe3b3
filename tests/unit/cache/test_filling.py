"""Who pulls from a replica that a pull is filling: what they hear, in which messages, and how it ends."""

from __future__ import annotations

import asyncio
import ctypes
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import blake3
import pytest
from waiting import until

from pyrdma.cache.filling import Filling
from pyrdma.cache.replicas import Replica, Replicas
from pyrdma.errors import LaneError, LocalError, NoSourceError
from pyrdma.image import Manifest, lay_out
from pyrdma.limits import MAX_PIECES_PER_MESSAGE, MIB, PIECE_BYTES
from pyrdma.memory import ExtentPool, Region
from pyrdma.pull.engine import Pull, PullReport, PullSource
from pyrdma.transport import SourceGrant
from pyrdma.transport.memory import MemoryNetwork, MemoryTransport

PIECES = 6


class NotingLane(MemoryTransport):
    """A lane that notes the messages that it is given, and holds each back until it is told to go on."""

    def __init__(self) -> None:
        super().__init__(MemoryNetwork(), b"noting", slots=1)
        self.told: list[list[int]] = []
        self.withdrawn: list[int] = []
        self.go = asyncio.Event()
        self.go.set()
        self.serving = True
        self.broken = False

    async def allow(self, session: int, pieces: Sequence[int]) -> bool:
        """Note what is allowed."""
        self.told.append(list(pieces))
        await self.go.wait()
        if self.broken:
            raise LaneError("the lane broke.")
        return self.serving

    async def withdraw(self, session: int) -> None:
        """Note the end."""
        self.withdrawn.append(session)


async def turns() -> None:
    """Let everything happen that waits for nothing."""
    for _ in range(10):
        await asyncio.sleep(0)


def scenario(run: Callable[[], object]) -> None:
    """Run it on a loop of its own and see that it leaves no task behind."""

    async def whole() -> None:
        await run()  # type: ignore[misc]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())


def test_a_session_hears_of_each_piece_once_and_what_comes_together_travels_together() -> None:
    """First what was there before; then one message for all that was proven while the lane was busy."""

    async def run() -> None:
        lane, filling = NotingLane(), Filling({4, 2})
        filling.tell(lane, 7)
        await turns()
        assert sorted(lane.told.pop()) == [2, 4]
        lane.go.clear()
        filling.add(0)
        await turns()
        for piece in (1, 5, 3):
            filling.add(piece)
        await turns()
        assert lane.told == [[0]]
        lane.go.set()
        await turns()
        assert lane.told == [[0], [1, 5, 3]]
        await filling.end(whole=True)
        await turns()
        assert lane.withdrawn == []

    scenario(run)


def test_a_session_that_comes_late_hears_of_everything_in_messages_of_bounded_size() -> None:
    """Also after the pull has ended well: a whole image keeps its readers."""

    async def run() -> None:
        pieces = list(range(2 * MAX_PIECES_PER_MESSAGE + 1))
        lane, filling = NotingLane(), Filling(())
        for piece in pieces:
            filling.add(piece)
        await filling.end(whole=True)
        filling.tell(lane, 7)
        await turns()
        assert [len(one) for one in lane.told] == [MAX_PIECES_PER_MESSAGE, MAX_PIECES_PER_MESSAGE, 1]
        assert [piece for one in lane.told for piece in one] == pieces
        assert lane.withdrawn == []

    scenario(run)


def test_a_pull_that_fails_ends_every_session() -> None:
    """Those that wait for news, and one that comes too late; the end of the pull waits for theirs."""

    async def run() -> None:
        lane, filling = NotingLane(), Filling({1})
        filling.tell(lane, 7)
        filling.tell(lane, 8)
        await turns()
        await filling.end(whole=False)
        assert sorted(lane.withdrawn) == [7, 8]
        filling.tell(lane, 9)
        await turns()
        assert sorted(lane.withdrawn) == [7, 8, 9]
        assert lane.told == [[1], [1]]

    scenario(run)


@pytest.mark.parametrize("broken", [False, True])
def test_a_session_that_ended_or_a_lane_that_broke_is_told_nothing_more(broken: bool) -> None:
    """The others go on hearing."""

    async def run() -> None:
        lane, filling, other = NotingLane(), Filling({1}), NotingLane()
        lane.serving, lane.broken = False, broken
        filling.tell(lane, 7)
        filling.tell(other, 8)
        await turns()
        filling.add(2)
        await turns()
        assert lane.told == [[1]]
        assert other.told == [[1], [2]]
        await filling.end(whole=False)
        assert lane.withdrawn == []

    scenario(run)


def test_only_what_is_whole_or_on_its_way_may_be_pulled_from() -> None:
    """Pieces that nobody completes are given to nobody; attaching needs the whole in any case."""
    pool = ExtentPool(PIECE_BYTES, PIECE_BYTES)
    replicas = Replicas(pool)
    layout = lay_out([("a", "U8", (PIECE_BYTES,))])
    region = replicas.make_room(layout.total_bytes)
    one = replicas.add(Replica(Manifest(layout, (b"d" * 32,)), region, kept=False))
    image_id = one.manifest.image_id
    with pytest.raises(LocalError, match="not whole"):
        replicas.readable(image_id)
    one.filling = Filling(one.proven)
    assert replicas.readable(image_id) is one
    with pytest.raises(LocalError, match="not whole"):
        replicas.whole(image_id)
    one.filling = None
    one.proven.add(0)
    assert replicas.readable(image_id) is one


# --- chains over a transport inside this process


@pytest.fixture(scope="module")
def chain_memory() -> Iterator[tuple[Manifest, list[Region]]]:
    """An image in the first of three regions."""
    layout = lay_out([("body", "U8", ((PIECES - 1) * PIECE_BYTES,)), ("tail", "U8", (MIB,))])
    pool = ExtentPool(3 * 128 * MIB)
    regions = [pool.allocate(layout.total_bytes) for _ in range(3)]
    content = random.Random(11)
    digests = []
    for piece in range(PIECES):
        offset, nbytes = layout.piece_range(piece)
        data = content.randbytes(nbytes)
        ctypes.memmove(regions[0].address(offset, nbytes), data, nbytes)
        digests.append(blake3.blake3(data).digest())
    yield Manifest(layout, tuple(digests)), regions
    for region in regions:
        pool.release(region)
    pool.close()


class Watched(MemoryTransport):
    """A member of the chain that checks each answer: only proven bytes leave it."""

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        super().__init__(network, name.encode(), slots=4)
        self.proven: set[int] = set()
        self.sent: list[int] = []

    async def answer(self, session: int, offset: int, nbytes: int, into: int) -> None:
        """Answer; what was not refused is proven here."""
        await super().answer(session, offset, nbytes, into)
        assert offset // PIECE_BYTES in self.proven
        self.sent.append(offset // PIECE_BYTES)


class Chain:
    """A first source that lets pieces out when told, a node that pulls from it, and one that pulls there."""

    def __init__(self, manifest: Manifest, regions: list[Region], threads: ThreadPoolExecutor) -> None:
        network = MemoryNetwork()
        self.manifest, self.regions, self.threads = manifest, regions, threads
        self.first, self.middle, self.last = (Watched(network, name) for name in ("first", "middle", "last"))
        self.first.proven = set(range(PIECES))
        self.ended: list[int] = []
        self.filling = Filling(())

    async def start(self) -> tuple[asyncio.Task[PullReport], asyncio.Task[PullReport]]:
        """Begin both pulls."""
        nbytes = self.manifest.layout.total_bytes
        for lane, region, session in ((self.first, self.regions[0], 1), (self.middle, self.regions[1], 2)):
            await lane.serve(
                session, b"", region, nbytes, gated=True, on_end=lambda one=session: self.ended.append(one)
            )
        self.filling.tell(self.middle, 2)
        middle = asyncio.create_task(self._fill())
        return middle, asyncio.create_task(self._pull(self.last, 2, PullSource("middle", self._grant(2))))

    async def _fill(self) -> PullReport:
        try:
            return await self._pull(self.middle, 1, PullSource("first", self._grant(1)))
        finally:
            await self.filling.end(whole=len(self.middle.proven) == PIECES)

    def _grant(self, session: int) -> SourceGrant:
        return SourceGrant(session, "memory", (self.first, self.middle)[session - 1].address)

    async def _pull(self, lane: Watched, target: int, source: PullSource) -> PullReport:
        one = Pull(
            self.manifest,
            self.regions[target],
            lane.proven,
            transport=lane,
            threads=self.threads,
            on_proven=self.filling.add if lane is self.middle else lambda _: None,
        )
        return await one.run([source], lambda _: None)


def run_chain(
    chain_memory: tuple[Manifest, list[Region]], body: Callable[[Chain], object]
) -> tuple[Manifest, list[Region]]:
    """Run a chain over spoiled regions."""
    manifest, regions = chain_memory
    for region in regions[1:]:
        ctypes.memset(region.address(0, PIECE_BYTES), 0xEE, PIECE_BYTES)
    with ThreadPoolExecutor(2) as threads:
        asyncio.run(body(Chain(manifest, regions, threads)))  # type: ignore[arg-type]
    return chain_memory


def test_a_piece_goes_down_the_chain_as_soon_as_it_is_proven(
    chain_memory: tuple[Manifest, list[Region]],
) -> None:
    """Piece by piece the last one has what the middle has; each link carries each piece once."""

    async def body(chain: Chain) -> None:
        middle, last = await chain.start()
        for piece in range(PIECES):
            assert piece not in chain.last.proven
            await chain.first.allow(1, [piece])
            await until(lambda piece=piece: piece in chain.last.proven)  # type: ignore[misc]
            assert chain.last.proven == set(range(piece + 1))
        assert (await middle).bytes == (await last).bytes == chain.manifest.layout.total_bytes
        assert sorted(chain.first.sent) == sorted(chain.middle.sent) == list(range(PIECES))
        assert chain.ended == []

    manifest, regions = run_chain(chain_memory, body)
    for piece in range(PIECES):
        offset, nbytes = manifest.layout.piece_range(piece)
        read = [ctypes.string_at(region.address(offset, nbytes), nbytes) for region in regions]
        assert read[0] == read[1] == read[2]


def test_when_the_middle_fails_the_last_one_keeps_what_it_has(
    chain_memory: tuple[Manifest, list[Region]],
) -> None:
    """The first source ends after two pieces: both pulls end with a sentence, both keep two pieces."""

    async def body(chain: Chain) -> None:
        middle, last = await chain.start()
        await chain.first.allow(1, [0, 1])
        await until(lambda: chain.last.proven == {0, 1})
        await chain.first.withdraw(1)
        for pull in (middle, last):
            with pytest.raises(NoSourceError, match="4 of 6 pieces"):
                await asyncio.wait_for(pull, 5)
        assert chain.ended == [1, 2]
        assert chain.last.proven == chain.middle.proven == {0, 1}

    run_chain(chain_memory, body)
