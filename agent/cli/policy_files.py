"""Policy files for the commands: read within bounds, with a donor's overlay where one is given."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from federation.policy.cases import Case
    from federation.policy.policy import Policy
    from federation.policy.problems import Problem

STDIN = "-"
file_type = click.Path(dir_okay=False, allow_dash=True)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a file, or a policy under an overlay, says.

    Args:
        policy: what decisions read.
        cases: the tests of the file that was asked for.
        kind: ``consortium`` or ``overlay``.
        donor: whose overlay it is; empty: nobody's.
    """

    policy: Policy
    cases: tuple[Case, ...]
    kind: str
    donor: str = ""


def consortium_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--consortium``: the policy that overlays among the files restrict."""
    return click.option(
        "--consortium", type=file_type, help="The consortium's policy, that an overlay restricts."
    )(command)


def overlay_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--overlay``: a donor's, under which the policy is looked at."""
    return click.option("--overlay", type=file_type, help="A donor's overlay that restricts it.")(command)


def read_bytes(file: str) -> bytes:
    """Return a file's bytes; one that is too large is cut just above the bound, which then is a problem.

    Raises:
        RequestError: it cannot be read.
    """
    from federation.limits import MAX_POLICY_BYTES

    try:
        if file == STDIN:
            return sys.stdin.buffer.read(MAX_POLICY_BYTES + 1)
        with Path(file).open("rb") as opened:
            return opened.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise RequestError(f"{file} cannot be read: {error.strerror or error}.") from error


def load(file: str, consortium: str | None = None) -> Loaded:
    """Return what a file says; an overlay under its consortium's policy.

    Raises:
        PolicyProblemsError: one of the two has problems.
        RequestError: it cannot be read, or it is an overlay and no policy was given.
    """
    from federation.policy.file import kind_of, read_policy
    from federation.policy.overlay import read_overlay, restrict
    from federation.policy.tree import read_tree

    data, name = read_bytes(file), shown_name(file)
    if kind_of(read_tree(data, name)) != "overlay":
        read = read_policy(data, name)
        return Loaded(read.policy, read.cases, "consortium")
    overlay = read_overlay(data, name)
    if consortium is None:
        raise RequestError(
            f"{name} is an overlay, and restricts a policy that was not given.",
            fix="add --consortium FILE",
        )
    restricted = restrict(load(consortium).policy, overlay)
    return Loaded(restricted.policy, restricted.cases, "overlay", overlay.site)


def load_both(file: str, overlay: str | None) -> Loaded:
    """Return a consortium's policy, under an overlay if one is given.

    Raises:
        PolicyProblemsError: one of the two has problems.
        RequestError: one cannot be read.
    """
    return load(file) if overlay is None else load(overlay, file)


def shown_name(file: str) -> str:
    """Return a file's name for people."""
    return "stdin" if file == STDIN else file


def say_problems(problems: tuple[Problem, ...]) -> None:
    """Say on stderr what is wrong with a file, with carets."""
    from federation.policy.problems import render

    sources = {one.where.file: "" for one in problems}
    for name in sources:
        if Path(name).is_file():
            sources[name] = read_bytes(name).decode(errors="replace")
    for name, source in sources.items():
        click.echo(render([one for one in problems if one.where.file == name], source, "full"), err=True)
