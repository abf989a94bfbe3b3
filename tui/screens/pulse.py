"""Pulse: the consortium at a glance, a line per institution, and below it the nodes of our own."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from tui import pulse
from tui.pulse_pages import node_page, site_page
from tui.rows import Page, filtered
from tui.screens.view import View
from tui.table import RowTable, one_line


class PulseScreen(View):
    """The view that opens first."""

    NAME = "pulse"
    EXPLAINED: ClassVar[tuple[tuple[str, str], ...]] = (
        ("*", "our own institution; this node's name is bold"),
        ("LENT", "devices that the institution donates; of these USED and IDLE"),
        ("IMAGES", "models whose weights are in memory there"),
        ("GB/s", "what it sends of weights now"),
        ("TREND", "GB/s of the last samples; all rows share one scale"),
        ("AGE", "since its gateway, or the node, was last heard of"),
        ("stale", "was ready, but last heard of over a minute ago"),
    )

    def compose_middle(self) -> ComposeResult:
        """Lay out the header, both tables, and the words for where there are none."""
        yield Static(id="header", markup=False)
        yield RowTable(pulse.SITE_COLUMNS, id="sites")
        yield RowTable(pulse.NODE_COLUMNS, id="nodes")
        yield Static(id="empty", markup=False)

    def draw(self) -> None:
        """Bring header and tables up to date."""
        picture, wanted = self.picture, self.filter_text
        self.query_one("#header", Static).update(Text("\n").join(map(one_line, pulse.header(picture))))
        empty = pulse.empty_words(picture)
        self.query_one("#empty", Static).update("\n".join(empty))
        self.query_one("#empty").display = bool(empty)
        sites, nodes = self.query_one("#sites", RowTable), self.query_one("#nodes", RowTable)
        sites.display = bool(picture.answer.federation.sites)
        nodes.display = bool(picture.answer.federation.nodes)
        sites.show(
            lambda widths: filtered(pulse.site_rows(picture, trend_cells=pulse.trend_cells(widths)), wanted)
        )
        nodes.show(lambda _: filtered(pulse.node_rows(picture), wanted))
        every = len(pulse.sites_by_key(picture)) + len(pulse.nodes_by_key(picture))
        self.tell_found(sites.row_count + nodes.row_count, every)

    def page_of(self, table_id: str, key: str) -> Page | None:
        """Return everything known about an institution or a node."""
        return (site_page if table_id == "sites" else node_page)(self.picture, key)
