"""Problems of one file as they are found: with a value, with a key, with a word that names nothing."""

from __future__ import annotations

from collections.abc import Iterable

from federation.policy.problems import Problem, closest
from federation.policy.tree import Path, Tree


class Findings:
    """Collects problems of one file.

    Args:
        tree: the file's places.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.problems: list[Problem] = []

    def value(self, path: Path, message: str, expected: str = "", did_you_mean: str = "") -> None:
        """Add a problem with a value."""
        span = self.tree.value(path)
        self.problems.append(Problem(span.where, message, expected, did_you_mean, span.end_column))

    def key(self, path: Path, message: str, expected: str = "", did_you_mean: str = "") -> None:
        """Add a problem with a key, or with what is missing below it."""
        span = self.tree.key(path)
        self.problems.append(Problem(span.where, message, expected, did_you_mean, span.end_column))

    def known(self, path: Path, word: str, among: Iterable[str], what: str) -> None:
        """Add a problem where a word names nothing."""
        names = sorted(among)
        if word not in names:
            listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            self.value(path, f"there is no {what} {word!r}", f"one of {listed}", closest(word, names))
