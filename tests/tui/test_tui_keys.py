"""The app under a pilot: keys, filter, help, pages, and an agent that dies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from textual.command import CommandList, CommandPalette
from textual.widgets import Input, Static

from agent.errors import UnreachableError
from agent.local.federation_views import FederationView
from tui.app import OperatorApp
from tui.screens.page import PageScreen
from tui.screens.pulse import PulseScreen
from tui.screens.transfers import TransfersScreen
from tui.source import Answer
from tui.table import RowTable

SMALL = (80, 24)
OFTEN_S = 0.2  # less would leave the app no idle moment, which the pilot waits for after each key
Wait = Callable[[Any, Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def app(fake_agent: Any) -> OperatorApp:
    """The app before an agent that answers often."""
    return OperatorApp(fake_agent.answer, fake_agent.open, interval_s=OFTEN_S)


def _said(app: OperatorApp, selector: str) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(app.screen.query_one(selector, Static).content)
    return captured.get()


def _keys(app: OperatorApp, selector: str = "#sites") -> list[str]:
    return [str(key.value) for key in app.screen.query_one(selector, RowTable).rows]


def _cell(app: OperatorApp, key: str, column: str) -> str:
    return app.screen.query_one("#sites", RowTable).get_cell(key, column).plain.strip()


def _focused(app: OperatorApp) -> str | None:
    return app.focused.id if app.focused is not None else None


def _federation(fake_agent: Any, **changes: Any) -> None:
    federation: FederationView = replace(fake_agent.answer.federation, **changes)
    fake_agent.answer = replace(fake_agent.answer, federation=federation)


@pytest.mark.asyncio
async def test_numbers_and_tab_switch_views(app: OperatorApp) -> None:
    """1 is Pulse, 2 is Transfers, tab is the next one, esc stays."""
    async with app.run_test(size=SMALL) as pilot:
        assert isinstance(app.screen, PulseScreen)
        await pilot.press("2")
        assert isinstance(app.screen, TransfersScreen)
        assert _focused(app) == "transfers"
        await pilot.press("1")
        assert isinstance(app.screen, PulseScreen)
        await pilot.press("tab")
        assert isinstance(app.screen, TransfersScreen)
        await pilot.press("tab")
        assert isinstance(app.screen, PulseScreen)
        await pilot.press("shift+tab")
        assert isinstance(app.screen, TransfersScreen)
        await pilot.press("escape")
        assert isinstance(app.screen, TransfersScreen)


@pytest.mark.asyncio
async def test_q_quits(app: OperatorApp) -> None:
    """From a view and from a page over it, with exit code 0."""
    async with app.run_test(size=SMALL) as pilot:
        await pilot.press("enter", "q")
        await pilot.pause()
    assert app.return_code == 0


@pytest.mark.asyncio
async def test_the_cursor_goes_from_table_to_table(app: OperatorApp) -> None:
    """From the last institution to the first node and back."""
    async with app.run_test(size=SMALL) as pilot:
        assert _focused(app) == "sites"
        await pilot.press("down", "down", "down")
        assert app.screen.query_one("#sites", RowTable).cursor_row == 3
        await pilot.press("down")
        assert _focused(app) == "nodes"
        await pilot.press("down", "down", "up", "up")
        assert _focused(app) == "sites"
        assert app.screen.query_one("#sites", RowTable).cursor_row == 3
        await pilot.press("home", "up")
        assert _focused(app) == "sites"


@pytest.mark.asyncio
async def test_the_filter_keeps_what_fits_until_esc(app: OperatorApp) -> None:
    """Letters that are keys elsewhere are letters in it; enter goes back to the table and keeps it."""
    async with app.run_test(size=SMALL) as pilot:
        await pilot.press("slash", *"q1:?")
        assert app.screen.query_one(Input).value == "q1:?"
        assert _keys(app) == []
        app.screen.query_one(Input).value = ""
        await pilot.press(*"ready", "space", *"!epfl", "enter")
        assert _keys(app) == ["eth"]
        assert _keys(app, "#nodes") == ["eth-1"]
        assert _said(app, "#found").strip() == "2 of 6"
        assert _focused(app) == "sites"
        assert app.screen.query_one("#filter").display
        await pilot.press("escape")
        assert _keys(app) == ["eth", "epfl", "tum", "university-of-northern-somewhere"]
        assert not app.screen.query_one("#filter").display


@pytest.mark.asyncio
async def test_help_says_what_this_view_shows(app: OperatorApp) -> None:
    """Each view has its own; esc and ? leave it."""
    async with app.run_test(size=(100, 50)) as pilot:
        await pilot.press("question_mark")
        assert isinstance(app.screen, PageScreen)
        assert "one scale" in _said(app, "#page-body")
        await pilot.press("question_mark", "2", "question_mark")
        assert "cuda_ipc" in _said(app, "#page-body")
        assert "filter: words" in _said(app, "#page-body")
        await pilot.press("escape")
        assert isinstance(app.screen, TransfersScreen)


@pytest.mark.asyncio
async def test_enter_opens_everything_known_about_the_row(
    app: OperatorApp, fake_agent: Any, wait_for: Wait
) -> None:
    """It follows the agent's answers, and keeps the last when the row goes away."""
    async with app.run_test(size=SMALL) as pilot:
        await pilot.press("down", "enter")
        assert "epfl.example" in _said(app, "#page-body")
        sites = fake_agent.answer.federation.sites
        _federation(fake_agent, sites=(replace(sites[0], images=99), *sites[1:]))
        await wait_for(pilot, lambda: "99" in _said(app, "#page-body"))
        _federation(fake_agent, sites=sites[1:])
        await wait_for(pilot, lambda: "no longer in the list" in _said(app, "#page-body"))
        assert "epfl.example" in _said(app, "#page-body")
        await pilot.press("escape")
        assert "epfl" not in _keys(app)


