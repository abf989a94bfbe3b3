"""Leases across a call, as the asker sees them: of this site's gateway, another site's, a node's runners."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from grpc import aio

from agent.daemon.faces import (
    Emit,
    Heed,
    LeaseNotice,
    LeaseOffer,
    OfferRequest,
    Order,
    Refusal,
    Wish,
    unheeded,
)
from agent.daemon.pipes import Pipe
from agent.daemon.reports import Report, SiteSummary
from agent.errors import PeerNodeError, UnknownLeaseError
from agent.limits import (
    LONG_CALL_S,
    MAX_REASON_BYTES,
    MAX_START_EVENTS,
    OFFER_CALL_S,
    PEER_CALL_S,
    REPORT_CALL_S,
    STOP_CALL_S,
)
from agent.local.federation_views import FederationView
from agent.local.people_views import UsageView
from agent.local.queue_views import QueueView
from agent.local.views import GrantedView, PlaceView, ProgressView, WaitingView
from agent.rpc import convert_federation, convert_people, convert_queue, convert_site
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import detailed_error, is_cancelled, peer_error
from agent.rpc.peer_events import event_of_peer
from agent.rpc.relaying import AskedPipe
from agent.text import printable
from federation.errors import FederationError
from pyrdma.errors import Error


class LeaseClient:
    """What both services let one do with a lease.

    Args:
        name: what errors call the other side.
        stub: the stub to use now.
        own: whether it is of this site: then its errors are passed on as they are.
    """

    def __init__(self, name: str, stub: Callable[[], Any], *, own: bool) -> None:
        self.name = name
        self._stub = stub
        self._own = own

    async def renew(self, lease_id: str) -> float:
        """Renew a lease; return the seconds that it lives from the moment of asking."""
        request = pb.RenewLeaseRequest(lease_id=lease_id)
        return float((await self._ask(self._stub().RenewLease(request, timeout=PEER_CALL_S))).ttl_s)

    async def release(self, lease_id: str, reason: str) -> str:
        """End a lease; return the reason that the donor wrote down."""
        request = pb.ReleaseLeaseRequest(lease_id=lease_id, reason=reason)
        answer = await self._ask(self._stub().ReleaseLease(request, timeout=STOP_CALL_S))
        return printable(answer.reason, MAX_REASON_BYTES)

    async def attend(self, lease_id: str, heed: Heed = unheeded) -> str:
        """Wait until a lease ends; return why. ``heed`` hears notices meanwhile."""
        call = self._stub().AttendLease(pb.AttendLeaseRequest(lease_id=lease_id), timeout=LONG_CALL_S)
        try:
            with self._asking():
                async for news in call:
                    reason = printable(news.reason, MAX_REASON_BYTES)
                    if news.ended:
                        return reason
                    if news.notice:
                        heed(LeaseNotice(reason, convert_site.check_seconds(news.left_s)))
                    elif news.withdrawn:
                        heed(None)
        finally:
            call.cancel()
        raise PeerNodeError(f"{self.name} no longer tells how the lease is.")

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to a lease's runner."""
        return await AskedPipe.open(self._stub(), lease_id, self.name)

    async def _ask(self, call: Any) -> Any:
        with self._asking():
            return await call

    async def _start(self, call: Any, emit: Emit) -> GrantedView:
        told = 0
        try:
            with self._asking():
                async for message in call:
                    event = event_of_peer(message, self.name)
                    if isinstance(event, GrantedView):
                        return event
                    told += not isinstance(event, ProgressView | WaitingView)
                    if told > MAX_START_EVENTS:
                        raise PeerNodeError(f"{self.name} tells of a start without end.")
                    if event is not None:
                        emit(event)
        finally:
            call.cancel()
        raise PeerNodeError(f"{self.name} ended a start without a word.")

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except aio.AioRpcError as error:
            raise self._error(error) from error
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            raise PeerNodeError(f"the channel to {self.name} was closed.", fix="try again") from None

    def _error(self, error: aio.AioRpcError) -> Error | FederationError:
        said = detailed_error(error)
        if said is not None and (self._own or isinstance(said, UnknownLeaseError)):
            return said
        return peer_error(error, self.name)


