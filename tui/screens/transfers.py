"""Transfers: what moves and what moved, and below the table the sources of the row under the cursor."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from tui import transfers
from tui.rows import Page, filtered
from tui.screens.view import View
from tui.table import RowTable, one_line


class TransfersScreen(View):
    """Publications and pulls since the agent started."""

    NAME = "transfers"
    EXPLAINED: ClassVar[tuple[tuple[str, str], ...]] = (
        ("KIND", "pull: from other nodes; publish: from a folder"),
        ("RATE", "of the last seconds while it runs, its average afterwards"),
        ("LANE", "the way of the bytes: tcp, rc (RDMA), cuda_ipc"),
        ("FROM", "sources, or why it failed; only on a wide terminal"),
        ("below", "the row under the cursor: how far, why it ended, a line per source"),
    )

    def compose_middle(self) -> ComposeResult:
        """Lay out the table, what stands below it, and the words for where there is none."""
        yield RowTable(transfers.COLUMNS, id="transfers")
        yield Static(id="sources", markup=False)
        yield Static(id="empty", markup=False)

    def draw(self) -> None:
        """Bring the table and what stands below it up to date."""
        picture, wanted = self.picture, self.filter_text
        there = bool(picture.answer.transfers)
        table = self.query_one(RowTable)
        self.query_one("#empty", Static).update("\n".join(transfers.EMPTY))
        self.query_one("#empty").display = not there
        table.display = self.query_one("#sources").display = there
        table.show(
            lambda widths: filtered(
                transfers.transfer_rows(picture, bar_cells=transfers.bar_cells(widths)), wanted
            )
        )
        self.tell_found(table.row_count, len(transfers.transfers_by_key(picture)))
        lines = transfers.transfer_lines(picture, table.cursor_key)
        self.query_one("#sources", Static).update(Text("\n").join(map(one_line, lines)))

    def page_of(self, table_id: str, key: str) -> Page | None:  # noqa: ARG002 - it has one table
        """Return everything known about a transfer."""
        return transfers.transfer_page(self.picture, key)
