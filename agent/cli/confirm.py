"""The severest degree of a question: the name of what is lost has to be typed, or given by an option."""

from __future__ import annotations

import sys

import click

from agent.errors import RequestError


def confirm_by_name(loss: str, name: str, given: str | None) -> None:
    """Return if the person, or ``--confirm``, has named it.

    Raises:
        RequestError: another name, or nobody there to ask.
    """
    if given is None:
        if not sys.stdin.isatty():
            raise RequestError(f"{loss} Nobody is there to confirm it.", fix=f"add --confirm {name}")
        given = click.prompt(f"{loss}\nType {name} to go on", err=True, default="", show_default=False)
    if given != name:
        raise RequestError(f"{name} was not confirmed; nothing was changed.", fix=f"add --confirm {name}")
