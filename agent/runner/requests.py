"""What a borrower may ask: fields by allow-list, each checked; anything else is refused by name.

Pure functions from a JSON body to the body that the handlers get. They never see a field that is not listed
here: chat templates, generation configs, file names and links to fetch have no way in. Fields that OpenAI's
clients send and that change nothing here are taken with the one value that means nothing, then dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from agent.runner.limits import (
    DEFAULT_NEW_TOKENS,
    MAX_BIASES,
    MAX_INPUTS,
    MAX_MESSAGES,
    MAX_NEW_TOKENS,
    MAX_STOP_CHARS,
    MAX_STOPS,
    MAX_TOOLS,
)

Body = dict[str, Any]
_Check = Callable[[Any], bool]


class ApiError(Exception):
    """A refusal in the form that OpenAI's clients understand.

    Args:
        status: the HTTP status.
        message: one sentence.
        param: the field that is wrong, where one is.
        code: a stable word.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> Body:
        """Return the JSON that the client gets."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True)
class _Field:
    """One field: what it must be, said in words, and whether the handler gets it."""

    wanted: str
    check: _Check
    passed: bool = True


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to embed, and whether the vectors travel as base64 of little-endian 32-bit floats."""

    texts: tuple[str, ...]
    base64: bool


def _number(low: float, high: float) -> _Field:
    def check(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and low <= value <= high

    return _Field(f"a number from {low:g} to {high:g}", check)


def _integer(low: int, high: int) -> _Field:
    return _Field(
        f"an integer from {low} to {high}", lambda value: type(value) is int and low <= value <= high
    )


def _only(*values: Any) -> _Field:
    words = " or ".join("absent" if value is None else repr(value) for value in (None, *values))
    return _Field(
        words, lambda value: any(type(value) is type(each) and value == each for each in values), passed=False
    )


def _is_stop(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return 0 < len(texts) <= MAX_STOPS and all(
        isinstance(t, str) and 0 < len(t) <= MAX_STOP_CHARS for t in texts
    )


def _is_bias(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= MAX_BIASES
        and all(key.isascii() and key.isdecimal() and len(key) < 10 for key in value)
        and all(type(bias) in (int, float) and -100 <= bias <= 100 for bias in value.values())
    )


def _is_content(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return True
    return isinstance(value, list) and all(
        isinstance(part, dict)
        and part.keys() == {"type", "text"}
        and part["type"] == "text"
        and isinstance(part["text"], str)
        for part in value
    )


def _is_call(value: Any) -> bool:
    function = value.get("function") if isinstance(value, dict) else None
    return (
        isinstance(function, dict)
        and value.keys() <= {"id", "type", "function"}
        and function.keys() == {"name", "arguments"}
        and all(isinstance(text, str) for text in function.values())
    )


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {
        "role",
        "content",
        "name",
        "tool_calls",
        "tool_call_id",
    }:
        return False
    calls = value.get("tool_calls")
    return (
        value.get("role") in ("system", "developer", "user", "assistant", "tool")
        and _is_content(value.get("content"))
        and all(isinstance(value.get(key, ""), str) for key in ("name", "tool_call_id"))
        and (calls is None or (isinstance(calls, list) and all(_is_call(call) for call in calls)))
    )


_MESSAGES: Final = _Field(
    f"1 to {MAX_MESSAGES} messages with a role and text as content",
    lambda value: (
        isinstance(value, list)
        and 0 < len(value) <= MAX_MESSAGES
        and all(_is_message(each) for each in value)
    ),
)
_TOOLS: Final = _Field(
    f"at most {MAX_TOOLS} tools of type 'function'",
    lambda value: (
        isinstance(value, list)
        and len(value) <= MAX_TOOLS
        and all(
            isinstance(tool, dict)
            and tool.keys() == {"type", "function"}
            and tool["type"] == "function"
            and isinstance(tool["function"], dict)
            for tool in value
        )
    ),
)
_TEXT: Final = _Field("a text", lambda value: isinstance(value, str))
_IGNORED_TEXT: Final = _Field("a text", lambda value: isinstance(value, str), passed=False)
_IGNORED_OBJECT: Final = _Field("an object", lambda value: isinstance(value, dict), passed=False)
_TOKENS: Final = _Field(
    f"an integer from 1 to {MAX_NEW_TOKENS}",
    lambda value: type(value) is int and 1 <= value <= MAX_NEW_TOKENS,
    passed=False,
)

_COMMON: Final = {
    "stream": _Field("true or false", lambda value: isinstance(value, bool)),
    "max_tokens": _TOKENS,
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "seed": _integer(-(2**63), 2**63 - 1),
    "stop": _Field(f"a text or up to {MAX_STOPS} of at most {MAX_STOP_CHARS} characters", _is_stop),
    "frequency_penalty": _number(-0.9, 2),
    "n": _only(1),
    "presence_penalty": _only(0, 0.0),
    "user": _IGNORED_TEXT,
    "stream_options": _IGNORED_OBJECT,
}
CHAT_FIELDS: Final[Mapping[str, _Field]] = MappingProxyType(
    {
        **_COMMON,
        "messages": _MESSAGES,
        "max_completion_tokens": _TOKENS,
        "logit_bias": _Field(f"up to {MAX_BIASES} token numbers with a bias from -100 to 100", _is_bias),
        "tools": _TOOLS,
        "logprobs": _only(False),
    }
)
COMPLETION_FIELDS: Final[Mapping[str, _Field]] = MappingProxyType(
    {**_COMMON, "prompt": _TEXT, "suffix": _TEXT, "echo": _only(False), "best_of": _only(1)}
)
EMBEDDING_FIELDS: Final[Mapping[str, _Field]] = MappingProxyType(
    {
        "input": _Field(
            f"a text or 1 to {MAX_INPUTS} texts, none of them empty",
            lambda value: (
                (isinstance(value, str) and bool(value))
                or (
                    isinstance(value, list)
                    and 0 < len(value) <= MAX_INPUTS
                    and all(isinstance(text, str) and text for text in value)
                )
            ),
        ),
        "encoding_format": _Field("'float' or 'base64'", lambda value: value in ("float", "base64")),
        "user": _IGNORED_TEXT,
    }
)


def check_chat(body: Any, *, model: str) -> Body:
    """Return the checked body of a chat request; ``max_tokens`` is there if the borrower named a number.

    Raises:
        ApiError: 400 for a field, 404 for another model than the lease's.
    """
    checked = _checked(body, CHAT_FIELDS, model=model, required="messages")
    _lift_limit(body, checked)
    return checked


def check_completion(body: Any, *, model: str) -> Body:
    """Return the checked body of a completion request; raises as ``check_chat``."""
    checked = _checked(body, COMPLETION_FIELDS, model=model, required="prompt")
    _lift_limit(body, checked)
    return checked


def check_embedding(body: Any, *, model: str) -> EmbeddingRequest:
    """Return the checked embedding request; raises as ``check_chat``."""
    checked = _checked(body, EMBEDDING_FIELDS, model=model, required="input")
    texts = checked["input"]
    return EmbeddingRequest(
        texts=(texts,) if isinstance(texts, str) else tuple(texts),
        base64=checked.get("encoding_format") == "base64",
    )


def fit_answer(body: Body, *, prompt_tokens: int, context_tokens: int) -> Body:
    """Return a checked body whose ``max_tokens`` fits into the model's context behind its prompt.

    Raises:
        ApiError: prompt and answer together are longer than the context.
    """
    room = context_tokens - prompt_tokens
    wanted = body.get("max_tokens")
    if room < 1 or (wanted is not None and wanted > room):
        raise ApiError(
            400,
            f"the prompt has {prompt_tokens} tokens and the model's context {context_tokens}: "
            f"{max(room, 0)} are left for the answer.",
            param="messages" if "messages" in body else "prompt",
            code="context_length_exceeded",
        )
    return {**body, "max_tokens": min(wanted or DEFAULT_NEW_TOKENS, room)}


def _checked(body: Any, fields: Mapping[str, _Field], *, model: str, required: str) -> Body:
    if not isinstance(body, dict):
        raise ApiError(400, "the body of a request is a JSON object.")
    asked = body.get("model")
    if not isinstance(asked, str):
        raise ApiError(400, "the field 'model' is missing.", param="model")
    if asked != model:
        raise ApiError(
            404, f"this endpoint serves only the model {model!r}.", param="model", code="model_not_found"
        )
    checked: Body = {}
    for name, value in body.items():
        if name == "model" or (value is None and name in fields):
            continue
        field = fields.get(name)
        if field is None:
            raise ApiError(
                400,
                f"the field {name[:64]!r} is not taken by this endpoint.",
                param=name[:64],
                code="unknown_field",
            )
        if not field.check(value):
            raise ApiError(400, f"the field {name!r} must be {field.wanted}.", param=name)
        if field.passed:
            checked[name] = value
    if required not in checked:
        raise ApiError(400, f"the field {required!r} is missing.", param=required)
    return checked


def _lift_limit(body: Body, checked: Body) -> None:
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is not None:
        checked["max_tokens"] = limit
