"""The calls that the Node and the Site service have in common: what is lent, and leases that are granted.

Every field comes from another agent and is checked here; who calls is known by ``agent.rpc.identity``.
"""

# ruff: noqa: N802, ARG002 - the protocol file names the methods, gRPC their arguments

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from agent.daemon.faces import LeaseCallsFace, LeaseNotice
from agent.daemon.parts import NodeFace
from agent.daemon.pipes import carry
from agent.errors import RequestError
from agent.limits import (
    LONG_CALL_S,
    MANIFEST_CALL_S,
    MANIFEST_CHUNK_BYTES,
    MAX_REASON_BYTES,
    PEER_CALL_S,
    RELAY_CALL_S,
    STOP_CALL_S,
)
from agent.resolve import ModelRef, check_name
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.convert_site import check_id
from agent.rpc.errors import Context, answering
from agent.rpc.identity import caller
from agent.rpc.relaying import AnsweredPipe, begin, first_of
from agent.rpc.streams import stream_of
from agent.text import printable
from pyrdma.errors import ChannelError
from pyrdma.image.manifest import ImageId
from pyrdma.limits import MAX_LANE_ADDRESS_BYTES


class LendingCalls:
    """Which images there are, their manifests, and sources to pull them from."""

    _lends: NodeFace

    async def FindImage(self, request: pb.FindImageRequest, context: Context) -> pb.FindImageResponse:
        """Say whether the image asked for can be pulled from here."""
        async with answering(context, PEER_CALL_S):
            ref = ModelRef(check_name(request.name), None) if request.name else None
            image_id = ImageId(request.image_id) if request.image_id else None
            found = await self._lends.find_image(ref, image_id)
            if found is None:
                return pb.FindImageResponse(found=False)
            image, size = found
            return pb.FindImageResponse(
                found=True, image_id=bytes(image), total_bytes=size, node=self._lends.name
            )

    async def GetManifest(
        self, request: pb.GetManifestRequest, context: Context
    ) -> AsyncIterator[pb.ManifestChunk]:
        """Send a manifest in parts."""
        async with answering(context, MANIFEST_CALL_S):
            data = (await self._lends.manifest_of(ImageId(request.image_id))).encode()
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
            lent = self._lends.lend(ImageId(request.image_id), request.address)
            async with aclosing(lent) as grants:
                async for grant in grants:
                    yield pb.OpenSourceResponse(session=grant.session, lane=grant.lane, address=grant.address)
                    await asyncio.Event().wait()  # the end of the call cancels this


class LeaseCalls:
    """A granted lease: renewed, ended, watched, spoken to. Only its own side may."""

    _leases: LeaseCallsFace

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Context) -> pb.RenewLeaseResponse:
        """Renew a lease."""
        async with answering(context, PEER_CALL_S):
            ttl_s = await self._leases.renew(check_id(request.lease_id), caller())
            return pb.RenewLeaseResponse(ttl_s=ttl_s)

    async def ReleaseLease(
        self, request: pb.ReleaseLeaseRequest, context: Context
    ) -> pb.ReleaseLeaseResponse:
        """End a lease."""
        async with answering(context, STOP_CALL_S):
            reason = printable(request.reason, MAX_REASON_BYTES)
            ended = await self._leases.release(check_id(request.lease_id), reason, caller())
            return pb.ReleaseLeaseResponse(reason=ended)

    async def AttendLease(
        self, request: pb.AttendLeaseRequest, context: Context
    ) -> AsyncIterator[pb.LeaseNews]:
        """Tell when a lease will end, when it ends, and why."""
        async with answering(context, LONG_CALL_S):
            lease_id, who = check_id(request.lease_id), caller()

            async def work(emit: Callable[[pb.LeaseNews], None]) -> pb.LeaseNews:
                def heed(notice: LeaseNotice | None) -> None:
                    if notice is None:
                        emit(pb.LeaseNews(withdrawn=True))
                    else:
                        emit(pb.LeaseNews(notice=True, reason=notice.reason, left_s=notice.left_s))

                return pb.LeaseNews(ended=True, reason=await self._leases.attend(lease_id, who, heed))

            async with aclosing(stream_of(work)) as news:
                async for one in news:
                    yield one

    async def Relay(self, request_iterator: object, context: Context) -> None:
        """Carry one connection to a lease's runner."""
        async with answering(context, PEER_CALL_S):  # who asks for nothing must not keep a call for a day
            first = await first_of(context)
            await begin(context)
            pipe = await self._leases.connect(check_id(first.lease_id), caller())
        async with answering(context, RELAY_CALL_S):
            try:
                await carry(AnsweredPipe(context), pipe)
            except OSError as error:
                raise ChannelError("the connection to the runner broke.") from error
