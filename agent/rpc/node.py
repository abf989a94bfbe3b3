"""The Node service: what other nodes of the site may ask.

Every field comes from a peer and is checked here.
"""

# ruff: noqa: N802, ARG002 - the protocol file names the methods, gRPC their arguments

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from agent import __version__
from agent.daemon.parts import NodeFace
from agent.errors import RequestError
from agent.limits import LONG_CALL_S, MANIFEST_CALL_S, MANIFEST_CHUNK_BYTES, PEER_CALL_S
from agent.resolve import ModelRef, check_name
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import Context, answering
from agent.rpc.pyrdma_pb2_grpc import NodeServicer
from pyrdma.image.manifest import ImageId
from pyrdma.limits import MAX_LANE_ADDRESS_BYTES


class NodeService(NodeServicer):
    """Answers peers."""

    def __init__(self, node: NodeFace) -> None:
        self._node = node

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:
        """Return who this is."""
        async with answering(context, PEER_CALL_S):
            return pb.DescribeResponse(name=self._node.name, version=__version__)

    async def FindImage(self, request: pb.FindImageRequest, context: Context) -> pb.FindImageResponse:
        """Say whether the image asked for is whole in memory here."""
        async with answering(context, PEER_CALL_S):
            ref = ModelRef(check_name(request.name), None) if request.name else None
            image_id = ImageId(request.image_id) if request.image_id else None
            found = await self._node.find_image(ref, image_id)
            if found is None:
                return pb.FindImageResponse(found=False)
            image, size = found
            return pb.FindImageResponse(
                found=True, image_id=bytes(image), total_bytes=size, node=self._node.name
            )

    async def GetManifest(
        self, request: pb.GetManifestRequest, context: Context
    ) -> AsyncIterator[pb.ManifestChunk]:
        """Send a manifest in parts."""
        async with answering(context, MANIFEST_CALL_S):
            data = (await self._node.manifest_of(ImageId(request.image_id))).encode()
            for at in range(0, len(data), MANIFEST_CHUNK_BYTES):
                yield pb.ManifestChunk(data=data[at : at + MANIFEST_CHUNK_BYTES])

    async def OpenSource(
        self, request: pb.OpenSourceRequest, context: Context
    ) -> AsyncIterator[pb.OpenSourceResponse]:
        """Keep a source open until the peer ends the call, or its deadline does."""
        async with answering(context, LONG_CALL_S):
            if request.lane != "ucx":
                raise RequestError("this node lends over the lane ucx only.")
            if not 0 < len(request.address) <= MAX_LANE_ADDRESS_BYTES:
                raise RequestError("a lane's address has 1 to 16384 bytes.")
            lent = self._node.lend(ImageId(request.image_id), request.address)
            async with aclosing(lent) as grants:
                async for grant in grants:
                    yield pb.OpenSourceResponse(session=grant.session, lane=grant.lane, address=grant.address)
                    await asyncio.Event().wait()  # the end of the call cancels this
