"""The Node service and its client over a real socket, with holders that behave and holders that do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from grpc import aio

from agent.errors import PeerNodeError, UnknownModelError
from agent.resolve import ModelRef
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import peer_error
from agent.rpc.node import LendingService
from agent.rpc.peer import PeerClient
from agent.rpc.pyrdma_pb2_grpc import NodeServicer, NodeStub, add_NodeServicer_to_server
from agent.rpc.server import bind, make_server
from pyrdma.cache.client import SourceGrant
from pyrdma.errors import ManifestError
from pyrdma.image import ImageId, Layout, Manifest, TensorSpan
from pyrdma.limits import MAX_MANIFEST_BYTES, PIECE_BYTES

LAYOUT = Layout((TensorSpan("w", "U8", (256,), 0, 256),), (), 256, PIECE_BYTES)
MANIFEST = Manifest(LAYOUT, (blake3(b"x").digest(),))
OTHER = ImageId(b"\x05" * 32)


class Holder:
    """A node that has one image."""

    name = "holder"

    def __init__(self) -> None:
        self.open = 0
        self.changed = asyncio.Event()

    async def find_image(self, ref: ModelRef | None, image_id: ImageId | None) -> tuple[ImageId, int] | None:
        known = (ref is None or ref.name == "m") and image_id in (None, MANIFEST.image_id)
        return (MANIFEST.image_id, 256) if known else None

    async def manifest_of(self, image_id: ImageId) -> Manifest:
        if image_id not in (MANIFEST.image_id, OTHER):
            raise UnknownModelError("this node does not know the image.", fix="ask another")
        return MANIFEST

    async def lend(self, image_id: ImageId, peer_address: bytes) -> AsyncGenerator[SourceGrant, None]:
        self.open += 1
        try:
            yield SourceGrant((1 << 64) - 1, "tcp", peer_address[::-1])
        finally:
            self.open -= 1
            self.changed.set()


class Endless(NodeServicer):
    """A holder whose manifest never ends."""

    sent = 0

    async def GetManifest(self, request: Any, context: Any) -> AsyncGenerator[pb.ManifestChunk, None]:
        while True:
            self.sent += 1 << 20
            yield pb.ManifestChunk(data=bytes(1 << 20))


def with_holder(
    path: Path, servicer: Callable[[], NodeServicer], work: Callable[[PeerClient], Awaitable[None]]
) -> None:
    """Serve on a socket and talk to it."""

    async def run() -> None:
        server = make_server()
        add_NodeServicer_to_server(servicer(), server)  # type: ignore[no-untyped-call]
        bind(server, path / "node.sock", 0o600)
        await server.start()
        peer = PeerClient(f"unix:{path / 'node.sock'}")
        try:
            async with asyncio.timeout(60):
                await work(peer)
        finally:
            await peer.close()
            await server.stop(None)

    asyncio.run(run())


def test_a_peer_is_found_by_name_and_by_image(tmp_path: Path) -> None:
    """And what it does not have, it says so without an error."""

    async def work(peer: PeerClient) -> None:
        assert await peer.describe() == "holder"
        offer = await peer.find(ModelRef("m", None))
        assert offer is not None
        assert (offer.image_id, offer.total_bytes, offer.node) == (MANIFEST.image_id, 256, "holder")
        assert await peer.find(ModelRef("", MANIFEST.image_id)) == offer
        assert await peer.find(ModelRef("n", None)) is None
        assert await peer.find(ModelRef("m", OTHER)) is None

    with_holder(tmp_path, lambda: LendingService(Holder()), work)


def test_a_manifest_is_believed_only_by_its_id(tmp_path: Path) -> None:
    """A peer that answers with another image's manifest is refused."""

    async def work(peer: PeerClient) -> None:
        assert await peer.manifest(MANIFEST.image_id) == MANIFEST
        with pytest.raises(ManifestError):
            await peer.manifest(OTHER)

    with_holder(tmp_path, lambda: LendingService(Holder()), work)


def test_a_manifest_without_end_is_cut(tmp_path: Path) -> None:
    """At the limit of a manifest, not at the end of our memory."""

    async def work(peer: PeerClient) -> None:
        with pytest.raises(PeerNodeError, match="without end"):
            await peer.manifest(MANIFEST.image_id)

    endless = Endless()
    with_holder(tmp_path, lambda: endless, work)
    assert endless.sent < 2 * MAX_MANIFEST_BYTES


def test_a_source_is_open_exactly_as_long_as_the_puller_holds_it(tmp_path: Path) -> None:
    """Leaving the context ends it at the holder, without a word: so a puller that dies ends it too."""
    holder = Holder()

    async def work(peer: PeerClient) -> None:
        async with peer.open_source(MANIFEST.image_id, b"abc", 600.0) as grant:
            assert grant == SourceGrant((1 << 64) - 1, "tcp", b"cba")
            assert holder.open == 1
        await holder.changed.wait()
        assert holder.open == 0

    with_holder(tmp_path, lambda: LendingService(holder), work)


def test_a_source_ends_at_its_deadline(tmp_path: Path) -> None:
    """A puller that hangs does not hold memory for ever."""
    holder = Holder()

    async def work(peer: PeerClient) -> None:
        async with peer.open_source(MANIFEST.image_id, b"abc", 0.3):
            await holder.changed.wait()

    with_holder(tmp_path, lambda: LendingService(holder), work)


def test_a_peers_refusal_is_the_peers_with_its_sentence(tmp_path: Path) -> None:
    """Its error does not pass for one of this node, and its fix arrives."""

    async def work(peer: PeerClient) -> None:
        with pytest.raises(PeerNodeError, match="refused: this node does not know the image") as caught:
            await peer.manifest(ImageId(b"\x09" * 32))
        assert caught.value.fix == "ask another"

    with_holder(tmp_path, lambda: LendingService(Holder()), work)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("FindImage", pb.FindImageRequest(image_id=b"short")),
        ("FindImage", pb.FindImageRequest(name="../m")),
        ("GetManifest", pb.GetManifestRequest()),
        ("OpenSource", pb.OpenSourceRequest(image_id=b"\x01" * 32, lane="rdma", address=b"a")),
        ("OpenSource", pb.OpenSourceRequest(image_id=b"\x01" * 32, lane="ucx")),
        ("OpenSource", pb.OpenSourceRequest(image_id=b"\x01" * 32, lane="ucx", address=bytes(20_000))),
    ],
)
def test_a_malformed_request_of_a_peer_is_refused(tmp_path: Path, method: str, request_: Any) -> None:
    """Each field is checked; the answer is a sentence, and the service goes on."""

    async def work(peer: PeerClient) -> None:
        async with aio.insecure_channel(peer.address) as channel:
            call = getattr(NodeStub(channel), method)(request_, timeout=10)  # type: ignore[no-untyped-call]
            with pytest.raises(aio.AioRpcError) as caught:
                await (call.read() if hasattr(call, "read") else call)
            assert caught.value.code().name == "INVALID_ARGUMENT"
            assert "refused: " in peer_error(caught.value, "p").message
        assert await peer.describe() == "holder"

    with_holder(tmp_path, lambda: LendingService(Holder()), work)


def test_a_peer_that_is_not_there_is_said(tmp_path: Path) -> None:
    """Not a hang, not a traceback."""

    async def run() -> None:
        peer = PeerClient(f"unix:{tmp_path / 'none.sock'}")
        try:
            with pytest.raises(PeerNodeError, match="is not reachable"):
                await peer.describe()
        finally:
            await peer.close()

    asyncio.run(run())
