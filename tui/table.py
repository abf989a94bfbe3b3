"""A table that is told what to show and changes only what differs; the cursor stays on its row.

Rules: cells are rich ``Text``, never a string, since the table would read markup in one. While the same rows
stand there in the same order, only cells that changed are written; else the rows are written anew and the
cursor goes back to the row it was on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from tui.rows import Cell, Column, Row, fit

RowsFor = Callable[[tuple[int, ...]], Sequence[Row]]
"""Gives the rows for the widths of the columns."""

_SCROLLBAR_CELLS = 1


class RowTable(DataTable[Text]):
    """A table of ``tui.rows`` in columns that follow the width of the terminal."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("home", "scroll_top", "First row", show=False),
        Binding("end", "scroll_bottom", "Last row", show=False),
    ]

    def __init__(self, columns: Sequence[Column], *, id: str) -> None:  # noqa: A002 - textual's name for it
        super().__init__(id=id, cursor_type="row", cell_padding=0)
        self._columns_wanted = tuple(columns)
        self._widths: tuple[int, ...] = ()
        self._rows: tuple[Row, ...] = ()
        self._rows_for: RowsFor = lambda _: ()

    @property
    def cursor_key(self) -> str | None:
        """The key of the row under the cursor, if there is one."""
        return self._rows[self.cursor_row].key if self.cursor_row < len(self._rows) else None

    def show(self, rows_for: RowsFor) -> None:
        """Show these rows from now on."""
        self._rows_for = rows_for
        self._draw()

    def on_mount(self) -> None:
        """Show a cursor only where keys go."""
        self.show_cursor = self.has_focus

    def on_resize(self, _: events.Resize) -> None:
        """Fit the columns to the new width."""
        self._draw()

    def on_focus(self) -> None:
        """Show the cursor."""
        self.show_cursor = True

    def on_blur(self) -> None:
        """Hide the cursor."""
        self.show_cursor = False

    def action_cursor_down(self) -> None:
        """Go down, from the last row into the next table."""
        if self.cursor_row < self.row_count - 1 or not self._enter(1):
            super().action_cursor_down()

    def action_cursor_up(self) -> None:
        """Go up, from the first row into the table above."""
        if self.cursor_row > 0 or not self._enter(-1):
            super().action_cursor_up()

    def _enter(self, step: int) -> bool:
        tables = [table for table in self.screen.query(RowTable) if table.display and table.row_count]
        at = tables.index(self) + step if self in tables else -1
        if not 0 <= at < len(tables):
            return False
        tables[at].focus()
        tables[at].move_cursor(row=0 if step > 0 else tables[at].row_count - 1)
        return True

    def _draw(self) -> None:
        if not self.container_size.width:
            return  # not laid out yet: its first resize draws
        widths = fit(self._columns_wanted, self.container_size.width - _SCROLLBAR_CELLS)
        rows, before = tuple(self._rows_for(widths)), self._rows
        key, at = self.cursor_key, self.cursor_row
        self._rows = rows
        if widths != self._widths:
            self._widths = widths
            self.clear(columns=True)
            for column, width in zip(self._columns_wanted, widths, strict=True):
                if width:
                    title = paint(Cell(column.title), width, right=column.right)
                    self.add_column(title, width=width, key=column.key)
        elif [row.key for row in rows] == [row.key for row in before]:
            self._update(before, rows)
            return
        else:
            self.clear()
        for row in rows:
            self.add_row(*(text for _, text in self._cells(row)), key=row.key)
        if rows:
            keys = [row.key for row in rows]
            self.move_cursor(row=keys.index(key) if key in keys else min(at, len(rows) - 1))

    def _update(self, before: tuple[Row, ...], rows: tuple[Row, ...]) -> None:
        for old, new in zip(before, rows, strict=True):
            if old.cells == new.cells:
                continue
            were = dict(zip((column.key for column in self._columns_wanted), old.cells, strict=True))
            are = dict(zip((column.key for column in self._columns_wanted), new.cells, strict=True))
            for key, text in self._cells(new):
                if were[key] != are[key]:
                    self.update_cell(new.key, key, text)

    def _cells(self, row: Row) -> list[tuple[str, Text]]:
        shown = zip(self._columns_wanted, self._widths, row.cells, strict=True)
        return [(column.key, paint(one, width, right=column.right)) for column, width, one in shown if width]


def paint(cell: Cell, width: int, *, right: bool = False) -> Text:
    """Return a cell as text of at most ``width`` cells, the last one a gap."""
    text = Text(cell.text, style=cell.tone.value, no_wrap=True, end="")
    text.truncate(width - 1, overflow="ellipsis")
    if right:
        text.pad_left(width - 1 - text.cell_len)
    return text


def line_text(line: Sequence[Cell]) -> Text:
    """Return cells beside each other as one text that wraps."""
    return Text.assemble(*((cell.text, cell.tone.value) for cell in line))


def one_line(line: Sequence[Cell]) -> Text:
    """Return cells beside each other as one text that is cut where the terminal ends."""
    text = line_text(line)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
