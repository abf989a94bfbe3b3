"""The runner's HTTP face, around an engine that needs no model."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from agent.runner.app import Gate, build_app
from agent.runner.limits import MAX_BODY_BYTES, MAX_OPEN_REQUESTS

pytestmark = pytest.mark.asyncio

KEY = "right"
TURN = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


class EchoEngine:
    """Answers with what it was asked."""

    name = "m"
    context_tokens = 100

    def __init__(self, *, generates: bool = True, embeds: bool = True) -> None:
        self.generates = self.chats = generates
        self.embeds = embeds
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.waiting = 0
        self.full = asyncio.Event()

    def prompt_tokens(self, body: dict[str, Any]) -> int:
        if body.get("messages", [{}])[0].get("content") == "odd":
            raise ValueError("roles must alternate")
        return len(str(body.get("prompt", "")))

    async def chat(self, body: dict[str, Any], request_id: str) -> Response:
        self.waiting += 1
        if self.waiting == MAX_OPEN_REQUESTS:
            self.full.set()
        await self.go_on.wait()
        if body.get("stream"):
            return StreamingResponse(self._stream(), media_type="text/event-stream")
        return JSONResponse(body)

    async def complete(self, body: dict[str, Any], request_id: str) -> Response:
        return JSONResponse(body)

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        return [[float(len(text)), 0.5] for text in texts], sum(map(len, texts))

    async def _stream(self) -> AsyncIterator[str]:
        yield "data: one\n\n"
        yield "data: two\n\n"


def client_of(gate: Gate) -> httpx.AsyncClient:
    """Return a client of an app that has its key."""
    transport = httpx.ASGITransport(app=gate, raise_app_exceptions=False)
    return httpx.AsyncClient(
        transport=transport, base_url="http://runner", headers={"authorization": f"Bearer {KEY}"}
    )


def client(engine: EchoEngine | None = None) -> httpx.AsyncClient:
    """Return a client of an app around an engine."""
    return client_of(build_app(engine or EchoEngine(), KEY))


@pytest.mark.parametrize(
    "header", ["", "right", "Bearer wrong", "Bearer righ", "bearer right", "Bearer right "]
)
async def test_without_the_key_nothing_is_answered(header: str) -> None:
    """Every path but health answers 401 to a wrong key, also one that does not exist."""
    async with client() as http:
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/embeddings"), ("GET", "/nope")):
            answer = await http.request(method, path, headers={"authorization": header})
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert (await http.get("/health", headers={"authorization": header})).json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/load_model", 404),
        ("POST", "/reset", 404),
        ("POST", "/v1/responses", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
    ],
)
async def test_other_routes_do_not_exist(method: str, path: str, status: int) -> None:
    """The allow-list of routes is all there is."""
    async with client() as http:
        answer = await http.request(method, path, json={})
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


async def test_the_one_model_is_listed() -> None:
    """``/v1/models`` names the lease's model."""
    async with client() as http:
        listed = (await http.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["m"]


async def test_the_engine_gets_a_checked_body_with_a_limit() -> None:
    """Known fields and a limit that fits arrive; nothing else."""
    async with client() as http:
        answer = await http.post("/v1/completions", json={"model": "m", "prompt": "x" * 90, "user": "u"})
    assert answer.json() == {"prompt": "x" * 90, "max_tokens": 10}


async def test_a_refused_field_is_named() -> None:
    """A refusal has the form that OpenAI's clients parse."""
    async with client() as http:
        answer = await http.post("/v1/chat/completions", json={**TURN, "chat_template": "x"})
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "the field 'chat_template' is not taken by this endpoint.",
        "type": "invalid_request_error",
        "param": "chat_template",
        "code": "unknown_field",
    }


async def test_what_the_template_refuses_is_the_callers_mistake() -> None:
    """A template's own error is a 400 with its reason, not a defect."""
    async with client() as http:
        answer = await http.post(
            "/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": "odd"}]}
        )
    assert answer.status_code == 400
    assert "roles must alternate" in answer.json()["error"]["message"]


@pytest.mark.parametrize("declared", [True, False])
async def test_large_bodies_are_refused(declared: bool) -> None:
    """A body past the limit is refused whether its length is announced or not."""
    data = b"x" * (MAX_BODY_BYTES + 1)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1 << 20):
            yield data[start : start + (1 << 20)]

    async with client() as http:
        answer = await http.post("/v1/embeddings", content=data if declared else chunks())
    assert answer.status_code == 413


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"\xff"])
async def test_what_is_no_json_is_refused(data: bytes) -> None:
    """Broken and deeply nested bodies are refused with a sentence."""
    async with client() as http:
        answer = await http.post("/v1/embeddings", content=data)
    assert answer.status_code == 400


