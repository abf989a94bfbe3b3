"""The Site service: what the gateways of other sites may ask. Each call has proven such a gateway."""

# ruff: noqa: N802, ARG002 - the protocol file names the methods, gRPC their arguments

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from agent.daemon.faces import SiteFace
from agent.daemon.parts import NodeFace
from agent.limits import LONG_CALL_S, MAX_ASK_WAIT_S, OFFER_CALL_S
from agent.local.views import RunEvent
from agent.rpc import convert, convert_site
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.calls import LeaseCalls, LendingCalls
from agent.rpc.errors import Context, answering
from agent.rpc.identity import caller
from agent.rpc.ledger import LedgerCalls, LedgerDesk
from agent.rpc.pyrdma_pb2_grpc import SiteServicer
from agent.rpc.streams import Work, stream_of


class SiteService(LedgerCalls, LeaseCalls, LendingCalls, SiteServicer):
    """Answers other gateways; without a ledger it refuses what is asked of one."""

    def __init__(self, lends: NodeFace, site: SiteFace, ledger: LedgerDesk | None = None) -> None:
        self._ledger = ledger
        self._lends = lends
        self._leases = site
        self._site = site

    async def DescribeSite(self, request: pb.DescribeSiteRequest, context: Context) -> pb.SiteSummary:
        """Say what the site has."""
        async with answering(context, OFFER_CALL_S):
            return convert_site.summary_to(self._site.summary())

    async def AskOffer(self, request: pb.AskOfferRequest, context: Context) -> pb.OfferReply:
        """Offer a device, let the request wait, or refuse."""
        async with answering(context, MAX_ASK_WAIT_S + OFFER_CALL_S):
            asked = convert_site.offer_request_from(request)
            wait_s = convert_site.check_wait(request.wait_s)
            return convert_site.offer_reply_to(await self._site.ask_offer(asked, caller(), wait_s))

    async def Commit(self, request: pb.CommitRequest, context: Context) -> AsyncIterator[pb.RunEvent]:
        """Carry out an offer."""
        async with answering(context, LONG_CALL_S):
            offer_id, who = convert_site.check_id(request.offer_id), caller()
            work: Work[RunEvent] = lambda emit: self._site.commit(offer_id, who, emit)  # noqa: E731
            async with aclosing(stream_of(work)) as events:
                async for event in events:
                    yield convert.run_event_to(event)
