"""Rows: columns that fit, the filter, keys that differ, text from outside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui import pulse, transfers
from tui.limits import MAX_CELL_BYTES, MAX_ROWS_SHOWN
from tui.look import LEGEND, Tone, look_of
from tui.rows import Cell, Column, Row, cell, filtered, fit, keyed

ROWS = (
    Row("a", (Cell("● ready"), Cell("ETH Zürich"))),
    Row("b", (Cell("■ lost"), Cell("EPFL")), words="epfl.example"),
    Row("c", (Cell("● ready"), Cell("TUM"))),
)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", "abc"),
        ("ready", "ac"),
        ("READY tum", "c"),
        ("!ready", "b"),
        ("ready !zürich", "c"),
        ("!ready !epfl", ""),
        ("epfl.example", "b"),
        ("!", "abc"),
        ("! ", "abc"),
        ("nowhere", ""),
    ],
)
def test_the_filter_keeps_rows_with_every_word_and_none_behind_a_mark(text: str, keys: str) -> None:
    """Case does not matter; a mark alone says nothing yet."""
    assert "".join(row.key for row in filtered(ROWS, text)) == keys


@given(st.text(max_size=30))
def test_a_word_and_its_negation_divide_the_rows(text: str) -> None:
    """Each row is in one of the two halves."""
    word = text.strip().lstrip("!")
    if len(word.split()) == 1:
        both = [*filtered(ROWS, word), *filtered(ROWS, f"!{word}")]
        assert sorted(row.key for row in both) == ["a", "b", "c"]


@pytest.mark.parametrize("columns", [pulse.SITE_COLUMNS, pulse.NODE_COLUMNS, transfers.COLUMNS])
def test_every_column_has_its_place_in_80_cells(columns: tuple[Column, ...]) -> None:
    """One cell is left for the scrollbar; wider terminals are used."""
    assert sum(fit(columns, 79)) <= 79
    assert sum(fit(columns, 79)) < sum(fit(columns, 119)) <= 119


@given(st.integers(0, 400))
def test_columns_never_shrink_below_their_width(width: int) -> None:
    """A narrow terminal scrolls; a wide one gives what is left to the first that can grow."""
    columns = (Column("a", "A", 5, grow=3), Column("b", "B", 4), Column("c", "C", 0, grow=9))
    widths = fit(columns, width)
    assert widths[0] >= 5
    assert widths[1] == 4
    assert sum(widths) == max(9, min(width, 21))


@given(st.lists(st.text(max_size=4), max_size=30))
def test_equal_names_get_different_keys(names: list[str]) -> None:
    """No value is lost because a peer named two things alike."""
    found = keyed(names, lambda name: name)
    assert list(found.values()) == names


def test_a_name_cannot_pretend_to_be_the_second_of_another() -> None:
    """A line feed in a name is escaped before it becomes a key."""
    assert len(keyed(["a\n2", "a", "a"], lambda name: name)) == 3


def test_a_table_has_at_most_so_many_rows() -> None:
    """The rest is not drawn."""
    assert len(keyed(range(10 * MAX_ROWS_SHOWN), str)) == MAX_ROWS_SHOWN


def test_text_from_outside_is_made_safe() -> None:
    """No escape sequence, no line feed, no end without end."""
    assert cell("\x1b[31mred\x1b[0m\n").text == "\\x1b[31mred\\x1b[0m\\n"
    assert len(cell("x" * 10**6).text.encode()) <= MAX_CELL_BYTES


def test_every_state_has_a_glyph_that_the_legend_explains() -> None:
    """Colour is never the only difference."""
    states = ("ready", "draining", "lost", "off", "leased", "idle", "running", "failed", "stale", "unknown")
    for state in states:
        assert look_of(state).glyph in LEGEND
        assert look_of(state).word == state
    assert len({look_of(state).glyph for state in ("ready", "draining", "lost", "off", "leased")}) == 5


def test_a_state_of_a_newer_agent_is_shown_as_it_is() -> None:
    """Plain, short and safe to print."""
    look = look_of("quarantined\x1b[2J and more of it")
    assert look.tone is Tone.PLAIN
    assert look.word.startswith("quarantined")
    assert "\x1b" not in look.word
    assert len(look.word) <= 16
    assert str(look_of("")) == "○ ?"
