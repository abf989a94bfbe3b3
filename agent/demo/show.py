"""What the demo shows: a timeline per start, bars while bytes move, sentences for the dramas.

Results go to stdout, bars to stderr; with ``--json`` there is nothing but the one object at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.cli.output import data, talk
from agent.cli.progress import TransferBar
from agent.text import format_size

BAR_CELLS: Final = 40
_CELLS: Final = "█▓▒░▚▞▙▜▛"


@dataclass(frozen=True, slots=True)
class Timeline:
    """Where the seconds of one start went; ``phases`` in order."""

    title: str
    phases: tuple[tuple[str, float], ...]
    note: str = ""

    @property
    def seconds(self) -> float:
        """The whole of it."""
        return sum(seconds for _, seconds in self.phases)


class Stage:
    """Prints, unless it was told to be quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def say(self, text: str = "") -> None:
        """Print one line of the result."""
        if not self._quiet:
            data(text)

    def hint(self, text: str) -> None:
        """Say what is going on, beside the result."""
        if not self._quiet:
            talk(text)

    def bar(self, title: str) -> TransferBar:
        """Return a progress bar."""
        return TransferBar(title, quiet=self._quiet)

    def timelines(self, timelines: list[Timeline]) -> None:
        """Print starts on one scale, the longest filling the width."""
        longest_s = max(timeline.seconds for timeline in timelines)
        width = max(len(timeline.title) for timeline in timelines)
        names = list(dict.fromkeys(name for timeline in timelines for name, _ in timeline.phases))
        marks = {name: _CELLS[index % len(_CELLS)] for index, name in enumerate(names)}
        for timeline in timelines:
            bar = "".join(
                marks[name] * round(BAR_CELLS * seconds / longest_s) for name, seconds in timeline.phases
            )
            whole = f"{bar or '▏':<{BAR_CELLS}} {timeline.seconds:7.2f} s   {timeline.note}".rstrip()
            self.say(f"  {timeline.title:<{width}}  {whole}")
            parts = ", ".join(
                f"{marks[name]} {name} {_seconds(seconds)}" for name, seconds in timeline.phases
            )
            self.say(f"  {'':<{width}}  {parts}")


def rate(nbytes: int, seconds: float) -> str:
    """Return bytes per second for people."""
    return f"{format_size(int(nbytes / seconds))}/s" if seconds > 0 else "-"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1e3:.1f} ms"
