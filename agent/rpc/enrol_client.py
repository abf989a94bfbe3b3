"""A node's side of its join: who answers is settled first, then the invite's secret is proven, never sent.

Rules: the invite's CA is the only one that counts, and the name must be that of the enrolment port, so
nothing but a greeting reaches another server; the clocks are compared before the proof; what the site refuses
is raised as the site's own error.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import ssl
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final, Self

import grpc
from grpc import aio

from agent.errors import NodeError, PeerNodeError
from agent.limits import ENROL_CALL_S, JOIN_S, MAX_ENROL_MESSAGE_BYTES
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import detailed_error, peer_error
from agent.rpc.pyrdma_pb2_grpc import EnrolmentStub
from federation.errors import FederationError, FederationInputError, IdentityError
from federation.identity.invite import Invite
from federation.identity.keys import spki_sha256
from federation.identity.names import JOIN_NAME, check_address, check_node
from federation.identity.proof import NONCE_BYTES, Transcript, proof_key, prove
from federation.identity.shape import read_certificate
from pyrdma.errors import Error

_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a site gives to a node that has joined: its certificate (PEM), and its gateway."""

    certificate_pem: bytes
    gateway_node: str
    gateway_address: str


async def check_server(invite: Invite) -> None:
    """Greet the server at the invite's address, and make sure that it is the site's; send it nothing.

    Raises:
        PeerNodeError: nobody answers there.
        IdentityError: another server answers there.
        NodeError: it would be right at another time.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the name
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=invite.authority_pem.decode("ascii"))
    context.set_alpn_protocols(["h2"])
    host, _, port = invite.address.rpartition(":")
    try:
        async with asyncio.timeout(JOIN_S):
            _, writer = await asyncio.open_connection(
                host.strip("[]"), int(port), ssl=context, server_hostname=_name(invite)
            )
            writer.close()
    except ssl.SSLCertVerificationError as error:
        raise _unproven(invite, error) from error
    except ssl.SSLError as error:
        raise _another(invite) from error
    except TimeoutError as error:
        raise PeerNodeError(
            f"the site's gateway at {invite.address} does not answer.", fix=_reach(invite)
        ) from error
    except OSError as error:
        raise PeerNodeError(
            f"the site's gateway at {invite.address} is not reachable: {error.strerror or error}.",
            fix=_reach(invite),
        ) from error


class EnrolClient:
    """One join. Use as an async context manager: first ``challenge``, then ``join``.

    Both raise the site's own error where it refuses, and ``PeerNodeError`` where the connection broke or the
    site answers outside the protocol; then the same request may be sent again.
    """

    def __init__(self, invite: Invite) -> None:
        options = (
            ("grpc.max_receive_message_length", MAX_ENROL_MESSAGE_BYTES),
            ("grpc.ssl_target_name_override", _name(invite)),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),  # a proxy from the environment is for people's tools
        )
        credentials = grpc.ssl_channel_credentials(root_certificates=invite.authority_pem)
        self._invite = invite
        self._channel = aio.secure_channel(invite.address, credentials, options=options)
        self._stub: Any = EnrolmentStub(self._channel)  # type: ignore[no-untyped-call]
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._site_nonce = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)

    async def challenge(self) -> float:
        """Get a nonce to prove the secret with; return by how many seconds the site's clock is ahead."""
        asked_s = time.time()
        request = pb.ChallengeRequest(client_nonce=self._nonce)
        answer = await self._ask(self._stub.Challenge(request, timeout=ENROL_CALL_S))
        if len(answer.server_nonce) != NONCE_BYTES:
            raise PeerNodeError(f"the gateway at {self._invite.address} sent no nonce.")
        self._site_nonce = answer.server_nonce
        return float(answer.server_time) - (asked_s + time.time()) / 2

    async def join(self, csr: bytes) -> Enrolled:
        """Join with a certificate request (PKCS #10, DER)."""
        request = prove_request(self._invite, csr, self._nonce, self._site_nonce)
        answer = await self._ask(self._stub.Join(request, timeout=ENROL_CALL_S))
        try:
            node, address = check_node(answer.gateway_node), check_address(answer.gateway_address)
        except FederationInputError as error:
            raise PeerNodeError(
                f"the gateway at {self._invite.address} does not say where it is: {error.message}"
            ) from error
        return Enrolled(answer.certificate, node, address)

    async def _ask(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except aio.AioRpcError as error:
            known = detailed_error(error)
            raise (peer_error(error, self._invite.address) if known is None else known) from error


def prove_request(invite: Invite, csr: bytes, client_nonce: bytes, server_nonce: bytes) -> pb.JoinRequest:
    """Return the request that proves an invite's secret for a certificate request, and does not hold it."""
    transcript = Transcript(
        spki_sha256(read_certificate(invite.authority_pem).public_key()),
        invite.trust_domain,
        invite.node,
        client_nonce,
        server_nonce,
        hashlib.sha256(csr).digest(),
    )
    return pb.JoinRequest(
        token_id=invite.token_id,
        node=invite.node,
        client_nonce=client_nonce,
        server_nonce=server_nonce,
        csr=csr,
        proof=prove(proof_key(invite.secret), transcript=transcript),
    )


def _unproven(invite: Invite, error: ssl.SSLCertVerificationError) -> Error | FederationError:
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
        return NodeError(
            f"by the clock of this machine, the certificate at {invite.address} is out of its time "
            f"({error.verify_message}); nothing secret was sent.",
            fix="set this machine's clock (timedatectl); if it is right, see to that of the gateway",
        )
    return _another(invite)


def _another(invite: Invite) -> IdentityError:
    return IdentityError(
        f"another server answers at {invite.address}: it is not that of {invite.site}, whose CA is in the "
        "invite; nothing secret was sent.",
        fix="see what listens there and what is in between; if the site has a new CA, ask for a new invite",
    )


def _reach(invite: Invite) -> str:
    return f"check that its agent runs, and that a firewall lets this machine reach {invite.address}"


def _name(invite: Invite) -> str:
    return f"{JOIN_NAME}.{invite.trust_domain}"
