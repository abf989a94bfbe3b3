"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from agent.paths import Paths, resolve_paths

R = TypeVar("R")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


def paths_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add ``--state-dir`` and ``--run-dir``; the command gets both resolved as ``paths``."""

    # Whether they can be read is said by whoever tries, with whose they are.
    @click.option(
        "--state-dir",
        type=click.Path(path_type=Path, readable=False),
        help="Where the agent keeps its state.",
    )
    @click.option(
        "--run-dir",
        type=click.Path(path_type=Path, readable=False),
        envvar="PYRDMA_AGENT_RUN_DIR",
        show_envvar=True,
        help="Where the agent's sockets are.",
    )
    @wraps(command)
    def with_paths(*args: Any, state_dir: Path | None, run_dir: Path | None, **kwargs: Any) -> R:
        paths = resolve_paths(state_dir, run_dir, environ=os.environ, is_root=os.geteuid() == 0)
        return command(*args, paths=paths, **kwargs)

    return with_paths


def timeout_option(default_s: float) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Add ``--timeout``."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0.1),
        default=default_s,
        show_default=True,
        metavar="SECONDS",
        help="Give up after this time (exit code 5).",
    )


__all__ = ["Paths", "json_option", "paths_options", "timeout_option"]
