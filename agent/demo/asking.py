"""Questions to an OpenAI-compatible endpoint, asked with the standard library alone."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from agent.demo.baseline import PROMPT, SENTENCES, TOKENS
from agent.errors import NodeError

ANSWER_DEADLINE_S = 120.0


def embeddings(endpoint: str, api_key: str, model: str) -> list[list[float]]:
    """Return the embeddings of the ten sentences."""
    answer = _post(endpoint, api_key, "/embeddings", {"model": model, "input": list(SENTENCES)})
    return [one["embedding"] for one in sorted(answer["data"], key=lambda one: int(one["index"]))]


def completion(endpoint: str, api_key: str, model: str) -> str:
    """Return the greedy continuation of the prompt."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}
    return str(_post(endpoint, api_key, "/completions", body)["choices"][0]["text"])


def same_embeddings(one: list[list[float]], other: list[list[float]], tolerance: float = 1e-5) -> bool:
    """Whether two answers are the same vectors, to the noise of summing in another order."""
    return len(one) == len(other) and all(
        len(a) == len(b) and all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))
        for a, b in zip(one, other, strict=True)
    )


def _post(endpoint: str, api_key: str, route: str, body: dict[str, Any]) -> Any:
    url = urlsplit(endpoint)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=ANSWER_DEADLINE_S)
    try:
        headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        connection.request("POST", url.path + route, json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise NodeError(f"the endpoint answered {answer.status}: {text[:300].decode(errors='replace')}")
        return json.loads(text)
    finally:
        connection.close()
