"""The picture of a replay: what became of idle device-hours, waits and shares by the size of institutions.

Drawn with matplotlib, which is an extra of its own: it is imported here alone, and only when a picture is
asked for. The same figures give the same file, byte by byte, with the same matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.errors import NoPlotError, RequestError
from agent.replay.report import titles_of
from agent.replay.summary import SIZES, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS: Final = (".svg", ".png")

_COLOURS: Final = ("#b4532a", "#2a6f97", "#6a994e", "#8d6a9f", "#7f7f7f", "#c9a227", "#4f5d75", "#a63d40")
_DPI: Final = 120
_TICKS_S: Final = {
    1: "1 s",
    10: "10 s",
    60: "1 min",
    600: "10 min",
    3600: "1 h",
    36_000: "10 h",
    360_000: "100 h",
}


def check_plot(path: Path) -> None:
    """Refuse a picture that could not be drawn, before a long replay.

    Raises:
        RequestError: the file's name ends neither in .svg nor in .png.
        NoPlotError: matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise RequestError(
            f"{path} is neither an .svg nor a .png.", fix="name a file that ends in .svg or .png"
        )
    if find_spec("matplotlib") is None:
        raise NoPlotError(
            "pictures are drawn with matplotlib, which is not installed.",
            fix="install it with: pip install 'pyrdma-agent[plot]'",
        )


def draw(summaries: Sequence[Summary], path: Path) -> None:
    """Write the picture of some variants of one replay.

    Raises:
        RequestError: the file's name ends neither in .svg nor in .png, or it cannot be written.
        NoPlotError: matplotlib is not installed.
    """
    check_plot(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.hashsalt": "pyrdma-agent",  # ids of a picture's parts are random otherwise
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        hours, waits, shares = figure.subplots(1, 3)
        _hours(hours, summaries)
        _waits(waits, summaries)
        _shares(shares, summaries)
        handles, labels = shares.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(summaries) + 1, frameon=False)
        kind = path.suffix.lower()[1:]
        metadata: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        try:
            figure.savefig(path, format=kind, dpi=_DPI, metadata=metadata)
        except OSError as error:
            raise RequestError(f"{path} cannot be written: {error}.", fix="name another file") from error


def _hours(axes: Axes, summaries: Sequence[Summary]) -> None:
    """Draw what guests made of the idle hours."""
    for at, (one, colour) in enumerate(zip(summaries, _COLOURS, strict=False)):
        idle = one.idle_h or 1.0
        parts = (one.recovered_h / idle, one.starting_h / idle, one.lost_h / idle)
        bottom = 0.0
        for part, hatch, alpha in zip(parts, ("", "////", "xxxx"), (1.0, 0.35, 0.35), strict=True):
            axes.bar(
                at, 100 * part, 0.6, 100 * bottom, color=colour, alpha=alpha, hatch=hatch, edgecolor="white"
            )
            bottom += part
        axes.annotate(
            f"{100 * parts[0]:.0f} %\n{one.recovered_h:,.0f} h",
            (at, 100 * parts[0] / 2),
            ha="center",
            va="center",
            color="white",
        )
    axes.set_xticks(range(len(summaries)), titles_of(summaries))
    axes.set_title("Idle device-hours recovered, %")
    axes.set_xlabel("hatched: starts, and work that was lost")
    axes.set_ylim(0, 100)


def _waits(axes: Axes, summaries: Sequence[Summary]) -> None:
    """Draw the waits of half and of nine of ten, by size."""
    bands = _bands(summaries)
    width = 0.8 / len(summaries)
    lowest = 1.0
    for at, (one, colour) in enumerate(zip(summaries, _COLOURS, strict=False)):
        by_name = {group.name: group for group in one.sizes}
        for place, band in enumerate(bands):
            group = by_name[band]
            if group.wait_p50_s is None or group.wait_p90_s is None:
                continue
            x = place - 0.4 + width * (at + 0.5)
            low, high = max(lowest, group.wait_p50_s), max(lowest, group.wait_p90_s)
            axes.plot([x, x], [low, high], color=colour, linewidth=2)
            axes.plot([x], [low], marker="o", color=colour, markersize=5)
            axes.plot([x], [high], marker="_", color=colour, markersize=10)
    axes.set_yscale("log")
    lowest_s, highest_s = axes.get_ylim()
    ticks = {at: text for at, text in _TICKS_S.items() if lowest_s <= at <= highest_s}
    axes.set_yticks(list(ticks), list(ticks.values()), minor=False)
    axes.set_yticks([], minor=True)
    axes.set_xticks(range(len(bands)), [_two_lines(band) for band in bands])
    axes.set_title("Wait until served, half to 9 of 10")
    axes.set_xlabel("devices of the institution")


def _shares(axes: Axes, summaries: Sequence[Summary]) -> None:
    """Draw who had what part of the recovered hours, by size, beside what was asked for."""
    bands = _bands(summaries)
    width = 0.8 / len(summaries)
    for at, (one, colour) in enumerate(zip(summaries, _COLOURS, strict=False)):
        by_name = {group.name: group for group in one.sizes}
        places = [place - 0.4 + width * (at + 0.5) for place in range(len(bands))]
        heights = [by_name[band].useful_h for band in bands]
        axes.bar(places, heights, width * 0.9, color=colour, label=titles_of(summaries)[at])
    asked = {group.name: group.asked_h for group in summaries[0].sizes}
    for place, band in enumerate(bands):
        label = "asked for" if place == 0 else None
        axes.plot([place - 0.42, place + 0.42], [asked[band]] * 2, color="black", linewidth=1, label=label)
    axes.set_xticks(range(len(bands)), [_two_lines(band) for band in bands])
    axes.set_title("Device-hours served")
    axes.set_xlabel("devices of the institution")


def _bands(summaries: Sequence[Summary]) -> list[str]:
    there = {group.name for one in summaries for group in one.sizes}
    return [name for name, _ in SIZES if name in there]


def _two_lines(band: str) -> str:
    return band.replace(" ", "\n", 1) if len(band) > 8 else band
