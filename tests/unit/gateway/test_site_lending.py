"""How images come into a gateway's memory for others, and what a site lends; its node is in memory here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import blake3
import pytest
from waiting import until

from agent.daemon.reports import ReportedImage
from agent.daemon.supply import Found, Supplied
from agent.errors import BusyError, RequestError, UnknownModelError
from agent.gateway.forwarding import Forwarding, SiteLending
from agent.local.views import NoteView, ProgressView
from agent.resolve import ModelRef
from pyrdma.cache.client import SourceGrant
from pyrdma.errors import BudgetError
from pyrdma.image import ImageId, Manifest, lay_out

pytestmark = pytest.mark.asyncio

LAYOUT = lay_out([("w", "U8", (256,))])
MANIFEST = Manifest(layout=LAYOUT, digests=(blake3.blake3(bytes(LAYOUT.total_bytes)).digest(),))
IMAGE = MANIFEST.image_id
OTHER = ImageId(b"\x09" * 32)
Emit = Callable[[NoteView | ProgressView], None]


class GatewayNode:
    """The gateway's own donation: memory into which images come as the test says."""

    def __init__(self) -> None:
        self.names: dict[str, ImageId] = {}
        self.known: set[ImageId] = set()
        self.whole: set[ImageId] = set()
        self.pulling: set[ImageId] = set()
        self.provided: list[tuple[str, str]] = []
        self.emit: Emit | None = None
        self.done = asyncio.Event()
        self.fault: Exception | None = None
        self.called_off = 0
        self.lent = 0
        self.folders: list[str] = []
        self.catalogue = self.supply = self.lending = self

    async def bound(self, ref: ModelRef) -> ImageId | None:
        return self.names.get(ref.name)

    async def in_memory(self, image_id: ImageId) -> bool:
        return image_id in self.whole

    async def can_be_pulled(self, image_id: ImageId) -> bool:
        await asyncio.sleep(0)
        return image_id in self.whole | self.pulling

    async def known_manifest(self, image_id: ImageId) -> Manifest | None:
        return MANIFEST if image_id in self.known else None

    async def folders_of(self, image_id: ImageId) -> list[str]:
        return self.folders

    async def manifest_of(self, image_id: ImageId) -> Manifest:
        if image_id not in self.known:
            raise UnknownModelError("this node does not know it.")
        return MANIFEST

    async def provide(self, name: str, found: Found, emit: Emit, *, remember_as: str = "") -> Supplied:
        self.provided.append((name, remember_as))
        self.emit = emit
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self.called_off += 1
            raise
        if self.fault is not None:
            raise self.fault
        self.known.add(found.image_id)
        self.whole.add(found.image_id)
        return Supplied("tcp")

    async def lend(
        self, image_id: ImageId, peer_address: bytes, *, metered: bool
    ) -> AsyncGenerator[SourceGrant, None]:
        assert metered, "what another site gets counts as sent to it"
        self.lent += 1
        try:
            yield SourceGrant(1, "tcp", peer_address)
        finally:
            self.lent -= 1


class Bench:
    """One gateway."""

    def __init__(self, *, donates: bool = True) -> None:
        self.node = GatewayNode()
        host: Any = self.node if donates else None
        self.reported: dict[str, tuple[ReportedImage, ...]] = {}
        self.forwarding = Forwarding(host)
        self.full = False
        self.lending = SiteLending("uni-a", host, self.forwarding, lambda: self.reported, self.admit)

    async def admit(self, total_bytes: int) -> None:
        assert total_bytes == LAYOUT.total_bytes
        if self.full:
            raise BusyError("the quota is used.")

    def bring(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.forwarding.on_its_way(IMAGE, "m"))

    def step(self) -> None:
        """A piece has come."""
        assert self.node.emit is not None
        self.node.emit(ProgressView(1, 2, "tcp"))

    async def close(self) -> None:
        await self.forwarding.close()
        assert [one for one in asyncio.all_tasks() if one is not asyncio.current_task()] == []


async def test_what_is_there_needs_no_bringing() -> None:
    """Be it whole or on its way by another start."""
    bench = Bench()
    for place in (bench.node.whole, bench.node.pulling):
        place.add(IMAGE)
        await bench.bring()
        place.clear()
    assert bench.node.provided == []
    await bench.close()


async def test_several_wait_for_one_bringing_and_go_on_with_its_first_piece() -> None:
    """The rest comes in the background; the name that the image gets here is nobody else's."""
    bench = Bench()
    waiting = [bench.bring() for _ in range(3)]
    await until(lambda: bench.node.emit)
    bench.step()
    for _ in range(20):
        await asyncio.sleep(0)  # whatever could go on has gone on
    assert not any(one.done() for one in waiting), "it is read from a disk: nothing can be forwarded yet"
    bench.node.pulling.add(IMAGE)
    bench.step()
    await asyncio.gather(*waiting)
    assert bench.node.provided == [("m", f"image-{IMAGE.short()}")]
    bench.node.done.set()
    await until(lambda: IMAGE in bench.node.whole)
    await bench.close()