class GatewayClient(LeaseClient):
    """This site's gateway, as a node of it asks."""

    def __init__(self, name: str, stub: Callable[[], Any]) -> None:
        super().__init__(name, stub, own=True)

    async def borrow(self, wish: Wish, emit: Emit) -> GrantedView:
        """Get a lease and wait until it answers."""
        request = convert_site.wish_to(wish)
        return await self._start(self._stub().Borrow(request, timeout=LONG_CALL_S), emit)

    async def report(self, report: Report) -> dict[str, float]:
        """Say what this node has; return the seconds that each of its leases has left."""
        answer = await self._ask(self._stub().Report(convert_site.report_to(report), timeout=REPORT_CALL_S))
        return {one.lease_id: one.remaining_s for one in answer.leases}

    async def renew_certificate(self, csr: bytes) -> bytes:
        """Return a new certificate, PEM."""
        request = pb.RenewCertificateRequest(csr=csr)
        answer = await self._ask(self._stub().RenewCertificate(request, timeout=PEER_CALL_S))
        return bytes(answer.certificate)

    async def leave(self) -> None:
        """Leave the site."""
        await self._ask(self._stub().Leave(pb.LeaveRequest(), timeout=PEER_CALL_S))

    async def federation(self) -> FederationView:
        """Return the site's view of itself and the consortium."""
        request = pb.GetFederationRequest()
        answer = await self._ask(self._stub().GetFederation(request, timeout=PEER_CALL_S))
        return convert_federation.federation_from(answer)

    async def queue(self) -> QueueView:
        """Return what waits at the site, and what it publishes."""
        answer = await self._ask(self._stub().GetQueue(pb.GetQueueRequest(), timeout=PEER_CALL_S))
        return convert_queue.queue_from(answer)

    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        """Return what accounts of the site have used."""
        request = pb.GetUsageRequest(accounts=accounts)
        answer = await self._ask(self._stub().GetUsage(request, timeout=PEER_CALL_S))
        return convert_people.usage_from(answer)


class SiteClient(LeaseClient):
    """Another site's gateway, as this site's gateway asks."""

    def __init__(self, site: str, stub: Callable[[], Any]) -> None:
        super().__init__(site, stub, own=False)
        self.site = site

    async def describe(self) -> SiteSummary:
        """Ask what the site has."""
        answer = await self._ask(self._stub().DescribeSite(pb.DescribeSiteRequest(), timeout=OFFER_CALL_S))
        return convert_site.summary_from(answer)

    async def ask_offer(self, request: OfferRequest, wait_s: float = 0.0) -> LeaseOffer | PlaceView | Refusal:
        """Ask for a device, or again for the request's place."""
        message = convert_site.offer_request_to(request, wait_s)
        answer = await self._ask(self._stub().AskOffer(message, timeout=wait_s + OFFER_CALL_S))
        return convert_site.offer_reply_from(answer)

    async def commit(self, offer_id: str, emit: Emit) -> GrantedView:
        """Take an offer and wait until the model answers."""
        request = pb.CommitRequest(offer_id=offer_id)
        return await self._start(self._stub().Commit(request, timeout=LONG_CALL_S), emit)


class HostClient(LeaseClient):
    """A node of this site, as its gateway orders."""

    def __init__(self, name: str, stub: Callable[[], Any]) -> None:
        super().__init__(name, stub, own=True)

    async def start_runner(self, order: Order, emit: Emit) -> GrantedView:
        """Start a lease's model there; returns when it answers."""
        return await self._start(
            self._stub().StartRunner(convert_site.order_to(order), timeout=LONG_CALL_S), emit
        )

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        """End a lease's runner; one that is gone is no error."""
        request = pb.StopRunnerRequest(lease_id=lease_id, reason=reason)
        await self._ask(self._stub().StopRunner(request, timeout=STOP_CALL_S))

    async def notice_runner(self, lease_id: str, left_s: float, reason: str) -> None:
        """Tell a lease's runner that it will be stopped."""
        request = pb.NoticeRunnerRequest(lease_id=lease_id, left_s=left_s, reason=reason)
        await self._ask(self._stub().NoticeRunner(request, timeout=PEER_CALL_S))

    async def withdraw_notice(self, lease_id: str) -> None:
        """Tell a lease's runner that the gateway does not stop it after all."""
        request = pb.WithdrawNoticeRequest(lease_id=lease_id)
        await self._ask(self._stub().WithdrawNotice(request, timeout=PEER_CALL_S))
