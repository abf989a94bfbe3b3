"""Who calls, settled anew for each call: the certificate is bound to its site's CA before a servicer runs.

A connection outlives what was known when it was made, and the handshake knows the CAs of all members at
once; so neither decides. What is refused here never reaches a servicer, is not even parsed, and costs one
line in the log at most; a method of an unknown service is refused as well.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from agent.errors import RequestError
from agent.limits import (
    MAX_REFUSED_CALLERS,
    REFUSALS_LOGGED,
    REFUSALS_LOGGED_ALL,
    REFUSALS_LOGGED_PER_S,
    REFUSALS_LOGGED_PER_S_ALL,
)
from agent.rpc.errors import Context, abort
from agent.site.rates import Rate, Rates
from agent.text import printable
from federation.errors import FederationError, IdentityError
from federation.identity.names import NodeIdentity

_log = logging.getLogger(__name__)
_caller: ContextVar[NodeIdentity | None] = ContextVar("caller", default=None)
_CERTIFICATE: Final = "x509_pem_cert"

Admit = Callable[[str, bytes], NodeIdentity]
"""Given a method's full name and the caller's certificate (PEM), returns who calls; raises IdentityError."""


def caller() -> NodeIdentity:
    """Return who makes the present call.

    Raises:
        IdentityError: the call came over a socket that proves nobody's identity.
    """
    known = _caller.get()
    if known is None:
        raise IdentityError("this call needs a node's certificate, and this socket asks for none.")
    return known


class IdentityInterceptor(aio.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses every call that ``admit`` does not let through, and remembers who makes the others."""

    def __init__(self, admit: Admit) -> None:
        self._admit = admit
        self._logged = Rates(
            Rate(REFUSALS_LOGGED, REFUSALS_LOGGED_PER_S),
            Rate(REFUSALS_LOGGED_ALL, REFUSALS_LOGGED_PER_S_ALL),
            callers=MAX_REFUSED_CALLERS,
        )

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the handler, with the check before it."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        read, write = handler.request_deserializer, handler.response_serializer
        if handler.request_streaming and handler.response_streaming:
            behaviour = self._checked(method, handler.stream_stream, lambda stream: stream)
            return grpc.stream_stream_rpc_method_handler(behaviour, read, write)
        # Without a deserializer gRPC hands over the bytes; they are read once it is known whose they are.
        if handler.response_streaming:
            behaviour = self._checked(method, handler.unary_stream, read)
            return grpc.unary_stream_rpc_method_handler(behaviour, None, write)
        assert not handler.request_streaming, "no method of ours answers a stream with one message"
        behaviour = self._checked(method, handler.unary_unary, read)
        return grpc.unary_unary_rpc_method_handler(behaviour, None, write)

    def _checked(self, method: str, behaviour: Any, read: Callable[[Any], Any]) -> Any:
        if inspect.isasyncgenfunction(behaviour):

            async def streaming(request: Any, context: Context) -> AsyncIterator[Any]:
                await self._check(method, context)
                message = await _parsed(read, request, context)
                async with aclosing(behaviour(message, context)) as answers:
                    async for answer in answers:
                        yield answer

            return streaming

        async def answering(request: Any, context: Context) -> Any:
            await self._check(method, context)
            return await behaviour(await _parsed(read, request, context), context)

        return answering

    async def _check(self, method: str, context: Context) -> None:
        shown = list(context.auth_context().get(_CERTIFICATE, ()))
        try:
            if len(shown) != 1:
                raise IdentityError("this call needs a node's certificate.")
            _caller.set(self._admit(method, bytes(shown[0])))
        except FederationError as error:
            peer = printable(context.peer() or "", 128)
            if self._logged.allow(peer.rpartition(":")[0], time.monotonic()):
                _log.warning("refused %s from %s: %s", method, peer, error.message)
            await abort(context, error)


async def _parsed(read: Callable[[Any], Any], request: Any, context: Context) -> Any:
    try:
        return read(request)
    except DecodeError:
        await abort(context, RequestError("the request cannot be read.", fix="use the same version"))
