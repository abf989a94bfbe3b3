"""The Enrolment service: a port of its own, where the server alone has proven who it is.

Rules: nothing else is served here; messages, calls, connections and their lives are small and few, since
anyone can come. The certificate is of ``join.TRUST-DOMAIN``, which names no node.
"""

# ruff: noqa: N802 - the protocol file names the methods

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

import grpc
from grpc import aio

from agent.limits import (
    ENROL_CALL_S,
    ENROL_CONNECTION_S,
    MAX_ENROL_CONNECTIONS,
    MAX_ENROL_MESSAGE_BYTES,
    MAX_ENROL_RPCS,
    SERVER_GRACE_S,
)
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import Context, answering
from agent.rpc.network import add_port
from agent.rpc.pyrdma_pb2_grpc import EnrolmentServicer, add_EnrolmentServicer_to_server
from agent.site.certificates import JoinCertificate
from agent.site.config import SiteConfig
from agent.site.enrolment import Enrolment, JoinAttempt
from federation.errors import IdentityError
from federation.identity.authority import SiteAuthority

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_ENROL_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_ENROL_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 8 << 10),
    ("grpc.max_concurrent_streams", 4),
    ("grpc.max_allowed_incoming_connections", MAX_ENROL_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", int(ENROL_CALL_S * 1000)),
    ("grpc.max_connection_age_ms", int(ENROL_CONNECTION_S * 1000)),
    ("grpc.max_connection_age_grace_ms", int(ENROL_CALL_S * 1000)),
    ("grpc.so_reuseport", 0),
)


class EnrolmentService(EnrolmentServicer):
    """Answers strangers."""

    def __init__(self, enrolment: Enrolment, config: SiteConfig) -> None:
        self._enrolment = enrolment
        self._config = config

    async def Challenge(self, request: pb.ChallengeRequest, context: Context) -> pb.ChallengeResponse:
        """Return a nonce for a proof."""
        async with answering(context, ENROL_CALL_S):
            nonce, now_s = self._enrolment.challenge(request.client_nonce, address_of(context))
            return pb.ChallengeResponse(server_nonce=nonce, server_time=now_s)

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        """Take in a node."""
        async with answering(context, ENROL_CALL_S):
            attempt = JoinAttempt(
                token_id=request.token_id,
                node=request.node,
                client_nonce=request.client_nonce,
                server_nonce=request.server_nonce,
                csr=request.csr,
                proof=request.proof,
            )
            certificate = await self._enrolment.join(attempt, address_of(context))
            return pb.JoinResponse(
                certificate=certificate,
                gateway_node=self._config.gateway_node,
                gateway_address=self._config.gateway_address,
            )


async def start_enrolment_server(
    config: SiteConfig, service: EnrolmentService, credentials: grpc.ServerCredentials
) -> aio.Server:
    """Return the server of the enrolment port, which answers already.

    Raises:
        SocketInUseError: the port cannot be had.
    """
    server = aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_ENROL_RPCS)
    add_EnrolmentServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    try:
        add_port(server, config.join_listen, credentials)
    except BaseException:
        await server.stop(SERVER_GRACE_S)
        raise
    await server.start()
    return server


def enrolment_credentials(
    authority: SiteAuthority, clock: Callable[[], float] = time.time
) -> grpc.ServerCredentials:
    """Return the enrolment port's credentials; its certificate is made anew while the port is open."""
    certificate = JoinCertificate(authority, clock)
    shown: list[tuple[bytes, bytes]] = [certificate.current()]

    def fetch() -> Any:  # asked at each handshake, in a thread of gRPC's; None keeps what is shown
        now = certificate.current()
        if now == shown[0]:
            return None
        shown[0] = now
        return grpc.ssl_server_certificate_configuration([now])

    return grpc.dynamic_ssl_server_credentials(
        grpc.ssl_server_certificate_configuration([shown[0]]), fetch, require_client_authentication=False
    )


def address_of(context: Context) -> str:
    """Return the caller's IP address, as gRPC writes it: ``ipv4:HOST:PORT`` or ``ipv6:%5BHOST%5D:PORT``."""
    _, _, peer = unquote(context.peer() or "").partition(":")
    host = peer.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise IdentityError("a join comes over the network, from an address.") from None