async def test_what_comes_without_a_step_is_there_when_it_is_whole() -> None:
    """A folder of this very node may be read without a word."""
    bench = Bench()
    waiting = bench.bring()
    await until(lambda: bench.node.emit)
    bench.node.done.set()
    await waiting
    await bench.close()


async def test_a_failure_is_told_to_whoever_waits() -> None:
    """And to nobody once the first piece was there; the next one tries again."""
    bench = Bench()
    bench.node.fault = BudgetError("there is no room.")
    waiting = [bench.bring() for _ in range(2)]
    await until(lambda: bench.node.emit)
    bench.node.done.set()
    for one in waiting:
        with pytest.raises(BudgetError, match="no room"):
            await one
    bench.node.done.clear()
    bench.node.pulling.clear()
    again = bench.bring()
    await until(lambda: len(bench.node.provided) == 2)
    bench.node.pulling.add(IMAGE)
    bench.step()
    await again
    bench.node.done.set()
    await bench.close()


async def test_what_nobody_waits_for_any_more_is_called_off() -> None:
    """Not while another one waits for it, and not once it can be forwarded."""
    bench = Bench()
    first, second = bench.bring(), bench.bring()
    await until(lambda: bench.node.emit)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert bench.node.called_off == 0
    second.cancel()
    third = bench.bring()
    await asyncio.gather(second, return_exceptions=True)
    await until(lambda: bench.node.called_off == 1 or bench.node.pulling)
    await until(lambda: len(bench.node.provided) == 2)
    bench.node.pulling.add(IMAGE)
    bench.step()
    await third
    await asyncio.sleep(0)
    assert bench.node.called_off == 1
    await bench.close()
    assert bench.node.called_off == 2, "a gateway that closes brings nothing more"


async def test_a_gateway_without_memory_cannot_forward() -> None:
    """It says so, and holds nothing that could be asked for."""
    bench = Bench(donates=False)
    with pytest.raises(RequestError, match="donates no memory"):
        await bench.bring()
    bench.reported["a1"] = (ReportedImage(IMAGE, 256, True, ("m",)),)
    with pytest.raises(UnknownModelError):
        await bench.lending.manifest_of(IMAGE)
    with pytest.raises(UnknownModelError):
        await anext(bench.lending.lend(IMAGE, b""))
    await bench.close()


async def test_a_site_offers_what_its_gateway_or_a_node_holds_whole() -> None:
    """By name or by id, published ones too; what is on its way here it does not offer to other sites."""
    bench = Bench()
    node, find = bench.node, bench.lending.find_image
    node.names["m"], node.known = IMAGE, {IMAGE}
    node.pulling.add(IMAGE)
    assert await find(ModelRef("m", None), None) is None
    node.folders = ["/m"]
    assert await find(ModelRef("m", None), None) == (IMAGE, 256)
    node.folders = []
    node.whole.add(IMAGE)
    assert await find(ModelRef("m", None), None) == (IMAGE, 256)
    assert await find(None, IMAGE) == (IMAGE, 256)
    assert await find(ModelRef("m", None), OTHER) is None
    bench.reported["a1"] = (
        ReportedImage(OTHER, 20, True, ("n",)),
        ReportedImage(ImageId(b"\x0a" * 32), 30, False, ("half",)),
    )
    assert await find(ModelRef("n", None), None) == (OTHER, 20)
    assert await find(ModelRef("n", None), OTHER) == (OTHER, 20)
    assert await find(None, OTHER) == (OTHER, 20)
    assert await find(ModelRef("half", None), None) is None
    assert await find(ModelRef("n", None), IMAGE) is None
    assert await find(None, None) is None, "who asks for nothing gets nothing"
    await bench.close()


async def test_what_a_node_holds_is_lent_through_the_gateway() -> None:
    """It is brought here first, piece by piece; what nobody of the site holds is not even looked for."""
    bench = Bench()
    with pytest.raises(UnknownModelError, match="does not hold"):
        await bench.lending.manifest_of(IMAGE)
    assert bench.node.provided == []
    bench.reported["a1"] = (ReportedImage(IMAGE, 256, True, ("m",)),)
    lent = bench.lending.lend(IMAGE, b"there")
    lending = asyncio.create_task(anext(lent))  # type: ignore[arg-type]
    await until(lambda: bench.node.emit)
    bench.node.pulling.add(IMAGE)
    bench.node.known.add(IMAGE)
    bench.step()
    assert await lending == SourceGrant(1, "tcp", b"there")
    assert bench.node.lent == 1
    await lent.aclose()
    assert bench.node.lent == 0, "the source is closed with the call, not some time later"
    assert await bench.lending.manifest_of(IMAGE) == MANIFEST
    await bench.close()


async def test_a_site_that_has_sent_enough_opens_no_source_and_brings_nothing_here() -> None:
    """The quota is looked at first: nothing is pulled from a node for a peer that gets nothing."""
    bench = Bench()
    bench.reported = {"n2": (ReportedImage(IMAGE, LAYOUT.total_bytes, True, ("m",)),)}
    bench.full = True
    with pytest.raises(BusyError):
        await anext(bench.lending.lend(IMAGE, b"peer"))
    assert (bench.node.provided, bench.node.lent) == ([], 0)
    await bench.close()
