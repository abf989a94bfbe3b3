"""A laptop with a token: speaks to its site's gateway, and relays one lease's port on 127.0.0.1.

Rules: the token's CA is the only one that counts, and the token's secret is proven, never sent; the session
is renewed before it ends; a line that breaks is taken up again for as long as the gateway keeps the lease.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import grpc
from grpc import aio

from agent.daemon.pipes import Pipe
from agent.errors import NotAllowedError, PeerNodeError, RequestError, TokenError
from agent.limits import (
    LONG_CALL_S,
    MAX_REASON_BYTES,
    MAX_TOKEN_CHARS,
    MAX_VISITOR_MESSAGE_BYTES,
    SESSION_LIFE_S,
    STOP_CALL_S,
    VISITOR_ABSENT_S,
    VISITOR_CALL_S,
)
from agent.local.people_views import Wanted, WhoAmIView
from agent.local.views import LeaseView, RunEvent
from agent.people.token_text import Token, decode, proof, session_key
from agent.rpc import convert, convert_people
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import detailed_error, peer_error
from agent.rpc.passes import with_pass
from agent.rpc.pyrdma_pb2_grpc import VisitorStub
from agent.rpc.relaying import AskedPipe
from agent.text import printable
from federation.errors import FederationError
from federation.identity.names import JOIN_NAME
from federation.identity.proof import NONCE_BYTES
from pyrdma.errors import Error

_T = TypeVar("_T")
_AGAIN_S: Final = 1.0


def read_token(path: Path) -> Token:
    """Return the token of a file that nobody else may read.

    Raises:
        TokenError: it holds none, or others may read it.
        RequestError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_TOKEN_CHARS + 64)
    except OSError as error:
        raise RequestError(
            f"{path} cannot be read: {error.strerror}.", fix="name the token's file"
        ) from error
    if mode & 0o077:
        raise TokenError(
            f"others may read {path}: the token may be known to them.",
            fix=f"chmod 600 {path}; if others use this machine, have the token revoked and ask for another",
        )
    return decode(data.decode("utf-8", "replace"))


class VisitorClient:
    """One token's way to its gateway, as an async context manager; methods raise the gateway's own errors."""

    def __init__(self, token: Token) -> None:
        options = (
            ("grpc.max_receive_message_length", MAX_VISITOR_MESSAGE_BYTES),
            ("grpc.ssl_target_name_override", f"{JOIN_NAME}.{token.trust_domain}"),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.enable_http_proxy", 0),
        )
        credentials = grpc.ssl_channel_credentials(root_certificates=token.authority_pem)
        self._token = token
        self._channel = aio.secure_channel(token.address, credentials, options=options)
        self._stub: Any = VisitorStub(self._channel)  # type: ignore[no-untyped-call]
        self._session = ""
        self._opened_s = 0.0
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)

    async def whoami(self) -> WhoAmIView:
        """Return who the token is for the gateway."""
        metadata = await self._metadata()
        call = self._stub.WhoAmI(pb.WhoAmIRequest(), timeout=VISITOR_CALL_S, metadata=metadata)
        return convert_people.whoami_from(await self._answer(call))

    async def run(self, wanted: Wanted, *, timeout_s: float = LONG_CALL_S) -> AsyncIterator[RunEvent]:
        """Start a model; yields what ``AgentClient.run`` does. The lease has to be attended afterwards."""
        request, metadata = convert_people.wanted_to(wanted), await self._metadata()
        call = self._stub.Run(request, timeout=timeout_s, metadata=metadata)
        try:
            async for message in call:
                event = convert.run_event_from(message)
                if event is not None:
                    yield event
        except aio.AioRpcError as error:
            raise self._error(error) from error
        finally:
            call.cancel()

    async def attend(self, lease_id: str) -> str:
        """Wait until a lease ends; return why. A broken line is taken up again while there is hope.

        Raises:
            PeerNodeError: the gateway was not reached for so long that it has stopped the lease.
        """
        loop = asyncio.get_running_loop()
        heard_s = loop.time()
        while True:
            began_s = loop.time()
            try:
                return await self._attend(lease_id)
            except (NotAllowedError, PeerNodeError) as error:
                if isinstance(error, NotAllowedError):
                    self._session = ""  # the gateway was started again, and has forgotten it
                if loop.time() - began_s > VISITOR_CALL_S:
                    heard_s = loop.time()  # the gateway held the call until now
                if loop.time() - heard_s > VISITOR_ABSENT_S:
                    raise
            await asyncio.sleep(_AGAIN_S)

    async def stop(self, lease_id: str) -> LeaseView:
        """End a lease; return how it ended."""
        request, metadata = pb.StopLeaseRequest(lease_id=lease_id), await self._metadata()
        answer = await self._answer(self._stub.StopLease(request, timeout=STOP_CALL_S, metadata=metadata))
        return convert.lease_from(answer.lease)

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to a lease's runner."""
        return await AskedPipe.open(self._stub, lease_id, self._token.site, await self._metadata())

    async def _attend(self, lease_id: str) -> str:
        request, metadata = pb.AttendLeaseRequest(lease_id=lease_id), await self._metadata()
        call = self._stub.AttendLease(request, timeout=LONG_CALL_S, metadata=metadata)
        try:
            async for news in call:
                if news.ended:
                    return printable(news.reason, MAX_REASON_BYTES)
        except aio.AioRpcError as error:
            raise self._error(error) from error
        finally:
            call.cancel()
        raise PeerNodeError(f"{self._token.site} no longer tells how the lease is.")

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        async with self._opening:
            now_s = asyncio.get_running_loop().time()
            if not self._session or now_s - self._opened_s > SESSION_LIFE_S / 2:
                self._session, self._opened_s = await self._open(), now_s
        return with_pass(self._session)

    async def _open(self) -> str:
        token, nonce = self._token, secrets.token_bytes(NONCE_BYTES)
        asked = await self._answer(
            self._stub.Challenge(pb.ChallengeRequest(client_nonce=nonce), timeout=VISITOR_CALL_S)
        )
        if len(asked.server_nonce) != NONCE_BYTES:
            raise PeerNodeError(f"{token.site} sent no nonce.")
        said = proof(
            session_key(token.secret),
            authority_pem=token.authority_pem,
            token_id=token.token_id,
            client_nonce=nonce,
            server_nonce=asked.server_nonce,
        )
        request = pb.OpenSessionRequest(
            token_id=token.token_id, client_nonce=nonce, server_nonce=asked.server_nonce, proof=said
        )
        answer = await self._answer(self._stub.OpenSession(request, timeout=VISITOR_CALL_S))
        return str(answer.session)

    async def _answer(self, call: Awaitable[_T]) -> _T:
        try:
            return await call
        except aio.AioRpcError as error:
            raise self._error(error) from error

    def _error(self, error: aio.AioRpcError) -> Error | FederationError:
        said = detailed_error(error)
        if said is not None:
            return said
        name = f"{self._token.site} at {self._token.address}"
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return PeerNodeError(
                f"the gateway of {name} is not reachable, or another server answers there.",
                fix="check the way to it, and that it runs with --visitors; nothing secret was sent",
            )
        return peer_error(error, name)
