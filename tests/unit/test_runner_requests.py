"""What a borrower may ask of a runner."""

from __future__ import annotations

from typing import Any

import pytest

from agent.runner.limits import DEFAULT_NEW_TOKENS, MAX_INPUTS, MAX_NEW_TOKENS
from agent.runner.requests import (
    CHAT_FIELDS,
    COMPLETION_FIELDS,
    ApiError,
    check_chat,
    check_completion,
    check_embedding,
    fit_answer,
)

TURN = {"model": "site/m", "messages": [{"role": "user", "content": "hi"}]}


def refused(body: Any) -> ApiError:
    """Return the refusal of a chat body."""
    with pytest.raises(ApiError) as caught:
        check_chat(body, model="site/m")
    return caught.value


@pytest.mark.parametrize(
    "field",
    [
        "chat_template",
        "chat_template_kwargs",
        "generation_config",
        "files",
        "trust_remote_code",
        "guided_json",
    ],
)
def test_unknown_fields_are_refused_by_name(field: str) -> None:
    """What is not listed has no way to a handler."""
    error = refused({**TURN, field: {}})
    assert (error.status, error.param, error.code) == (400, field, "unknown_field")


@pytest.mark.parametrize("model", ["/etc", "site/other", "site/m@main", "site/m:x.gguf", ""])
def test_another_model_is_not_found(model: str) -> None:
    """The lease's model is the only one there is."""
    assert refused({**TURN, "model": model}).status == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "1"),
        ("temperature", 2.5),
        ("temperature", float("nan")),
        ("top_p", True),
        ("seed", 2**63),
        ("max_tokens", 0),
        ("max_tokens", MAX_NEW_TOKENS + 1),
        ("max_tokens", 1.0),
        ("stream", "yes"),
        ("stop", ["a"] * 5),
        ("stop", ""),
        ("n", 2),
        ("n", True),
        ("logprobs", True),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"1": 101}),
        ("tools", [{"type": "code"}]),
        ("messages", []),
        ("messages", "hi"),
        ("messages", [{"role": "user"}, {"role": "root", "content": ""}]),
        (
            "messages",
            [{"role": "user", "content": [{"type": "image_url", "image_url": "file:///etc/passwd"}]}],
        ),
        ("messages", [{"role": "user", "content": "x", "chat_template": "y"}]),
        ("messages", [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]),
    ],
)
def test_fields_with_other_values_are_refused_by_name(field: str, value: Any) -> None:
    """Each field takes its type and range, nothing else."""
    error = refused({**TURN, field: value})
    assert (error.status, error.param) == (400, field)


@pytest.mark.parametrize("body", [None, [], "x", {}, {"model": 3}, {"model": "site/m"}])
def test_what_is_no_request_is_refused(body: Any) -> None:
    """A body without its required fields is named so."""
    assert refused(body).status == 400


def test_the_handlers_get_known_fields_only() -> None:
    """Fields that mean nothing here are taken and dropped; null means absent."""
    body = {**TURN, "user": "u", "n": 1, "stream_options": {"include_usage": True}, "stop": None, "seed": 3}
    assert check_chat(body, model="site/m") == {"messages": TURN["messages"], "seed": 3}


def test_a_listed_field_is_one_that_transformers_takes() -> None:
    """Nothing is passed on that transformers' own handlers would refuse or ignore."""
    from transformers.cli.serving.chat_completion import UNUSED_CHAT_COMPLETION_FIELDS, ChatCompletionHandler
    from transformers.cli.serving.completion import UNUSED_LEGACY_COMPLETION_FIELDS, CompletionHandler

    for fields, handler, unused in (
        (CHAT_FIELDS, ChatCompletionHandler, UNUSED_CHAT_COMPLETION_FIELDS),
        (COMPLETION_FIELDS, CompletionHandler, UNUSED_LEGACY_COMPLETION_FIELDS),
    ):
        known = getattr(handler._valid_params_class, "__mutable_keys__", set())
        assert {name for name, field in fields.items() if field.passed} <= known - unused


def test_the_newer_name_of_the_limit_counts() -> None:
    """``max_completion_tokens`` is ``max_tokens`` to the handler, which knows only the old name."""
    assert check_chat({**TURN, "max_completion_tokens": 7}, model="site/m")["max_tokens"] == 7


def test_a_tool_conversation_is_taken() -> None:
    """Tool calls and their results are part of a conversation."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "done"}]},
    ]
    assert check_chat({"model": "site/m", "messages": messages}, model="site/m")["messages"] == messages


def test_completions_take_one_text() -> None:
    """A prompt is a text; chats' fields are unknown there."""
    assert check_completion({"model": "m", "prompt": "x", "echo": False}, model="m") == {"prompt": "x"}
    for body in ({"prompt": [1]}, {"prompt": "x", "messages": []}):
        with pytest.raises(ApiError):
            check_completion({"model": "m", **body}, model="m")


@pytest.mark.parametrize("given", ["", [], [""], [1, 2], ["x"] * (MAX_INPUTS + 1), None, {"a": 1}])
def test_embeddings_take_texts(given: Any) -> None:
    """Empty, too many, and token numbers of another vocabulary are refused."""
    with pytest.raises(ApiError) as caught:
        check_embedding({"model": "m", "input": given}, model="m")
    assert caught.value.param == "input"


def test_one_text_is_a_batch_of_one() -> None:
    """OpenAI's clients send a text or a list."""
    one = check_embedding({"model": "m", "input": "x", "encoding_format": "base64"}, model="m")
    assert (one.texts, one.base64) == (("x",), True)
    assert check_embedding({"model": "m", "input": ["x", "y"]}, model="m").base64 is False


def test_answers_fit_into_the_context() -> None:
    """A limit that nobody named shrinks to what is left; one that was named is an error past it."""
    assert (
        fit_answer({"prompt": ""}, prompt_tokens=10, context_tokens=9999)["max_tokens"] == DEFAULT_NEW_TOKENS
    )
    assert fit_answer({"prompt": ""}, prompt_tokens=90, context_tokens=100)["max_tokens"] == 10
    for limit, prompt in ((11, 90), (None, 100), (1, 200)):
        with pytest.raises(ApiError) as caught:
            fit_answer({"prompt": "", "max_tokens": limit}, prompt_tokens=prompt, context_tokens=100)
        assert caught.value.code == "context_length_exceeded"
