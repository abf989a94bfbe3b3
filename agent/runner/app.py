"""The runner's HTTP face: five routes, one key, one model.

Rules: every route but ``/health`` needs the lease's API key, which is compared in constant time before a body
is read; bodies are bounded; fields are checked by ``agent.runner.requests``; what is not a route here does
not exist. Errors have the form that OpenAI's clients parse. When a client hangs up, its stream's generation
stops.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import struct
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.runner.limits import MAX_BODY_BYTES, MAX_OPEN_REQUESTS
from agent.runner.requests import ApiError, Body, check_chat, check_completion, check_embedding, fit_answer

_HEALTH: Final = "/health"
_Check = Callable[..., Body]
_Answer = Callable[[Body, str], Awaitable[Response]]


class Engine(Protocol):
    """What the HTTP app asks of a model."""

    name: str
    context_tokens: int

    @property
    def generates(self) -> bool:
        """Whether the model answers chats and completions."""
        ...

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template."""
        ...

    @property
    def embeds(self) -> bool:
        """Whether the model's files say how its embeddings are pooled."""
        ...

    def prompt_tokens(self, body: dict[str, Any]) -> int:
        """Return how many tokens the prompt of a checked body has."""
        ...

    async def chat(self, body: dict[str, Any], request_id: str) -> Response:
        """Answer a checked chat request."""
        ...

    async def complete(self, body: dict[str, Any], request_id: str) -> Response:
        """Answer a checked completion request."""
        ...

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """Return one vector for each text, and how many tokens they had."""
        ...


def build_app(engine: Engine, api_key: str) -> Gate:
    """Return the app that serves one model to the holder of one key, behind its gate."""
    service = _Service(engine)
    routes = [
        Route(_HEALTH, service.health, methods=["GET"]),
        Route("/v1/models", service.models, methods=["GET"]),
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/completions", service.completions, methods=["POST"]),
        Route("/v1/embeddings", service.embeddings, methods=["POST"]),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={ApiError: _on_api_error, HTTPException: _on_http_error, Exception: _on_defect},
    )
    app.router.redirect_slashes = False
    return Gate(app, api_key)


class Gate:
    """Lets a request in if it has the key, there is room and time; knows nothing of models."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._expected = f"Bearer {api_key}".encode()
        self._open = 0
        self._ends_s: float | None = None
        self.drained = asyncio.Event()
        """Set when it drains and no request is open."""

    def drain(self, left_s: float) -> None:
        """Let nothing new in; what is open may end within ``left_s``."""
        self._ends_s = time.monotonic() + left_s
        if not self._open:
            self.drained.set()

    def undrain(self) -> None:
        """Let requests in again; what is drained stays so."""
        self._ends_s = None

    @property
    def left_s(self) -> float | None:
        """What is left until the end, once it drains."""
        return None if self._ends_s is None else max(0.0, self._ends_s - time.monotonic())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            return
        if scope["path"] == _HEALTH:
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(given, self._expected):
            error = ApiError(401, "the API key of this lease is missing or wrong.", code="invalid_api_key")
            await _refusal(error)(scope, receive, send)
            return
        left_s = self.left_s
        if left_s is not None:
            error = ApiError(
                503,
                "the device goes back to its owner: this lease takes no new requests; the model is started "
                "elsewhere, or can be.",
                code="lease_draining",
            )
            await _refusal(error, {"retry-after": str(1 + int(left_s))})(scope, receive, send)
            return
        if self._open >= MAX_OPEN_REQUESTS:
            error = ApiError(
                429, f"{self._open} requests are open; wait for one to end.", code="too_many_requests"
            )
            await _refusal(error)(scope, receive, send)
            return
        self._open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open -= 1
            if self.left_s is not None and not self._open:
                self.drained.set()


class _Service:
    """The routes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._created = int(time.time())
        # One thread: forward passes side by side are slower than one after the other.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")

    async def health(self, _: Request) -> Response:
        """Say that the model is there."""
        return JSONResponse({"status": "ok"})

    async def models(self, _: Request) -> Response:
        """Name the one model."""
        model = {"id": self._engine.name, "object": "model", "created": self._created, "owned_by": "pyrdma"}
        return JSONResponse({"object": "list", "data": [model]})

    async def chat(self, request: Request) -> Response:
        """Answer ``/v1/chat/completions``."""
        able = self._engine.chats
        return await self._generate(request, check_chat, self._engine.chat, able=able, what="chat")

    async def completions(self, request: Request) -> Response:
        """Answer ``/v1/completions``."""
        able = self._engine.generates
        return await self._generate(
            request, check_completion, self._engine.complete, able=able, what="complete text"
        )

    async def embeddings(self, request: Request) -> Response:
        """Answer ``/v1/embeddings``."""
        self._refuse_unable(self._engine.embeds, "embed")
        asked = check_embedding(await _json_body(request), model=self._engine.name)
        loop = asyncio.get_running_loop()
        vectors, tokens = await loop.run_in_executor(self._thread, self._engine.embed, asked.texts)
        encode = _base64 if asked.base64 else list
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": self._engine.name, "usage": usage})

    async def _generate(
        self, request: Request, check: _Check, answer: _Answer, *, able: bool, what: str
    ) -> Response:
        self._refuse_unable(able, what)
        body = check(await _json_body(request), model=self._engine.name)
        loop = asyncio.get_running_loop()
        try:
            prompt_tokens = await loop.run_in_executor(None, self._engine.prompt_tokens, body)
        except Exception as error:
            # The model's own chat template refuses conversations that it does not know.
            raise ApiError(400, f"the model's chat template refused the request ({error}).") from error
        fitted = fit_answer(body, prompt_tokens=prompt_tokens, context_tokens=self._engine.context_tokens)
        response = await answer(fitted, f"req-{uuid.uuid4().hex}")
        if isinstance(response, StreamingResponse):
            response.body_iterator = _with_end(response.body_iterator)  # type: ignore[arg-type]
        return response

    def _refuse_unable(self, able: bool, what: str) -> None:
        if not able:
            raise ApiError(
                400,
                f"the model {self._engine.name!r} cannot {what}: its files do not say how.",
                param="model",
                code="unsupported_by_model",
            )


async def _json_body(request: Request) -> Any:
    too_large = ApiError(413, f"a request has at most {MAX_BODY_BYTES} bytes.", code="request_too_large")
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise too_large
    except ClientDisconnect as error:
        raise ApiError(400, "the request broke off.") from error
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "the body of a request is a JSON object.") from error


async def _with_end(stream: AsyncIterator[str]) -> AsyncIterator[str]:
    """Add the line with which OpenAI ends a stream; closing this closes the handler's stream too."""
    async for part in stream:
        yield part
    yield "data: [DONE]\n\n"


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _refusal(error: ApiError, headers: dict[str, str] | None = None) -> Response:
    if error.status == 401:
        headers = {"www-authenticate": "Bearer"}
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


async def _on_api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _refusal(error)


async def _on_http_error(_: Request, error: Exception) -> Response:
    # Starlette's own (no such route or method), and what transformers' handlers raise.
    assert isinstance(error, HTTPException)
    return _refusal(ApiError(error.status_code, str(error.detail)))


async def _on_defect(_: Request, error: Exception) -> Response:
    return _refusal(ApiError(500, f"the model could not answer ({type(error).__name__})."))
