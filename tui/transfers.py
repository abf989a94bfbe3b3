"""Transfers as data: a line per publication or pull, running ones first, and each one's sources.

A pure function of the picture. The rate of a running transfer is that of the last few seconds, of a
finished one its average.
"""

from __future__ import annotations

from typing import Final

from agent.local.views import SourceView, TransferView
from tui.look import Tone, look_of
from tui.picture import Picture
from tui.rows import Cell, Column, Line, Page, Row, cell, keyed, sentence, state_cell
from tui.words import bar, duration, fraction, moment, share_of, size, speed

COLUMNS: Final = (
    Column("state", "STATE", 10),
    Column("model", "MODEL", 15, grow=13),
    Column("kind", "KIND", 8),
    Column("bar", "PROGRESS", 11),
    Column("done", "DONE", 15, right=True),
    Column("rate", "RATE", 11, right=True),
    Column("lane", "LANE", 9),
    Column("from", "FROM", 0, grow=60),
)
_BAR: Final = [column.key for column in COLUMNS].index("bar")

EMPTY: Final = (
    "No transfers since the agent started.",
    "",
    "Put a model into the weight cache:",
    "    pyrdma-agent publish FOLDER --name NAME",
    "Start one, from here or from another node:",
    "    pyrdma-agent run MODEL",
)


def transfers_by_key(picture: Picture) -> dict[str, TransferView]:
    """Return the transfers as they are listed: running ones first, the agent's order otherwise."""
    ordered = sorted(picture.answer.transfers, key=lambda one: one.state != "running")
    return keyed(ordered, lambda one: one.id)


def transfer_rows(picture: Picture, *, bar_cells: int) -> tuple[Row, ...]:
    """Return a row per transfer."""
    return tuple(
        Row(
            key,
            (
                state_cell(look_of(one.state)),
                cell(one.model),
                cell(one.kind),
                Cell(bar(one.progress.done_bytes, one.progress.total_bytes, bar_cells), _tone(one)),
                Cell(share_of(one.progress.done_bytes, one.progress.total_bytes)),
                Cell(speed(_rate(one, picture))),
                cell(one.progress.lane or "-"),
                cell(one.reason or ", ".join(source.name for source in one.progress.sources) or "-"),
            ),
            words=" ".join(cell(text).text for text in _words(one)),
        )
        for key, one in transfers_by_key(picture).items()
    )


def transfer_lines(picture: Picture, key: str | None) -> tuple[Line, ...]:
    """Return how one transfer stands: how far, why it ended, and a line per source."""
    one = transfers_by_key(picture).get(key or "")
    if one is None:
        return ()
    title: Line = (cell(one.model, Tone.STRONG), Cell(f"  {_how_far(one, picture)}"))
    tone = Tone.BAD if one.state == "failed" else Tone.PLAIN
    reason = ((sentence(one.reason, tone),),) if one.reason else ()
    return (title, *reason, *map(_source, one.progress.sources))


def transfer_page(picture: Picture, key: str) -> Page | None:
    """Return everything known about a transfer."""
    one = transfers_by_key(picture).get(key)
    if one is None:
        return None
    sources = [_source(source) for source in one.progress.sources] or [(Cell("none", Tone.FAINT),)]
    lines: list[tuple[str, Line]] = [
        ("state", (state_cell(look_of(one.state)), Cell(f"  {_how_far(one, picture)}"))),
        *([("reason", (sentence(one.reason),))] if one.reason else []),
        ("kind", (cell(one.kind),)),
        ("lane", (cell(one.progress.lane or "-"),)),
        ("done", (Cell(share_of(one.progress.done_bytes, one.progress.total_bytes)),)),
        ("rate", (Cell(speed(_rate(one, picture))),)),
        ("started", (Cell(moment(one.started_at)),)),
        ("image", (cell(one.image_id or "not known yet"),)),
        ("transfer", (cell(one.id),)),
        *(("sources" if not at else "", source) for at, source in enumerate(sources)),
    ]
    return Page(cell(one.model), tuple(lines))


def bar_cells(widths: tuple[int, ...]) -> int:
    """Return how many cells a bar has."""
    return max(0, widths[_BAR] - 1)


def _rate(one: TransferView, picture: Picture) -> float | None:
    if one.state == "running":
        recent = picture.history.transfer_rate(one.id)
        if recent is not None:
            return recent
    return one.progress.done_bytes / one.seconds if one.seconds > 0 else None


def _how_far(one: TransferView, picture: Picture) -> str:
    progress = one.progress
    if one.state != "running":
        return f"took {duration(one.seconds)}"
    text = f"{int(100 * fraction(progress.done_bytes, progress.total_bytes))} %"
    text += f" after {duration(one.seconds + picture.age_s)}"
    rate = _rate(one, picture)
    left = progress.total_bytes - progress.done_bytes
    return f"{text}, about {duration(left / rate)} left" if rate and left > 0 else text


def _source(source: SourceView) -> Line:
    line = [
        state_cell(look_of(source.state)),
        cell(f"  {source.name}  {source.lane or '-'}  {size(source.bytes)}"),
    ]
    if source.reason:
        line.append(sentence(f"  {source.reason}", Tone.WARN))
    return tuple(line)


def _tone(one: TransferView) -> Tone:
    return {"running": Tone.GOOD, "failed": Tone.BAD}.get(one.state, Tone.FAINT)


def _words(one: TransferView) -> tuple[str, ...]:
    return one.id, one.image_id, *(source.name for source in one.progress.sources)
