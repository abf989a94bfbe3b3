"""The progress bar of a transfer: on stderr, only on a terminal, with rate, lane and time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from agent.cli.output import talk
from agent.local.views import ProgressView
from agent.text import format_size, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SHORTEST_RATE_S: Final = 0.05
"""Before that much has been seen of a transfer, its rate is noise."""


class TransferBar:
    """A bar that appears with the first report. Off a terminal, or told to be quiet, it shows nothing."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._title = title
        self._shown = not quiet and sys.stderr.isatty()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._first_s = 0.0
        self._first_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, view: ProgressView) -> None:
        """Show how far the transfer is."""
        if not self._shown:
            return
        if self._progress is None or self._task is None:
            self._progress = _make()
            self._task = self._progress.add_task(self._title, total=view.total_bytes, lane="", rate="")
            self._progress.start()
            self._first_s, self._first_bytes = time.monotonic(), view.done_bytes
        active = sum(source.state == "active" for source in view.sources)
        lane = printable(view.lane, 32) + (f" from {active}" if active > 1 else "")
        self._progress.update(
            self._task, completed=view.done_bytes, total=view.total_bytes, lane=lane, rate=self._rate(view)
        )

    def _rate(self, view: ProgressView) -> str:
        # Since the first report: between two reports that come at once, any rate would seem to be reached.
        seconds = time.monotonic() - self._first_s
        nbytes = view.done_bytes - self._first_bytes
        return f"{format_size(int(nbytes / seconds))}/s" if seconds >= SHORTEST_RATE_S else ""

    def note(self, text: str) -> None:
        """Say something above the bar."""
        if self._progress is not None:
            self._progress.console.print(printable(text, 4096), markup=False, highlight=False)
        else:
            talk(text)


def _make() -> Progress:
    # Here and not above: rich costs 60 ms that no other command should pay.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TextColumn("{task.fields[lane]}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
