"""Pulse as data: order, numbers, states, ages, pages, and what it says where there is nothing."""

from __future__ import annotations

from dataclasses import replace

import click
import pytest

from agent.cli.main import cli
from agent.local.federation_views import DeviceView, RegistryView
from tui import pulse, transfers
from tui.picture import Picture
from tui.pulse_pages import node_page, site_page
from tui.rows import Line, Page, Row


def _text(line: Line) -> str:
    return "".join(cell.text for cell in line)


def _page(page: Page | None) -> list[str]:
    assert page is not None
    return [page.title.text, *(f"{label}: {_text(line)}" for label, line in page.lines)]


def _rows(picture: Picture) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in pulse.site_rows(picture, trend_cells=4)]


def _with_site(picture: Picture, **changes: object) -> Picture:
    """Return the picture with one institution, a changed EPFL."""
    site = replace(picture.answer.federation.sites[0], **changes)  # type: ignore[arg-type]
    federation = replace(picture.answer.federation, sites=(site,))
    return replace(picture, answer=replace(picture.answer, federation=federation))


def test_a_row_per_institution_our_own_first(picture: Picture) -> None:
    """Devices lent, used, idle; nodes; images; GB/s; trend; age."""
    assert _rows(picture) == [
        ["● ready", "* eth", "8", "3", "5", "2", "12", "1.24", "  ██", "0s"],
        ["● ready", "  epfl", "4", "4", "0", "2", "7", "1.24", "  ██", "3s"],
        ["○ unknown", "  tum", "0", "0", "0", "2", "12", "1.24", "  ██", "-"],
        ["■ lost", "  university-of-northern-somewhere", "8", "3", "5", "2", "12", "0", "    ", "1h"],
    ]


def test_sparklines_share_one_scale(picture: Picture) -> None:
    """Who sends half as much has half the height."""
    sites = picture.answer.federation.sites
    halved = (replace(sites[0], transfer_bytes_per_s=0.62e9), sites[1])
    answer = replace(picture.answer, federation=replace(picture.answer.federation, sites=halved))
    trends = [row[8] for row in _rows(Picture.first(answer, 0.0, interval_s=1.0))]
    assert trends == ["   █", "   ▅"]


def test_what_was_ready_is_stale_after_a_minute_without_a_word(picture: Picture) -> None:
    """Also when it is our own agent that fell silent: its age is added."""
    assert _rows(_with_site(picture, age_s=61.0))[0][0] == "▲ stale"
    assert [row[0] for row in _rows(picture.at(picture.now + 61))] == [
        "▲ stale",
        "▲ stale",
        "○ unknown",
        "■ lost",
    ]
    assert _rows(picture.at(picture.now + 61))[1][9] == "1m"


def test_a_row_per_node_the_gateway_first(picture: Picture) -> None:
    """With what its devices do."""
    assert [[cell.text for cell in row.cells] for row in pulse.node_rows(picture)] == [
        ["● ready", "eth-1", "gateway", "1 of 2 used (2 cuda)", "12", "0.40", "1s"],
        ["■ lost", "eth-2", "node", "none", "0", "0", "11m"],
    ]


def test_a_node_whose_devices_are_all_off_lends_none(picture: Picture) -> None:
    """Off is not donated."""
    node = replace(picture.answer.federation.nodes[0], devices=(DeviceView("g", "cuda", 1, "off", "", ""),))
    answer = replace(picture.answer, federation=replace(picture.answer.federation, nodes=(node,)))
    (row,) = pulse.node_rows(replace(picture, answer=answer))
    assert row.cells[3].text == "1 off, none lent"


def test_the_header_says_where_we_are_and_what_the_registry_is_worth(picture: Picture) -> None:
    """And how this node does."""
    assert [_text(line) for line in pulse.header(picture)] == [
        "eth-1, gateway of eth in swiss-ai",
        "registry ● fresh, 4 institutions, expires in 2.5 days",
        "weight cache 48.0 GB of 64.0 GB, spares 1 of 1, 1 lease",
    ]
    cache = replace(picture.answer.status.cache, up=False)
    answer = replace(picture.answer, status=replace(picture.answer.status, cache=cache), leases=())
    down = _text(pulse.header(replace(picture, answer=answer))[2])
    assert down == "weight cache ■ down, it is being started again, spares 1 of 1, 0 leases"


