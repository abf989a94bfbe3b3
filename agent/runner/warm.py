"""Everything slow that a lease or its first request would meet, done while the runner is a spare.

Two tiny throw-away models go the way of the real one: written as side files, built on ``meta`` from them, and
asked by real requests through the real app. Modules that load lazily, tables, compiled templates, threads and
kernels are all there afterwards.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from starlette.types import ASGIApp, Message
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from agent.runner import adapter
from agent.runner.app import build_app
from agent.runner.engine import TransformersEngine
from agent.runner.pooling import Pooling

_KEY: Final = "warm"
_UNKNOWN: Final = "<unk>"
_TEMPLATE: Final = (
    "{% for message in messages %}{{ message['role'] + ' ' + message['content'] + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)


def warm_up(device: torch.device) -> None:
    """Ask two tiny models once each through the app that will serve the real one."""
    words = {
        word: index for index, word in enumerate(["<pad>", _UNKNOWN, "</s>", "user", "assistant", "warm"])
    }
    raw = Tokenizer(models.WordLevel(words, unk_token=_UNKNOWN))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "<pad>", "unk_token": _UNKNOWN, "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, chat_template=_TEMPLATE, **names)
    sizes: dict[str, Any] = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    llama = LlamaForCausalLM(LlamaConfig(**sizes, eos_token_id=2, bos_token_id=2)).to(device).eval()
    bert = BertModel(BertConfig(**sizes)).to(device).eval()
    chat = build_app(TransformersEngine(_KEY, llama, tokenizer, None), _KEY)
    embed = build_app(TransformersEngine(_KEY, bert, tokenizer, Pooling(("mean_tokens",), True, 0)), _KEY)
    for model in (llama, bert):
        _build(model, tokenizer)
    turn = {"model": _KEY, "messages": [{"role": "user", "content": "warm"}], "max_tokens": 2}
    asyncio.run(_ask_all(chat, embed, turn))


def _build(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        adapter.load_tokenizer(folder)
        built = adapter.build_on_meta(folder, ())
        adapter.refuse_conversion(built, built.state_dict())
        adapter.compute_rest(built, torch.device("cpu"))


async def _ask_all(chat: ASGIApp, embed: ASGIApp, turn: dict[str, Any]) -> None:
    await _ask(chat, "/v1/chat/completions", turn)
    await _ask(chat, "/v1/chat/completions", {**turn, "stream": True})
    await _ask(chat, "/v1/completions", {"model": _KEY, "prompt": "warm", "max_tokens": 1})
    await _ask(embed, "/v1/embeddings", {"model": _KEY, "input": "warm"})


async def _ask(app: ASGIApp, path: str, body: dict[str, Any]) -> None:
    """Send one request to the app in this process; raise if it is not answered."""
    pending: list[Message] = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    status = 0
    answered = asyncio.Event()

    async def receive() -> Message:
        if pending:
            return pending.pop()
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            answered.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"authorization", f"Bearer {_KEY}".encode()), (b"content-type", b"application/json")],
        "client": None,
        "server": None,
    }
    await app(scope, receive, send)
    if status != 200:
        raise RuntimeError(f"the warm-up request to {path} was answered with {status}")
