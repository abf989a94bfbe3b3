"""Where words go: data to stdout, talk to stderr; nothing of it can move a terminal's cursor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import click

from agent.error_table import row_of
from agent.text import printable
from federation.errors import FederationError
from pyrdma.errors import Error

_MAX_LINE_BYTES: Final = 4096


def talk(text: str) -> None:
    """Say something to the person, on stderr."""
    click.echo(printable(text, _MAX_LINE_BYTES), err=True)


def data(text: str) -> None:
    """Print one line of the result, on stdout."""
    click.echo(printable(text, _MAX_LINE_BYTES))


def data_json(document: dict[str, Any]) -> None:
    """Print the result as one JSON object."""
    click.echo(json.dumps(document, indent=2, sort_keys=True))


def say_error(error: Error | FederationError) -> None:
    """Say what went wrong, whose side it is on, and what to do."""
    talk(f"error: {error.message}")
    talk(f"  side: {row_of(error).side}")
    if error.fix:
        talk(f"  fix:  {error.fix}")


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns on stdout."""
    safe = [[printable(cell, _MAX_LINE_BYTES) for cell in row] for row in (titles, *rows)]
    widths = [max(len(row[column]) for row in safe) for column in range(len(titles))]
    for row in safe:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
