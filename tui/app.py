"""The terminal UI: a few views of one picture, and the worker that keeps it up to date.

Rules: it only reads; no view asks the agent, the worker alone does; what is on the screen is a function of
the picture. It never animates and never goes away because the agent did.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from tui.look import THEME
from tui.picture import Picture
from tui.polling import Polling
from tui.screens.pulse import PulseScreen
from tui.screens.transfers import TransfersScreen
from tui.screens.view import VIEWS, View
from tui.source import Answer, OpenSource

_TICK_S = 1.0


class OperatorApp(App[None]):
    """The app.

    Args:
        first: the first answer of the agent, so that the first frame is not empty.
        open_source: opens the agent, again after each fault.
        interval_s: pause between an answer and the next question.
        clock: the Unix time.
    """

    TITLE = "pyRDMA agent"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("colon", "command_palette", "Commands", key_display=":"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(
        self,
        first: Answer,
        open_source: OpenSource,
        *,
        interval_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._clock = clock
        self.animation_level = "none"
        self.register_theme(THEME)
        self.theme = THEME.name
        self._picture = Picture.first(first, clock(), interval_s=interval_s)
        self._polling = Polling(open_source, interval_s=interval_s)
        self._views: dict[str, View] = {
            view.NAME: view for view in (PulseScreen(self._picture), TransfersScreen(self._picture))
        }

    def on_mount(self) -> None:
        """Show the first view and begin to ask."""
        for name, view in self._views.items():
            self.install_screen(view, name)
        self.push_screen("pulse")
        self.run_worker(self._polling.run(self._answered, self._failed))
        self.set_interval(_TICK_S, lambda: self._show(self._picture.at(self._clock())))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Offer what the keys do, by name."""
        for name, title in VIEWS.items():
            yield SystemCommand(title, f"Show {title.lower()}", lambda name=name: self.action_view(name))
        if isinstance(screen, View):
            yield SystemCommand("Filter", "Show only rows that hold these words", screen.action_filter)
            yield SystemCommand("Help", "What this view shows, and its keys", screen.action_explain)
        yield SystemCommand("Quit", "Leave; the agent goes on", self.action_quit)

    def action_view(self, name: str) -> None:
        """Show a view."""
        self.switch_screen(name)

    def action_turn(self, step: int) -> None:
        """Show the view after this one, or before it."""
        if isinstance(self.screen, View):
            names = list(VIEWS)
            self.action_view(names[(names.index(self.screen.NAME) + step) % len(names)])

    def _answered(self, answer: Answer) -> None:
        self._show(self._picture.answered(answer, self._clock()))

    def _failed(self, fault: str) -> None:
        self._show(self._picture.failed(fault, self._clock()))

    def _show(self, picture: Picture) -> None:
        self._picture = picture
        for view in self._views.values():
            view.show(picture)