@pytest.mark.asyncio
async def test_commands_can_be_called_by_name(app: OperatorApp, wait_for: Wait) -> None:
    """The palette offers what the keys do, and nothing of the toolkit's."""
    async with app.run_test(size=SMALL) as pilot:
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert titles == ["Pulse", "Transfers", "Filter", "Help", "Quit"]
        await pilot.press("colon")
        assert isinstance(app.screen, CommandPalette)
        await pilot.press(*"transfers")
        await wait_for(pilot, lambda: app.screen.query_one(CommandList).option_count == 1)
        await pilot.press("down", "enter")
        await wait_for(pilot, lambda: isinstance(app.screen, TransfersScreen))


@pytest.mark.asyncio
async def test_a_new_answer_changes_cells_and_leaves_the_cursor(
    app: OperatorApp, fake_agent: Any, wait_for: Wait
) -> None:
    """The cursor stays on its row, wherever that row goes."""
    async with app.run_test(size=SMALL) as pilot:
        table = app.screen.query_one("#sites", RowTable)
        await pilot.press("down", "down")
        assert table.cursor_key == "tum"
        sites = fake_agent.answer.federation.sites
        _federation(fake_agent, sites=(replace(sites[0], images=99), *sites[1:]))
        await wait_for(pilot, lambda: _cell(app, "epfl", "images") == "99")
        assert table.cursor_key == "tum"
        _federation(fake_agent, sites=(replace(sites[0], name="aachen"), *sites))
        await wait_for(pilot, lambda: "aachen" in _keys(app))
        assert (table.cursor_key, table.cursor_row) == ("tum", 3)


