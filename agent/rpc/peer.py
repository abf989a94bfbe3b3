"""Another agent that may hold images, as gRPC reaches it; what it sends is checked before it is used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from grpc import aio

from agent.errors import PeerNodeError, RequestError
from agent.limits import MANIFEST_CALL_S, MAX_NAME_CHARS, PEER_CALL_S
from agent.resolve import ModelRef, Offer
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import peer_error
from agent.rpc.pyrdma_pb2_grpc import NodeStub
from agent.rpc.server import OPTIONS
from agent.text import printable
from federation.limits import MAX_IMAGE_BYTES
from pyrdma.cache.client import SourceGrant
from pyrdma.errors import Error
from pyrdma.image.manifest import ImageId, Manifest
from pyrdma.limits import MAX_MANIFEST_BYTES


def check_peer_address(address: str) -> str:
    """Return the address.

    Raises:
        RequestError: it is none that this version can reach.
    """
    if not address.startswith("unix:/"):
        raise RequestError(
            f"the peer address {address!r} is no unix:PATH.",
            fix="name the other agent's node.sock, such as unix:/run/pyrdma-agent/node.sock; "
            "nodes of other machines join the site instead",
        )
    return address


class LenderClient:
    """What an agent lends, asked through a stub of the Node or of the Site service: both have these calls.

    Args:
        address: what errors and lists call it.
        stub: the stub to use now; a channel may have been replaced since the last call.
        name: whose name its image goes by, where the agent's own word does not count.
    """

    def __init__(self, address: str, stub: Callable[[], Any], name: str = "") -> None:
        self.address = address
        self._stub = stub
        self._name = name

    async def find(self, ref: ModelRef) -> Offer | None:
        """Return what it has in memory under the reference; an empty name asks by id alone.

        Raises:
            PeerNodeError: no answer, or one that breaks the protocol.
        """
        request = pb.FindImageRequest(name="" if ref.image_id else ref.name, image_id=ref.image_id or b"")
        try:
            answer = await self._stub().FindImage(request, timeout=PEER_CALL_S)
        except aio.AioRpcError as error:
            raise peer_error(error, self.address) from error
        if not answer.found:
            return None
        try:
            image_id = ImageId(answer.image_id)
        except Error as error:
            raise PeerNodeError(f"the peer {self.address} sent what is no image id.") from error
        if answer.total_bytes > MAX_IMAGE_BYTES:
            raise PeerNodeError(f"the peer {self.address} speaks of an image that is larger than any.")
        node = self._name or printable(answer.node, MAX_NAME_CHARS)
        return Offer(self.address, image_id, answer.total_bytes, node)

    async def manifest(self, image_id: ImageId) -> Manifest:
        """Return the image's manifest, checked by its id.

        Raises:
            PeerNodeError: no answer, or more than a manifest may have.
            ManifestError: other bytes than the id names.
        """
        data = bytearray()
        request = pb.GetManifestRequest(image_id=bytes(image_id))
        call = self._stub().GetManifest(request, timeout=MANIFEST_CALL_S)
        try:
            async for chunk in call:
                data += chunk.data
                if len(data) > MAX_MANIFEST_BYTES:
                    call.cancel()
                    raise PeerNodeError(f"the peer {self.address} sends a manifest without end.")
        except aio.AioRpcError as error:
            raise peer_error(error, self.address) from error
        return Manifest.decode(bytes(data), expect=image_id)

    @asynccontextmanager
    async def open_source(
        self, image_id: ImageId, lane_address: bytes, limit_s: float
    ) -> AsyncIterator[SourceGrant]:
        """Keep a source open at the peer while the context is.

        Raises:
            PeerNodeError: the peer refuses or cannot be reached.
        """
        request = pb.OpenSourceRequest(image_id=bytes(image_id), lane="ucx", address=lane_address)
        call = self._stub().OpenSource(request, timeout=limit_s)
        try:
            answer = await call.read()
        except aio.AioRpcError as error:
            raise peer_error(error, self.address) from error
        try:
            if not isinstance(answer, pb.OpenSourceResponse):
                raise PeerNodeError(f"the peer {self.address} opened no source.")
            yield SourceGrant(answer.session, printable(answer.lane, 16), answer.address)
        finally:
            call.cancel()


class PeerClient(LenderClient):
    """One static peer of this machine; keeps one connection, which gRPC opens again when it broke."""

    def __init__(self, address: str) -> None:
        # A long pause between dials would hide a peer that has just come up.
        options = (*OPTIONS, ("grpc.max_reconnect_backoff_ms", 1000), ("grpc.use_local_subchannel_pool", 1))
        self._channel = aio.insecure_channel(check_peer_address(address), options=options)
        stub = NodeStub(self._channel)  # type: ignore[no-untyped-call]
        super().__init__(address, lambda: stub)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._channel.close(None)

    async def describe(self) -> str:
        """Return the node's name. Raises PeerNodeError."""
        try:
            answer = await self._stub().Describe(pb.DescribeRequest(), timeout=PEER_CALL_S)
        except aio.AioRpcError as error:
            raise peer_error(error, self.address) from error
        return printable(answer.name, MAX_NAME_CHARS)
