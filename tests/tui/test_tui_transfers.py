"""Transfers as data: order, rates, sources, reasons."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.local.views import ProgressView, TransferView
from tui import transfers
from tui.picture import Picture
from tui.rows import Line


def _text(line: Line) -> str:
    return "".join(cell.text for cell in line)


def _lines(picture: Picture, key: str | None) -> list[str]:
    return [_text(line) for line in transfers.transfer_lines(picture, key)]


def _with(picture: Picture, *views: TransferView) -> Picture:
    return replace(picture, answer=replace(picture.answer, transfers=views))


def test_a_row_per_transfer(picture: Picture) -> None:
    """State, model, kind, bar, done of total, rate, lane, where from or why not."""
    assert [[cell.text for cell in row.cells] for row in transfers.transfer_rows(picture, bar_cells=4)] == [
        ["● running", "llama-8b", "pull", "██░░", "8.0/16.0 GB", "0 B/s", "tcp", "eth-2, epfl"],
        ["○ done", "qwen-0.5b", "publish", "████", "1.0/1.0 GB", "500.0 MB/s", "-", "-"],
        [
            "■ failed",
            "mistral-small-3.2-24b-instruct",
            "pull",
            "░░░░",
            "1.0/48.0 GB",
            "50.0 MB/s",
            "cuda_ipc",
            "no source is left for 2940 pieces.",
        ],
    ]


def test_running_ones_stand_first(picture: Picture) -> None:
    """Whatever the order of the answer."""
    told = _with(picture, *reversed(picture.answer.transfers))
    assert list(transfers.transfers_by_key(told)) == ["t2", "t0", "t1"]


def test_below_the_table_each_source_has_its_state(picture: Picture) -> None:
    """How far, how long still, who sent what, and who was dropped and why."""
    one = picture.answer.transfers[0]
    begun = _with(picture, replace(one, progress=replace(one.progress, done_bytes=4 * 10**9)))
    told = Picture.first(begun.answer, picture.now - 2, interval_s=1.5).answered(picture.answer, picture.now)
    assert _lines(told, "t2") == [
        "llama-8b  50 % after 9 s, about 4 s left",
        "● active  eth-2  tcp  3.0 GB",
        "■ dropped  epfl  tcp  0 B  sent a wrong byte",
    ]
    assert _lines(picture, "t0") == [
        "mistral-small-3.2-24b-instruct  took 20 s",
        "no source is left for 2940 pieces.",
    ]
    assert _lines(picture, None) == _lines(picture, "gone") == []


def test_a_page_has_the_whole_image_id(picture: Picture) -> None:
    """It is what other commands ask for."""
    page = transfers.transfer_page(picture, "t2")
    assert page is not None
    lines = {label: _text(line) for label, line in page.lines if label}
    assert lines["image"] == "ab" * 32
    assert lines["sources"] == "● active  eth-2  tcp  3.0 GB"
    assert lines["started"] == "2027-01-15 07:59:51 UTC"
    assert transfers.transfer_page(picture, "gone") is None


def test_the_filter_finds_ids_and_sources(picture: Picture) -> None:
    """Also where the columns have no room for them."""
    row = transfers.transfer_rows(picture, bar_cells=4)[0]
    assert all(word in row.words for word in ("t2", "ab" * 32, "epfl"))


@pytest.mark.parametrize(
    "progress", [ProgressView(0, 0, ""), ProgressView(2**64, 1, "x\ny"), ProgressView(1, 2**64, "")]
)
def test_no_progress_is_too_strange_to_draw(picture: Picture, progress: ProgressView) -> None:
    """A transfer of nothing, of more than all, of more than there is."""
    one = replace(picture.answer.transfers[0], progress=progress, seconds=0.0)
    told = _with(picture, one)
    (row,) = transfers.transfer_rows(told, bar_cells=10)
    assert len(row.cells[3].text) == 10
    assert all(cell.text.isprintable() for cell in row.cells)
    assert _lines(told, "t2")
    assert transfers.transfer_page(told, "t2") is not None