@pytest.mark.asyncio
async def test_a_dead_agent_leaves_what_it_said_with_its_age(
    fake_agent: Any, wait_for: Wait, answer: Answer
) -> None:
    """A banner says so, keys go on, and when it is back the banner goes."""
    now = [1_800_000_000.0]
    app = OperatorApp(answer, fake_agent.open, interval_s=OFTEN_S, clock=lambda: now[0])
    async with app.run_test(size=SMALL) as pilot:
        await wait_for(pilot, lambda: fake_agent.asked > 0)
        assert not app.screen.query_one("#alarms").display
        fake_agent.fault = UnreachableError("no agent answers on /run/x.sock.", fix="start one")
        now[0] += 70.0
        await wait_for(pilot, lambda: app.screen.query_one("#alarms").display)
        said = " ".join(_said(app, "#alarms").split())
        assert "shown is what it said 1 min ago: no agent answers on /run/x.sock." in said
        assert _keys(app) == ["eth", "epfl", "tum", "university-of-northern-somewhere"]
        assert (_cell(app, "eth", "state"), _cell(app, "epfl", "age")) == ("▲ stale", "1m")
        await pilot.press("2")
        assert isinstance(app.screen, TransfersScreen)
        assert app.screen.query_one("#alarms").display
        fake_agent.fault = None
        await wait_for(pilot, lambda: not app.screen.query_one("#alarms").display)
        await pilot.press("1")
        assert _cell(app, "eth", "state") == "● ready"


@pytest.mark.asyncio
async def test_a_silent_agent_stalls_neither_keys_nor_quitting(
    fake_agent: Any, wait_for: Wait, answer: Answer
) -> None:
    """The question stays open; the screen does not wait for it."""
    fake_agent.silent = True
    app = OperatorApp(answer, fake_agent.open, interval_s=60.0)
    async with asyncio.timeout(20.0), app.run_test(size=SMALL) as pilot:
        await wait_for(pilot, lambda: fake_agent.asked == 1)
        await pilot.press("2", "question_mark", "escape", "1", "slash", "e", "enter")
        assert _keys(app)
        await pilot.press("q")
    assert app.return_code == 0


@pytest.mark.asyncio
async def test_the_sources_of_the_row_under_the_cursor_stand_below(app: OperatorApp) -> None:
    """They follow the cursor."""
    async with app.run_test(size=SMALL) as pilot:
        await pilot.press("2")
        assert "sent a wrong byte" in _said(app, "#sources")
        await pilot.press("end")
        await pilot.pause()
        assert "no source is left for 2940 pieces." in _said(app, "#sources")


@pytest.mark.asyncio
async def test_a_name_with_markup_is_shown_as_it_is(fake_agent: Any) -> None:
    """In the table, on its page and in the page's title; nothing is coloured or followed by it."""
    name = "[red]x[/red] [@click=app.quit]y[/]"
    sites = fake_agent.answer.federation.sites
    _federation(fake_agent, sites=(replace(sites[1], name=name, fault=name),))
    app = OperatorApp(fake_agent.answer, fake_agent.open, interval_s=60.0)
    async with app.run_test(size=(140, 40)) as pilot:
        assert _cell(app, name, "name") == "* [red]x[/red] [@click=app.q…"
        await pilot.press("enter")
        assert name in _said(app, "#page-body")
        text = "\n".join(
            "".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()
        )
        assert text.count(name) >= 2


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [SMALL, (120, 40), (40, 10)])
async def test_every_column_that_fits_is_there_at_every_size(
    app: OperatorApp, size: tuple[int, int], wait_for: Wait
) -> None:
    """80 by 24 shows all of Pulse without scrolling sideways; a smaller one still runs and grows."""
    async with app.run_test(size=size) as pilot:
        for key in ("1", "2"):
            await pilot.press(key)
            for table in app.screen.query(RowTable):
                assert size[0] < 80 or table.virtual_size.width <= size[0]
        await pilot.resize_terminal(132, 50)
        table = app.screen.query_one(RowTable)
        await wait_for(pilot, lambda: any(column.key.value == "from" for column in table.ordered_columns))