def test_outside_any_institution_it_says_how_to_get_into_one(picture: Picture) -> None:
    """The next command, and still how this node does."""
    registry = RegistryView("", "none", "this node belongs to no site", 0, None, None)
    outside = replace(picture.answer.federation, site="", node="", sites=(), nodes=(), registry=registry)
    alone = replace(picture, answer=replace(picture.answer, federation=outside))
    words = "\n".join(pulse.empty_words(alone))
    assert "pyrdma-agent init --site NAME" in words
    assert "pyrdma-agent join" in words
    assert [_text(line) for line in pulse.header(alone)][:2] == [
        "eth-1  in no institution",
        "registry ○ none, this node belongs to no site",
    ]
    assert pulse.site_rows(alone, trend_cells=4) == pulse.node_rows(alone) == ()
    inside = replace(outside, site="eth")
    unread = replace(picture, answer=replace(picture.answer, federation=inside))
    assert pulse.empty_words(unread) == pulse.NO_SITES
    assert pulse.empty_words(picture) == ()


def test_the_page_of_an_institution_says_why_it_is_lost(picture: Picture) -> None:
    """All that is known, the fault included."""
    lines = _page(site_page(picture, "university-of-northern-somewhere"))
    assert lines[:4] == [
        "university-of-northern-somewhere",
        "state: ■ lost",
        ": the gateway of uns.example does not answer.",
        "last heard: 1.1 hours ago",
    ]
    assert "devices: 8 lent: 3 in use, 5 idle" in lines
    assert _page(site_page(picture, "eth"))[0] == "eth (our own)"
    assert "last heard: never" in _page(site_page(picture, "tum"))
    assert site_page(picture, "gone") is None


def test_the_page_of_this_node_lists_devices_and_leases(picture: Picture) -> None:
    """Who uses which device; leases are known of this node alone."""
    lines = _page(node_page(picture, "eth-1"))
    assert lines[0] == "eth-1 (this node)"
    at = lines.index("devices: ◆ leased  gpu0  cuda  80.0 GB  lease 0123456789abcdef to /epfl/lab")
    assert lines[at + 1 : at + 3] == [": ● idle  gpu1  cuda  80.0 GB", ": ○ off  gpu2  cuda  80.0 GB"]
    assert lines[-1].startswith("leases: ● active  llama-8b  0123456789abcdef  since 2027-01-15 07:50:00 UTC")
    other = _page(node_page(picture, "eth-2"))
    assert "devices: none" in other
    assert not any(line.startswith("leases") for line in other)
    assert node_page(picture, "gone") is None


@pytest.mark.parametrize("name", ["\x1b[2Jx", "[red]x[/red]", "x\ny", "x" * 100_000, ""])
def test_a_hostile_name_stays_one_short_line(picture: Picture, name: str) -> None:
    """Escapes and line feeds are shown, not obeyed; so on its page."""
    told = _with_site(picture, name=name, fault=name, address=name, trust_domain=name, state=name)
    (row,) = pulse.site_rows(told, trend_cells=4)
    lines = _page(site_page(told, row.key))
    texts = [*(cell.text for cell in row.cells), row.words, *lines]
    assert all(text.isprintable() and len(text) < 2100 for text in texts)


def test_two_institutions_of_one_name_are_two_rows(picture: Picture) -> None:
    """Each with a page of its own."""
    one = picture.answer.federation.sites[0]
    sites = (one, replace(one, trust_domain="other.example"))
    answer = replace(picture.answer, federation=replace(picture.answer.federation, sites=sites))
    rows: tuple[Row, ...] = pulse.site_rows(replace(picture, answer=answer), trend_cells=4)
    assert len({row.key for row in rows}) == 2
    pages = [_page(site_page(replace(picture, answer=answer), row.key)) for row in rows]
    assert ["trust domain: epfl.example" in page for page in pages] == [True, False]


@pytest.mark.parametrize("words", [pulse.OUTSIDE, pulse.NO_SITES, transfers.EMPTY])
def test_the_next_command_exists_and_is_whole(words: tuple[str, ...]) -> None:
    """What an empty view says to type is a command, with all options that it requires; it fits 80 cells."""
    typed = [line.split()[1:] for line in words if "pyrdma-agent" in line]
    assert typed
    assert max(map(len, words)) <= 76
    for name, *arguments in typed:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        known = {option for one in command.params for option in one.opts}
        required = {one.opts[0] for one in command.params if isinstance(one, click.Option) and one.required}
        options = {word for word in arguments if word.startswith("--")}
        assert required <= options <= known
