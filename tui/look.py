"""How a state looks: glyph, word and colour; never colour alone, so that NO_COLOR loses nothing.

Blue, yellow and vermilion are those of Okabe and Ito, which people with any common colour blindness tell
apart; red and green of stock themes they do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from textual.theme import Theme

from agent.text import printable

_MAX_WORD_BYTES: Final = 16


class Tone(Enum):
    """What a text says by its colour; the value is a style of rich."""

    PLAIN = ""
    STRONG = "bold"
    CURRENT = "bold reverse"
    FAINT = "#8a949e"
    GOOD = "#56b4e9"
    WARN = "#f0e442"
    BAD = "bold #ff7f2a"


@dataclass(frozen=True, slots=True)
class Look:
    """One state as it is shown."""

    glyph: str
    word: str
    tone: Tone

    def __str__(self) -> str:
        return f"{self.glyph} {self.word}"


_KINDS: Final = (
    ("●", Tone.GOOD, ("ready", "running", "active", "fresh", "idle")),
    ("◆", Tone.STRONG, ("leased",)),
    ("▲", Tone.WARN, ("draining", "stale", "expected", "warming", "starting", "reclaiming")),
    ("■", Tone.BAD, ("lost", "failed", "dropped", "local", "broken", "down")),
    ("○", Tone.FAINT, ("off", "owned", "left", "unknown", "done", "ended", "none")),
)
_LOOKS: Final = {word: Look(glyph, word, tone) for glyph, tone, words in _KINDS for word in words}
LEGEND: Final = "● good   ◆ lent and in use   ▲ look here soon   ■ broken   ○ off, over or not known"


def look_of(state: str) -> Look:
    """Return the look of a state; a word of a newer agent is shown as it is, and plain."""
    return _LOOKS.get(state) or Look("○", printable(state, _MAX_WORD_BYTES) or "?", Tone.PLAIN)


THEME: Final = Theme(
    name="pyrdma",
    primary="#56b4e9",
    secondary="#8a949e",
    accent="#f0e442",
    warning="#f0e442",
    error="#d55e00",
    success="#56b4e9",
    foreground="#e6e9ec",
    background="#101418",
    surface="#161b20",
    panel="#20272e",
    dark=True,
)
