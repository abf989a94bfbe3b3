"""The Node service: what other nodes of the site may ask.

Over the network each call has proven a node of this site. Over ``node.sock`` nobody has proven anything:
there only what is lent can be asked.
"""

# ruff: noqa: N802, ARG002 - the protocol file names the methods, gRPC their arguments

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from agent import __version__
from agent.daemon.faces import MemberFace, Wish
from agent.daemon.parts import NodeFace
from agent.limits import (
    LONG_CALL_S,
    MAX_DURATION_S,
    MAX_NAME_CHARS,
    MAX_REASON_BYTES,
    PEER_CALL_S,
    REPORT_CALL_S,
    STOP_CALL_S,
)
from agent.local.views import RunEvent
from agent.resolve import parse_ref
from agent.rpc import convert, convert_federation, convert_people, convert_queue, convert_site
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.calls import LeaseCalls, LendingCalls
from agent.rpc.errors import Context, answering
from agent.rpc.identity import caller
from agent.rpc.pyrdma_pb2_grpc import NodeServicer
from agent.rpc.streams import Work, stream_of
from agent.text import printable
from federation.fairshare.accounts import check_account
from federation.identity.names import check_label


class LendingService(LendingCalls, NodeServicer):
    """The Node service on a socket that proves nobody's identity."""

    def __init__(self, lends: NodeFace) -> None:
        self._lends = lends

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:
        """Return who this is."""
        async with answering(context, PEER_CALL_S):
            return pb.DescribeResponse(name=self._lends.name, version=__version__)


class NodeService(LeaseCalls, LendingService):
    """The Node service over the network."""

    def __init__(self, lends: NodeFace, member: MemberFace) -> None:
        super().__init__(lends)
        self._member = member
        self._leases = member

    async def Report(self, request: pb.ReportRequest, context: Context) -> pb.ReportResponse:
        """Take a node's word on itself."""
        async with answering(context, REPORT_CALL_S):
            left = await self._member.report(convert_site.report_from(request), caller())
            return pb.ReportResponse(
                leases=[pb.LeaseTime(lease_id=one, remaining_s=seconds) for one, seconds in left.items()]
            )

    async def RenewCertificate(
        self, request: pb.RenewCertificateRequest, context: Context
    ) -> pb.RenewCertificateResponse:
        """Give a node of the site a new certificate."""
        async with answering(context, PEER_CALL_S):
            certificate = await self._member.renew_certificate(request.csr, caller())
            return pb.RenewCertificateResponse(certificate=certificate)

    async def Leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveResponse:
        """Strike the calling node off the list."""
        async with answering(context, PEER_CALL_S):
            await self._member.leave(caller())
            return pb.LeaveResponse()

    async def GetFederation(self, request: pb.GetFederationRequest, context: Context) -> pb.Federation:
        """Return the site's view of itself and the consortium."""
        async with answering(context, PEER_CALL_S):
            return convert_federation.federation_to(await self._member.federation())

    async def GetQueue(self, request: pb.GetQueueRequest, context: Context) -> pb.QueueState:
        """Return what waits at this site, and what it publishes."""
        async with answering(context, PEER_CALL_S):
            return convert_queue.queue_to(await self._member.queue())

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        """Return what accounts of the site have used."""
        async with answering(context, PEER_CALL_S):
            accounts = convert_people.accounts_from(request)
            return convert_people.usage_to(await self._member.usage(accounts))

    async def Borrow(self, request: pb.RunRequest, context: Context) -> AsyncIterator[pb.RunEvent]:
        """Get a lease for a node of the site."""
        async with answering(context, LONG_CALL_S):
            wish, who = wish_from(request), caller()
            work: Work[RunEvent] = lambda emit: self._member.borrow(wish, who, emit)  # noqa: E731
            async with aclosing(stream_of(work)) as events:
                async for event in events:
                    yield convert.run_event_to(event)

    async def StartRunner(
        self, request: pb.StartRunnerRequest, context: Context
    ) -> AsyncIterator[pb.RunEvent]:
        """Run a lease here; only the gateway gets this far."""
        async with answering(context, LONG_CALL_S):
            order = convert_site.order_from(request)
            work: Work[RunEvent] = lambda emit: self._member.start_runner(order, emit)  # noqa: E731
            async with aclosing(stream_of(work)) as events:
                async for event in events:
                    yield convert.run_event_to(event)

    async def StopRunner(self, request: pb.StopRunnerRequest, context: Context) -> pb.StopRunnerResponse:
        """End a lease that runs here; only the gateway gets this far."""
        async with answering(context, STOP_CALL_S):
            reason = printable(request.reason, MAX_REASON_BYTES)
            await self._member.stop_runner(convert_site.check_id(request.lease_id), reason)
            return pb.StopRunnerResponse()

    async def NoticeRunner(
        self, request: pb.NoticeRunnerRequest, context: Context
    ) -> pb.NoticeRunnerResponse:
        """Tell a runner here that it will be stopped; only the gateway gets this far."""
        async with answering(context, PEER_CALL_S):
            reason = printable(request.reason, MAX_REASON_BYTES)
            lease_id, left_s = (
                convert_site.check_id(request.lease_id),
                convert_site.check_grace(request.left_s),
            )
            await self._member.notice_runner(lease_id, left_s, reason)
            return pb.NoticeRunnerResponse()

    async def WithdrawNotice(
        self, request: pb.WithdrawNoticeRequest, context: Context
    ) -> pb.WithdrawNoticeResponse:
        """Tell a runner here that the gateway does not stop it; only the gateway gets this far."""
        async with answering(context, PEER_CALL_S):
            await self._member.withdraw_notice(convert_site.check_id(request.lease_id))
            return pb.WithdrawNoticeResponse()


def wish_from(request: pb.RunRequest) -> Wish:
    """Return what somebody asks to run. Raises Error, FederationError."""
    parse_ref(printable(request.model, 2 * MAX_NAME_CHARS))
    return Wish(
        request.model,
        check_label(request.site, "site") if request.site else "",
        check_label(request.node, "node") if request.node else "",
        check_account(request.account) if request.account else "",
        check_label(request.purpose, "purpose") if request.purpose else "",
        request.instant,
        min(request.duration_s, MAX_DURATION_S),
    )
