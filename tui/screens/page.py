"""A page over a screen, closed with esc: the help of a view, or everything known about a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.table import Table
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.look import Tone
from tui.rows import Cell, Page
from tui.table import line_text

_GONE = (("", (Cell("It is no longer in the list; this is the last that was known.", Tone.WARN),)),)


class PageScreen(ModalScreen[None]):
    """Shows a page, and reads it again whenever there is something new.

    Args:
        read: returns the page as it is now; ``None`` when what it told of is gone.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,question_mark", "dismiss", "Back", key_display="esc"),
        Binding("q", "app.quit", "Quit"),
    ]

    def __init__(self, read: Callable[[], Page | None]) -> None:
        super().__init__()
        self._read = read
        self._last = Page(Cell(""), ())

    def compose(self) -> ComposeResult:
        """Lay out a title, a body that scrolls, and how to leave."""
        with VerticalScroll(id="page"):
            yield Static(id="page-body", markup=False)

    def on_mount(self) -> None:
        """Show the page."""
        self.query_one("#page").border_subtitle = "esc back"
        self.refresh_page()

    def refresh_page(self) -> None:
        """Read the page again and show it; before the screen is there, its own mount will."""
        if not self.query("#page-body"):
            return
        page = self._read()
        gone = _GONE if page is None else ()
        self._last = page = page or self._last
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(style=Tone.FAINT.value, no_wrap=True)
        table.add_column(ratio=1, overflow="fold")
        for label, line in (*gone, *page.lines):
            table.add_row(label, line_text(line))
        box = self.query_one("#page")
        # A title is read as markup when it is a string: brackets of a name must stay brackets.
        box.border_title = Content(page.title.text or "?")
        self.query_one("#page-body", Static).update(table)
