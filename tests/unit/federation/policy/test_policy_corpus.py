"""Malformed policies: each is refused with the place of what is wrong, never with a traceback.

The first line of each file says the first problem that it must give: ``# expect: LINE:COLUMN: MESSAGE``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.policy.file import read_policy
from federation.policy.overlay import read_overlay, restrict
from federation.policy.problems import PolicyProblemsError, documents, render

CORPUS = Path(__file__).parent / "corpus"
POLICIES = sorted(CORPUS.glob("*.yaml"))
OVERLAYS = sorted((CORPUS / "overlays").glob("*.yaml"))


def expected(path: Path) -> str:
    first = path.read_bytes().split(b"\n", 1)[0].decode()
    assert first.startswith("# expect: ")
    return f"{path.name}:{first.removeprefix('# expect: ')}"


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_malformed_policy_gives_its_problem(path: Path) -> None:
    """The first problem is the one that the file's first line says."""
    with pytest.raises(PolicyProblemsError) as caught:
        read_policy(path.read_bytes(), path.name)
    assert str(caught.value.problems[0]) == expected(path)


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_a_malformed_overlay_gives_its_problem(path: Path) -> None:
    """What loosens the consortium's policy, or names nothing of it, is told at its place."""
    policy = read_policy((CORPUS / "overlays" / "consortium.base").read_bytes(), "consortium.yaml").policy
    with pytest.raises(PolicyProblemsError) as caught:
        restrict(policy, read_overlay(path.read_bytes(), path.name))
    assert str(caught.value.problems[0]) == expected(path)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_every_problem_can_be_shown(path: Path) -> None:
    """Each format has a line of printable text for each problem, with a place inside the file."""
    data = path.read_bytes()
    with pytest.raises(PolicyProblemsError) as caught:
        read_policy(data, path.name)
    problems, source = caught.value.problems, data.decode(errors="replace")
    lines = source.split("\n")
    for problem in problems:
        assert 1 <= problem.where.line <= len(lines)
        assert 1 <= problem.where.column <= len(lines[problem.where.line - 1]) + 1
    for output_format in ("concise", "github"):
        shown = render(problems, source, output_format).split("\n")
        assert len(shown) == len(problems)
        assert all(line.isprintable() for line in shown)
    full = render(problems, source, "full").split("\n")
    assert all(line.isprintable() for line in full)
    assert sum("^" in line for line in full) >= len(problems)
    assert len(documents(problems)) == len(problems)


def test_the_corpus_is_large() -> None:
    """At least a hundred files."""
    assert len(POLICIES) >= 100
