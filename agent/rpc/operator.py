"""The Operator service: people and tools of this node.

One instance per socket. On the view socket nothing changes; on the user socket each person acts for itself,
known by a pass of the door; on the admin socket the agent's own user does everything.
"""

# ruff: noqa: N802, ARG002 - the protocol file names the methods, gRPC their arguments

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from enum import Enum
from functools import partial
from pathlib import Path
from time import monotonic

from agent.daemon.node import Node
from agent.errors import NotAllowedError
from agent.limits import LONG_CALL_S, PEER_CALL_S, REFRESH_CALL_S, SHORT_CALL_S, STOP_CALL_S
from agent.local.views import PublishEvent, RunEvent
from agent.people.model import Who
from agent.people.passes import Passes
from agent.rpc import convert, convert_federation, convert_people, convert_queue
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.convert_people import accounts_from
from agent.rpc.errors import Context, answering
from agent.rpc.node import wish_from
from agent.rpc.operator_devices import DeviceCalls
from agent.rpc.passes import shown_pass
from agent.rpc.pyrdma_pb2_grpc import OperatorServicer
from agent.rpc.streams import Work, stream_of


class Access(Enum):
    """What a socket is for."""

    VIEW = "view"
    """Nothing changes."""
    USER = "user"
    """Each person acts for itself."""
    ADMIN = "admin"
    """Everything, for the agent's own user."""


class Operator(DeviceCalls, OperatorServicer):
    """Answers the calls of one socket.

    Args:
        node: what answers.
        access: what the socket is for.
        passes: those that the door has given.
    """

    def __init__(self, node: Node, access: Access, passes: Passes) -> None:
        self._node = node
        self._access = access
        self._passes = passes

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        """Return the node at a glance."""
        async with answering(context, SHORT_CALL_S):
            return convert.status_to(await self._node.status())

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """Return the models known here."""
        async with answering(context, SHORT_CALL_S):
            return pb.ListModelsResponse(models=map(convert.model_to, await self._node.models()))

    async def ListLeases(self, request: pb.ListLeasesRequest, context: Context) -> pb.ListLeasesResponse:
        """Return leases, newest first."""
        async with answering(context, SHORT_CALL_S):
            leases = await self._node.leases(include_ended=request.include_ended)
            return pb.ListLeasesResponse(leases=map(convert.lease_to, leases))

    async def ListTransfers(
        self, request: pb.ListTransfersRequest, context: Context
    ) -> pb.ListTransfersResponse:
        """Return transfers, running ones first."""
        async with answering(context, SHORT_CALL_S):
            return pb.ListTransfersResponse(transfers=map(convert.transfer_to, self._node.transfers()))

    async def GetFederation(self, request: pb.GetFederationRequest, context: Context) -> pb.Federation:
        """Return this node's place in its site, and its site's in the consortium."""
        async with answering(context, SHORT_CALL_S):
            return convert_federation.federation_to(await self._node.federation())

    async def GetQueue(self, request: pb.GetQueueRequest, context: Context) -> pb.QueueState:
        """Return what waits at this node's site, and what the site publishes."""
        async with answering(context, SHORT_CALL_S):
            return convert_queue.queue_to(await self._node.queue())

    async def RefreshRegistry(self, request: pb.RefreshRegistryRequest, context: Context) -> pb.Federation:
        """Read the registry now."""
        async with answering(context, REFRESH_CALL_S):
            self._refuse_viewers()
            return convert_federation.federation_to(await self._node.refresh())

    async def CreateInvite(
        self, request: pb.CreateInviteRequest, context: Context
    ) -> pb.CreateInviteResponse:
        """Make an invite."""
        async with answering(context, SHORT_CALL_S):
            self._refuse_viewers()
            made = await self._node.create_invite(request.node, request.lifetime_s, request.cidr)
            return pb.CreateInviteResponse(invite=made.text, expires_at=made.expires_at)

    async def LeaveSite(self, request: pb.LeaveSiteRequest, context: Context) -> pb.LeaveSiteResponse:
        """Let this node, or at the gateway another one, leave the site."""
        async with answering(context, STOP_CALL_S):
            self._refuse_viewers()
            return pb.LeaveSiteResponse(sentence=await self._node.leave(request.node))

    async def Publish(self, request: pb.PublishRequest, context: Context) -> AsyncIterator[pb.PublishEvent]:
        """Publish a folder and say how far it is."""
        async with answering(context, LONG_CALL_S):
            self._refuse_viewers()
            work: Work[PublishEvent] = partial(
                self._node.publish, Path(request.folder), request.name, licence=request.licence
            )
            async with aclosing(stream_of(work)) as events:
                async for event in events:
                    yield convert.publish_event_to(event)

    async def Run(self, request: pb.RunRequest, context: Context) -> AsyncIterator[pb.RunEvent]:
        """Start a model and say how far it is."""
        async with answering(context, LONG_CALL_S):
            who, wish = self._who(context), wish_from(request)
            work: Work[RunEvent] = lambda emit: self._node.run(wish, who, emit)  # noqa: E731
            async with aclosing(stream_of(work)) as events:
                async for event in events:
                    yield convert.run_event_to(event)

    async def StopLease(self, request: pb.StopLeaseRequest, context: Context) -> pb.StopLeaseResponse:
        """End a lease."""
        async with answering(context, STOP_CALL_S):
            ended = await self._node.stop(request.lease_id, self._who(context))
            return pb.StopLeaseResponse(lease=convert.lease_to(ended))

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        """Return who calls."""
        async with answering(context, PEER_CALL_S + SHORT_CALL_S):
            return convert_people.whoami_to(await self._node.desk.whoami(self._who(context)))

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        """Return what the caller's accounts have used."""
        async with answering(context, PEER_CALL_S + SHORT_CALL_S):
            accounts = accounts_from(request)
            return convert_people.usage_to(await self._node.desk.usage(self._who(context), accounts))

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenResponse:
        """Make a token for a laptop."""
        async with answering(context, SHORT_CALL_S):
            self._refuse_viewers()
            made = await self._node.desk.create_token(request.name, request.account, request.lifetime_s)
            return pb.CreateTokenResponse(token=made.text, expires_at=made.expires_at)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        """Return the tokens that may be used."""
        async with answering(context, SHORT_CALL_S):
            self._refuse_viewers()
            return convert_people.tokens_to(await self._node.desk.tokens())

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.ListTokensResponse:
        """End a token."""
        async with answering(context, SHORT_CALL_S):
            self._refuse_viewers()
            return convert_people.tokens_to(await self._node.desk.revoke_token(request.name))

    def _who(self, context: Context) -> Who:
        match self._access:
            case Access.ADMIN:
                return self._node.desk.owner
            case Access.USER:
                return self._passes.who(shown_pass(context), monotonic())
            case Access.VIEW:
                raise self._refusal()

    def _refuse_viewers(self) -> None:
        if self._access is not Access.ADMIN:
            raise self._refusal()

    def _refusal(self) -> NotAllowedError:
        does_not = "change anything" if self._access is Access.VIEW else "do this"
        return NotAllowedError(
            f"the {self._access.value} socket does not {does_not}.",
            fix="use admin.sock, as the agent's own user",
        )