async def test_too_many_open_requests_are_refused() -> None:
    """Past the bound a request is refused at once; when the others end there is room again."""
    engine = EchoEngine()
    engine.go_on.clear()
    async with client(engine) as http:
        waiting = [
            asyncio.create_task(http.post("/v1/chat/completions", json=TURN))
            for _ in range(MAX_OPEN_REQUESTS)
        ]
        async with asyncio.timeout(10):
            await engine.full.wait()
        assert (await http.get("/v1/models")).status_code == 429
        engine.go_on.set()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
        assert (await http.get("/v1/models")).status_code == 200


async def test_a_stream_ends_with_the_line_that_clients_wait_for() -> None:
    """OpenAI's streams end with [DONE], transformers' do not."""
    async with client() as http:
        answer = await http.post("/v1/chat/completions", json={**TURN, "stream": True})
    assert answer.text == "data: one\n\ndata: two\n\ndata: [DONE]\n\n"


async def test_embeddings_travel_as_numbers_or_base64() -> None:
    """Both encodings hold the same 32-bit floats, with usage."""
    async with client() as http:
        plain = (await http.post("/v1/embeddings", json={"model": "m", "input": ["ab", "c"]})).json()
        packed = (
            await http.post("/v1/embeddings", json={"model": "m", "input": "ab", "encoding_format": "base64"})
        ).json()
    assert [each["embedding"] for each in plain["data"]] == [[2.0, 0.5], [1.0, 0.5]]
    assert plain["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert struct.unpack("<2f", base64.b64decode(packed["data"][0]["embedding"])) == (2.0, 0.5)


async def test_a_model_is_not_asked_for_what_it_cannot_do() -> None:
    """An embedding model refuses chats and a chat model embeddings, with a sentence."""
    async with client(EchoEngine(generates=False)) as http:
        chat = await http.post("/v1/chat/completions", json=TURN)
    async with client(EchoEngine(embeds=False)) as http:
        embed = await http.post("/v1/embeddings", json={"model": "m", "input": "x"})
    assert [chat.status_code, embed.status_code] == [400, 400]
    assert chat.json()["error"]["code"] == embed.json()["error"]["code"] == "unsupported_by_model"


class OpenChat(NamedTuple):
    """One chat that its engine is at, behind a gate."""

    engine: EchoEngine
    gate: Gate
    http: httpx.AsyncClient
    answer: asyncio.Task[httpx.Response]


@asynccontextmanager
async def open_chat() -> AsyncIterator[OpenChat]:
    """Begin a chat; its engine answers once ``go_on`` is set."""
    engine = EchoEngine()
    engine.go_on.clear()
    gate = build_app(engine, KEY)
    async with client_of(gate) as http:
        answer = asyncio.create_task(http.post("/v1/chat/completions", json=TURN))
        while not engine.waiting:
            await asyncio.sleep(0)
        yield OpenChat(engine, gate, http, answer)


async def test_a_lease_that_has_notice_finishes_what_is_open_and_takes_nothing_new() -> None:
    """New requests hear 503 with a sentence and when to come again; the last open one drains it."""
    async with open_chat() as (engine, gate, http, open_one):
        gate.drain(8.5)
        assert not gate.drained.is_set()
        refused = await http.post("/v1/chat/completions", json=TURN)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "lease_draining")
        assert 8 <= int(refused.headers["retry-after"]) <= 9
        assert (await http.get("/health")).status_code == 200
        engine.go_on.set()
        assert (await open_one).status_code == 200
    assert gate.drained.is_set()


async def test_a_lease_whose_notice_is_withdrawn_takes_requests_again() -> None:
    """What was open goes on through both, and its end drains nothing."""
    async with open_chat() as (engine, gate, http, open_one):
        gate.drain(8.5)
        gate.undrain()
        engine.go_on.set()
        answers = [await open_one, await http.post("/v1/chat/completions", json=TURN)]
    assert [one.status_code for one in answers] == [200, 200]
    assert not gate.drained.is_set()


async def test_a_lease_without_an_open_request_is_drained_at_once() -> None:
    """Nothing is waited for."""
    gate = build_app(EchoEngine(), KEY)
    gate.drain(10.0)
    assert gate.drained.is_set()
