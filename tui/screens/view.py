"""What all views share: the line of views, alarms, the filter, help and the way back; one grammar of keys."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widgets import Footer, Input, Static

from tui.alarms import alarms
from tui.look import LEGEND, Tone
from tui.picture import Picture
from tui.rows import Cell, Page, cell
from tui.screens.page import PageScreen
from tui.table import RowTable, line_text, one_line

VIEWS: Final = {"pulse": "Pulse", "transfers": "Transfers"}
_GRAMMAR: Final = (
    ("1 2 tab", "another view"),
    ("up down", "another row; from the last row into the table below"),
    ("enter", "everything known about the row"),
    ("/", "filter: words that a row must hold, !word that it must not; esc ends it"),
    (":", "commands by name"),
    ("esc", "back"),
    ("q", "quit; nothing here changes anything, and the agent goes on without it"),
)


class View(Screen[None]):
    """A view of the picture; subclasses say what stands in its middle.

    Args:
        picture: what to show first.
    """

    AUTO_FOCUS = "RowTable"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "app.view('pulse')", "Pulse"),
        Binding("2", "app.view('transfers')", "Transfers"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("question_mark", "explain", "Help", key_display="?"),
        Binding("escape", "back", "Back", show=False),
        Binding("tab", "app.turn(1)", "Next view", show=False),
        Binding("shift+tab", "app.turn(-1)", "View before", show=False),
    ]
    NAME: ClassVar[str]
    EXPLAINED: ClassVar[tuple[tuple[str, str], ...]]

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        self.picture = picture
        self._page: PageScreen | None = None

    def compose(self) -> ComposeResult:
        """Lay out the line of views, the alarms, the middle, the filter and the keys."""
        yield Static(id="views", markup=False)
        yield Static(id="alarms", markup=False)
        with Vertical(id="middle"):
            yield from self.compose_middle()
        with Horizontal(id="filter"):
            yield Static("/", markup=False)
            yield Input(placeholder="words to find, !word to leave out", compact=True)
            yield Static(id="found", markup=False)
        yield Footer(show_command_palette=False)

    def compose_middle(self) -> ComposeResult:
        """Lay out what this view shows."""
        raise NotImplementedError

    def draw(self) -> None:
        """Bring the middle up to date with the picture and the filter."""
        raise NotImplementedError

    def page_of(self, table_id: str, key: str) -> Page | None:
        """Return everything known about a row, ``None`` when it is gone."""
        raise NotImplementedError

    def on_mount(self) -> None:
        """Show the first picture."""
        self.query_one("#filter").display = False
        self._draw_all()

    def show(self, picture: Picture) -> None:
        """Show a new picture; before the view is there, keep it for then."""
        self.picture = picture
        self.redraw()

    def redraw(self) -> None:
        """Draw everything; a view that is half laid out, or half gone since the app ends, is left alone."""
        with suppress(NoMatches):
            self._draw_all()

    @property
    def filter_text(self) -> str:
        """What the filter asks for now; empty without one."""
        return self.query_one(Input).value

    def tell_found(self, found: int, every: int) -> None:
        """Say beside the filter how much it leaves."""
        self.query_one("#found", Static).update(f"{found} of {every}")

    def action_filter(self) -> None:
        """Open the filter."""
        self.query_one("#filter").display = True
        self.query_one(Input).focus()

    def action_back(self) -> None:
        """End the filter, if there is one."""
        entry = self.query_one(Input)
        self.query_one("#filter").display = False
        if entry.value:
            entry.value = ""
        self._focus_table()

    def action_explain(self) -> None:
        """Show what this view shows, and its keys."""
        lines = [(label, (Cell(text),)) for label, text in (*self.EXPLAINED, ("", ""), *_GRAMMAR)]
        page = Page(Cell(f"Help of {VIEWS[self.NAME]}"), (("states", (Cell(LEGEND),)), ("", ()), *lines))
        self._open(PageScreen(lambda: page))

    @on(Input.Changed)
    @on(RowTable.RowHighlighted)
    def _follow(self) -> None:
        self.redraw()

    @on(Input.Submitted)
    def _keep_filter(self) -> None:
        self.query_one("#filter").display = bool(self.query_one(Input).value)
        self._focus_table()

    @on(RowTable.RowSelected)
    def _open_row(self, event: RowTable.RowSelected) -> None:
        table_id, key = event.data_table.id or "", event.row_key.value or ""
        self._open(PageScreen(lambda: self.page_of(table_id, key)))

    def _draw_all(self) -> None:
        self.query_one("#views", Static).update(self._views())
        lines = alarms(self.picture)
        self.query_one("#alarms", Static).update(Text("\n").join(line_text([line]) for line in lines))
        self.query_one("#alarms").display = bool(lines)
        self.draw()
        if self._page is not None and self._page.is_attached:
            self._page.refresh_page()

    def _open(self, page: PageScreen) -> None:
        self._page = page
        self.app.push_screen(page)

    def _focus_table(self) -> None:
        for table in self.query(RowTable):
            if table.display:
                table.focus()
                return
        self.set_focus(None)

    def _views(self) -> Text:
        line = [
            Cell(f" {number} {title} ", Tone.CURRENT if name == self.NAME else Tone.FAINT)
            for number, (name, title) in enumerate(VIEWS.items(), 1)
        ]
        status = self.picture.answer.status
        return one_line((*line, Cell("   "), cell(f"pyRDMA agent {status.version}", Tone.FAINT)))
