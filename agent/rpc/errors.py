"""Errors across a gRPC call: the same code, sentence and fix on both sides.

The status comes from ``agent.error_table``; the rest travels as an ``ErrorDetail`` in trailing metadata, cut
to what metadata may hold. What is no error of ours is a defect: it is logged here with its traceback, and
the caller hears only that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from agent.error_table import from_code, row_of
from agent.errors import DeadlineError, InternalError, PeerNodeError, Reported, UnreachableError
from agent.limits import MAX_ERROR_TEXT_BYTES
from agent.rpc.pyrdma_pb2 import ErrorDetail
from agent.text import printable
from federation.errors import FederationError
from pyrdma.errors import Error

_log = logging.getLogger(__name__)
_KEY: Final = "pyrdma-error-bin"

Context = aio.ServicerContext[Any, Any]


@asynccontextmanager
async def answering(context: Context, limit_s: float) -> AsyncIterator[None]:
    """Turn what the body raises into a status with detail, and end it after ``limit_s``."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except Reported as error:
        await abort(context, error)
    except TimeoutError:
        await abort(context, DeadlineError(f"the agent did not finish within {limit_s:.0f} s."))
    except (aio.AbortError, asyncio.CancelledError, GeneratorExit):
        raise
    except Exception:  # noqa: BLE001 - the edge: a defect must not end the connection without a sentence
        _log.exception("a call failed by a defect of the agent")
        await abort(context, InternalError("the agent failed by a defect of its own.", fix="see its log"))


async def abort(context: Context, error: Error | FederationError) -> None:
    """End a call with the error's status, and its code, sentence and fix beside it."""
    message = printable(error.message, MAX_ERROR_TEXT_BYTES)
    detail = ErrorDetail(code=error.code, message=message, fix=printable(error.fix, MAX_ERROR_TEXT_BYTES))
    await context.abort(
        grpc.StatusCode[row_of(error).status],
        printable(error.message, 256),
        trailing_metadata=((_KEY, detail.SerializeToString()),),
    )


def local_error(error: aio.AioRpcError, socket: str) -> Error | FederationError:
    """Return the agent's own error that a call over the local socket ended with."""
    detail = _detail(error)
    if detail is not None:
        return from_code(detail.code, detail.message, detail.fix)
    status = error.code()
    if status is grpc.StatusCode.UNAVAILABLE:
        return UnreachableError(f"no agent answers on {socket}.", fix="start one with: pyrdma-agent serve")
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(
            "the agent did not finish in time; what it was doing has been called off.",
            fix="see how far it is with: pyrdma-agent transfers; allow more with --timeout",
        )
    if status is grpc.StatusCode.UNIMPLEMENTED:
        return InternalError(
            "the running agent does not know this call.", fix="restart it: it is older than this command"
        )
    return InternalError(f"the call to the agent failed ({status.name}: {_text(error)}).", fix="see its log")


def is_cancelled() -> bool:
    """Say whether the present task is to end: gRPC raises CancelledError for a call that was let go, too."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def detailed_error(error: aio.AioRpcError) -> Error | FederationError | None:
    """Return the error that the other side described, or nothing if it described none."""
    detail = _detail(error)
    return None if detail is None else from_code(detail.code, detail.message, detail.fix)


def peer_error(error: aio.AioRpcError, peer: str) -> PeerNodeError:
    """Return the error of a call to another node, which is always that node's."""
    detail = _detail(error)
    if detail is not None:
        return PeerNodeError(f"the peer {peer} refused: {detail.message}", fix=detail.fix)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return PeerNodeError(f"the peer {peer} is not reachable.", fix="check that its agent runs")
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return PeerNodeError(f"the peer {peer} did not answer in time.", fix="check that its agent is well")
    return PeerNodeError(f"the peer {peer} answered with {error.code().name}: {_text(error)}")


def _detail(error: aio.AioRpcError) -> ErrorDetail | None:
    metadata: Any = error.trailing_metadata()  # the stubs know no iteration of it
    for key, value in metadata or ():
        if key == _KEY and isinstance(value, bytes):
            try:
                detail = ErrorDetail.FromString(value)
            except DecodeError:
                return None
            # Whatever the other side put there is printed on a terminal.
            return ErrorDetail(
                code=detail.code,
                message=printable(detail.message, MAX_ERROR_TEXT_BYTES),
                fix=printable(detail.fix, MAX_ERROR_TEXT_BYTES),
            )
    return None


def _text(error: aio.AioRpcError) -> str:
    return printable(error.details() or "", 256)
