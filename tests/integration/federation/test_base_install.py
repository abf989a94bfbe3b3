"""A borrower's machine has neither torch nor UCX: the base of the agent suffices for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MISSING = ("torch", "ucxx", "libucxx", "numpy", "transformers", "uvicorn", "fastapi", "safetensors")


def test_a_node_without_torch_and_ucx_joins_borrows_and_stops(
    federation: Any, make_model: Callable[..., Path], until: Callable[..., Any], tmp_path: Path
) -> None:
    """Every command of a borrower runs where importing any of the engine's packages fails."""
    absent = tmp_path / "absent"
    absent.mkdir()
    for name in MISSING:
        (absent / f"{name}.py").write_text(f"raise ImportError('{name} is not installed here')\n")
    bare = os.environ | {"PYTHONPATH": str(absent)}
    refused = subprocess.run(
        [sys.executable, "-c", "import torch"], env=bare, capture_output=True, check=False
    )
    assert b"torch is not installed here" in refused.stderr

    def agent(*words: str, stdin: str = "") -> str:
        command = [sys.executable, "-m", "agent", *words, *laptop.directories]
        done = subprocess.run(
            command, env=bare, input=stdin, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    north = federation.found(federation.node("n1", "north"))
    north.publish(make_model("m"), "m")
    laptop = federation.node("laptop", "north")
    invite = north.cli("invite", "create", "--node", "laptop").stdout
    agent("join", "--invite-file", "-", "--address", f"127.0.0.1:{laptop.port}", stdin=invite)
    command = [sys.executable, "-m", "agent", "serve", "--no-donate", *laptop.directories]
    with laptop.log.open("ab") as log:
        laptop.process = subprocess.Popen(command, env=bare, stdout=log, stderr=log, start_new_session=True)
    until(lambda: laptop.paths.admin_socket.exists(), "the borrower's agent is up")

    said = agent("run", "m")
    assert "runs on   north/n1" in said
    lease = next(line.split()[1] for line in said.splitlines() if line.startswith("lease "))
    assert lease in agent("leases")
    assert "this node donates nothing" in agent("status")
    assert "laptop" in agent("nodes")
    assert "has ended: stopped by request" in agent("stop", lease)
