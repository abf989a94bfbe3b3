"""A command's steps, one line each on stderr: how it went, the step's id, and what there is to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agent.cli.output import talk
from agent.errors import Reported


class Step:
    """What one line says: ``word`` is ``OK``, ``WARN`` or ``FAIL``."""

    def __init__(self) -> None:
        self.word, self.text = "OK", ""


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Show how the body went; an error is shown as FAIL and raised."""
    one = Step()
    try:
        yield one
    except Reported as error:
        talk(f"FAIL  {name:10}  {error.message}")
        raise
    talk(f"{one.word:4}  {name:10}  {one.text}".rstrip())
