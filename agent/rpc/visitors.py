"""The Visitor service: a port of its own, where the server alone has proven who it is and tokens are proven.

Rules: nothing else is served here; before a session there are two small calls, counted by address; each call
after it is of one token, which may have so many streams open. The certificate is that of the enrolment port,
``join.TRUST-DOMAIN``, which names no node.
"""

# ruff: noqa: N802 - the protocol file names the methods

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

import grpc
from grpc import aio

from agent.daemon.pipes import carry
from agent.daemon.visits import Visits
from agent.limits import (
    LONG_CALL_S,
    MAX_VISITOR_CONNECTIONS,
    MAX_VISITOR_MESSAGE_BYTES,
    MAX_VISITOR_RPCS,
    MAX_VISITOR_STREAMS,
    RELAY_CALL_S,
    SERVER_GRACE_S,
    SESSION_LIFE_S,
    STOP_CALL_S,
    VISITOR_CALL_S,
    VISITOR_IDLE_S,
)
from agent.local.views import RunEvent
from agent.people.sessions import Sessions
from agent.rpc import convert, convert_people, convert_site
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.enrolment import address_of
from agent.rpc.errors import Context, answering
from agent.rpc.network import add_port
from agent.rpc.node import wish_from
from agent.rpc.passes import shown_pass
from agent.rpc.pyrdma_pb2_grpc import VisitorServicer, add_VisitorServicer_to_server
from agent.rpc.relaying import AnsweredPipe, begin, first_of
from agent.rpc.streams import Work, stream_of
from pyrdma.errors import ChannelError

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_VISITOR_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_VISITOR_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 8 << 10),
    ("grpc.max_concurrent_streams", MAX_VISITOR_STREAMS),
    ("grpc.max_allowed_incoming_connections", MAX_VISITOR_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", int(VISITOR_CALL_S * 1000)),
    ("grpc.max_connection_idle_ms", int(VISITOR_IDLE_S * 1000)),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.so_reuseport", 0),
)


class VisitorService(VisitorServicer):
    """Answers laptops."""

    def __init__(self, sessions: Sessions, visits: Visits) -> None:
        self._sessions = sessions
        self._visits = visits

    async def Challenge(self, request: pb.ChallengeRequest, context: Context) -> pb.ChallengeResponse:
        """Return a nonce for a proof."""
        async with answering(context, VISITOR_CALL_S):
            nonce = self._sessions.challenge(request.client_nonce, address_of(context))
            return pb.ChallengeResponse(server_nonce=nonce)

    async def OpenSession(self, request: pb.OpenSessionRequest, context: Context) -> pb.OpenSessionResponse:
        """Open a session for whoever proves a token."""
        async with answering(context, VISITOR_CALL_S):
            session = await self._sessions.open(
                request.token_id,
                request.client_nonce,
                request.server_nonce,
                proof=request.proof,
                address=address_of(context),
            )
            return pb.OpenSessionResponse(session=session, ttl_s=SESSION_LIFE_S)

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        """Return who calls."""
        del request
        async with answering(context, VISITOR_CALL_S):
            who = self._sessions.who(shown_pass(context))
            return convert_people.whoami_to(await self._visits.whoami(who))

    async def Run(self, request: pb.RunRequest, context: Context) -> AsyncIterator[pb.RunEvent]:
        """Start a model and say how far it is."""
        async with answering(context, LONG_CALL_S):
            who, wish = self._sessions.who(shown_pass(context)), wish_from(request)
            work: Work[RunEvent] = lambda emit: self._visits.run(wish, who, emit)  # noqa: E731
            with self._visits.stream(who):
                async with aclosing(stream_of(work)) as events:
                    async for event in events:
                        yield convert.run_event_to(event)

    async def StopLease(self, request: pb.StopLeaseRequest, context: Context) -> pb.StopLeaseResponse:
        """End a lease of the caller's."""
        async with answering(context, STOP_CALL_S):
            who = self._sessions.who(shown_pass(context))
            ended = await self._visits.stop(convert_site.check_id(request.lease_id), who)
            return pb.StopLeaseResponse(lease=convert.lease_to(ended))

    async def AttendLease(
        self, request: pb.AttendLeaseRequest, context: Context
    ) -> AsyncIterator[pb.LeaseNews]:
        """Wait until a lease ends; it is the caller's as long as this call lasts."""
        async with answering(context, LONG_CALL_S):
            who = self._sessions.who(shown_pass(context))
            with self._visits.stream(who):
                await begin(context)
                reason = await self._visits.attend(convert_site.check_id(request.lease_id), who)
                yield pb.LeaseNews(ended=True, reason=reason)

    async def Relay(self, request_iterator: object, context: Context) -> None:  # noqa: ARG002 - gRPC names it
        """Carry one connection to a lease's runner."""
        async with answering(context, RELAY_CALL_S):
            who = self._sessions.who(shown_pass(context))
            with self._visits.stream(who):
                async with asyncio.timeout(VISITOR_CALL_S):  # who asks for nothing must not keep a call
                    lease_id = convert_site.check_id((await first_of(context)).lease_id)
                    await begin(context)
                    runner = await self._visits.connect(lease_id, who)
                try:
                    await carry(AnsweredPipe(context), runner)
                except OSError as error:
                    raise ChannelError("the connection to the runner broke.") from error


async def start_visitor_server(
    listen: str, service: VisitorService, credentials: grpc.ServerCredentials
) -> aio.Server:
    """Return the server of the visitors' port, which answers already.

    Raises:
        SocketInUseError: the port cannot be had.
    """
    server = aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_VISITOR_RPCS)
    add_VisitorServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    try:
        add_port(server, listen, credentials)
    except BaseException:
        await server.stop(SERVER_GRACE_S)
        raise
    await server.start()
    return server
