"""Tables as data: cells, rows, columns that fit a width, and the filter; no widget and no I/O in it.

Rules: every text of a cell is made safe to print when the cell is made, so that no row can move a cursor or
carry markup; keys of rows are distinct even when a peer names two things alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from agent.text import printable
from tui.limits import MAX_CELL_BYTES, MAX_LINE_BYTES, MAX_ROWS_SHOWN
from tui.look import Look, Tone

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cell:
    """A text and what it says by its colour."""

    text: str
    tone: Tone = Tone.PLAIN


def cell(text: str | int, tone: Tone = Tone.PLAIN) -> Cell:
    """Return a cell with a text from outside made safe."""
    return Cell(printable(str(text), MAX_CELL_BYTES), tone)


def sentence(text: str, tone: Tone = Tone.PLAIN) -> Cell:
    """Return a longer text from outside made safe."""
    return Cell(printable(text, MAX_LINE_BYTES), tone)


def state_cell(look: Look) -> Cell:
    """Return a state's cell."""
    return Cell(str(look), look.tone)


Line = tuple[Cell, ...]
"""Cells that stand beside each other without a gap."""


@dataclass(frozen=True, slots=True)
class Page:
    """Everything known about one row: a title and labelled lines; an empty label continues the last one."""

    title: Cell
    lines: tuple[tuple[str, Line], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; ``words`` are found by the filter beside what the cells show."""

    key: str
    cells: tuple[Cell, ...]
    words: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ``width`` cells, its gap included, and ``grow`` more where there is room.

    One of width 0 is shown only where there is room.
    """

    key: str
    title: str
    width: int
    grow: int = 0
    right: bool = False


def fit(columns: Sequence[Column], width: int) -> tuple[int, ...]:
    """Return the width of each column: the first that can grow get what is left over."""
    left = max(0, width - sum(column.width for column in columns))
    widths = []
    for column in columns:
        more = min(left, column.grow)
        left -= more
        widths.append(column.width + more)
    return tuple(widths)


def keyed(values: Iterable[T], name_of: Callable[[T], str]) -> dict[str, T]:
    """Return at most so many values by a printable name, in their order; equal names get a number."""
    found: dict[str, T] = {}
    for value in islice(values, MAX_ROWS_SHOWN):
        name = key = printable(name_of(value), MAX_CELL_BYTES)
        count = 1
        while key in found:
            count += 1
            key = f"{name}\n{count}"
        found[key] = value
    return found


def filtered(rows: Sequence[Row], text: str) -> tuple[Row, ...]:
    """Return the rows that hold every word of ``text`` and none that stands behind a ``!``."""
    terms = text.casefold().split()
    wanted = [term for term in terms if not term.startswith("!")]
    unwanted = [term[1:] for term in terms if len(term) > 1 and term.startswith("!")]

    def fits(row: Row) -> bool:
        words = " ".join((*(each.text for each in row.cells), row.words)).casefold()
        return all(term in words for term in wanted) and not any(term in words for term in unwanted)

    return tuple(row for row in rows if fits(row))
