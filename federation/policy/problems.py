"""What is wrong with a policy file: where, what was expected, what was probably meant.

Rules: every problem has a place; all problems of a file are told at once, in the order of the file, up to
``MAX_POLICY_PROBLEMS``. What is repeated of the file is made printable: files come from elsewhere.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from federation.errors import PolicyFileError
from federation.limits import MAX_POLICY_PROBLEMS
from federation.policy.policy import Where

OutputFormat = Literal["full", "concise", "github"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Args:
        where: the first character of what is wrong.
        message: one sentence without its full stop.
        expected: what would be right; empty where the sentence says it.
        did_you_mean: the word that was probably meant, or empty.
        end_column: the column after its last character, on the same line.
    """

    where: Where
    message: str
    expected: str = ""
    did_you_mean: str = ""
    end_column: int = 0

    def __str__(self) -> str:
        hint = f" (did you mean {shown(self.did_you_mean)}?)" if self.did_you_mean else ""
        return f"{self.where}: {shown(self.message)}{hint}"


class PolicyProblemsError(PolicyFileError):
    """A file with problems; ``problems`` has all of them.

    Args:
        problems: at least one.
    """

    code = PolicyFileError.code

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=_order))[:MAX_POLICY_PROBLEMS]
        first, count = self.problems[0], len(self.problems)
        more = f" (and {count - 1} more)" if count > 1 else ""
        super().__init__(f"{first}{more}.", fix=first.expected and f"expected: {first.expected}")


def closest(word: str, candidates: Iterable[str]) -> str:
    """Return the candidate that was probably meant by a word, or nothing."""
    known = list(candidates)
    by_fold = {each.casefold().replace("_", "-"): each for each in known}
    folded = word.casefold().replace("_", "-").replace(" ", "-")
    found = difflib.get_close_matches(folded, by_fold, n=1, cutoff=0.6)
    return by_fold[found[0]] if found and by_fold[found[0]] != word else ""


def shown(text: str, limit: int = 300) -> str:
    """Return text on one line, cut, with whatever could move a terminal's cursor escaped."""
    safe = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:limit])
    return safe if len(text) <= limit else safe + "..."


def render(problems: Sequence[Problem], source: str, output_format: OutputFormat) -> str:
    """Return the problems as text: with carets, one a line, or as annotations of GitHub's.

    Args:
        problems: of one file.
        source: the file's text, for the carets.
        output_format: ``full``, ``concise`` or ``github``.
    """
    if output_format == "concise":
        return "\n".join(str(problem) for problem in problems)
    if output_format == "github":
        return "\n".join(_annotation(problem) for problem in problems)
    lines = source.splitlines()
    return "\n\n".join(_with_caret(problem, lines) for problem in problems)


def documents(problems: Iterable[Problem]) -> list[dict[str, object]]:
    """Return the problems as JSON objects."""
    return [
        {
            "file": one.where.file,
            "line": one.where.line,
            "column": one.where.column,
            "end_column": max(one.end_column, one.where.column + 1),
            "message": shown(one.message),
            "expected": one.expected,
            "did_you_mean": one.did_you_mean,
        }
        for one in problems
    ]


def _order(problem: Problem) -> tuple[str, int, int, str]:
    return problem.where.file, problem.where.line, problem.where.column, problem.message


def _with_caret(problem: Problem, lines: Sequence[str]) -> str:
    at, width = problem.where, len(str(problem.where.line))
    line = lines[at.line - 1] if at.line <= len(lines) else ""
    before, wrong = line[: at.column - 1], line[at.column - 1 : max(problem.end_column - 1, at.column)]
    carets = "^" * max(_columns(shown(wrong)), 1)
    hint = f" did you mean {shown(problem.did_you_mean)}?" if problem.did_you_mean else ""
    text = [
        f"error: {shown(problem.message)}",
        f"{' ' * width}--> {at}",
        f"{' ' * width} |",
        f"{at.line} | {shown(line)}",
        f"{' ' * width} | {' ' * _columns(shown(before))}{carets}{hint}",
    ]
    if problem.expected:
        text.append(f"{' ' * width} = expected: {shown(problem.expected)}")
    return "\n".join(text)


def _columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(bool(unicodedata.combining(char)) for char in text)


def _annotation(problem: Problem) -> str:
    hint = f"; did you mean {problem.did_you_mean}?" if problem.did_you_mean else ""
    expected = f"; expected: {problem.expected}" if problem.expected else ""
    at = problem.where
    end = max(problem.end_column, at.column + 1)
    place = f"file={_escaped(at.file)},line={at.line},col={at.column},endColumn={end}"
    return f"::error {place},title=policy::{_data(shown(problem.message + hint + expected))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escaped(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
