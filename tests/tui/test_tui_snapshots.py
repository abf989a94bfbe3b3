"""Pictures of the screens, compared; ``--snapshot-update`` makes new ones, to be looked at by a person."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from agent.errors import UnreachableError
from agent.local.federation_views import RegistryView
from tui.app import OperatorApp
from tui.source import Answer

NOW = 1_800_000_000.0
SIZES = {"80x24": (80, 24), "120x40": (120, 40)}
Wait = Callable[[Any, Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def shows(snap_compare: Any, fake_agent: Any, wait_for: Wait) -> Callable[..., bool]:
    """A function that compares the app, after its first answer and some keys, with the picture kept of it."""

    def compare(
        answer: Answer, size: str, keys: tuple[str, ...] = (), *, fault: str = "", age_s: float = 0.0
    ) -> bool:
        fake_agent.answer = answer
        now = [NOW]
        app = OperatorApp(answer, fake_agent.open, interval_s=0.2 if fault else 3600.0, clock=lambda: now[0])

        async def settle(pilot: Any) -> None:
            await wait_for(pilot, lambda: fake_agent.asked > 0)
            if fault:
                fake_agent.fault = UnreachableError(fault)
                await wait_for(pilot, lambda: bool(app.screen.query_one("#alarms").display))
                now[0] += age_s
                shown = now[0]
                await wait_for(pilot, lambda: app._picture.now == shown)

        return bool(snap_compare(app, press=keys, terminal_size=SIZES[size], run_before=settle))

    return compare


@pytest.mark.parametrize("size", SIZES)
def test_pulse(shows: Callable[..., bool], answer: Answer, size: str) -> None:
    """A line per institution, a line per node."""
    assert shows(answer, size)


@pytest.mark.parametrize("size", SIZES)
def test_transfers(shows: Callable[..., bool], answer: Answer, size: str) -> None:
    """Bars, rates, lanes, and the sources of the first."""
    assert shows(answer, size, ("2",))


def test_pulse_outside_any_institution(shows: Callable[..., bool], answer: Answer) -> None:
    """The next command."""
    registry = RegistryView("", "none", "this node belongs to no site", 0, None, None)
    outside = replace(answer.federation, site="", node="", sites=(), nodes=(), registry=registry)
    assert shows(replace(answer, federation=replace(outside, certificate_expires_at=None)), "80x24")


def test_pulse_of_a_dead_agent_without_colour(
    shows: Callable[..., bool], answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The banner, ages that grew, stale rows; glyphs and words alone tell the states."""
    monkeypatch.setenv("NO_COLOR", "1")
    steady = replace(answer, federation=replace(answer.federation, sites=_quiet(answer)))
    assert shows(steady, "80x24", fault="no agent answers on /run/pyrdma-agent/admin.sock.", age_s=90.0)


def test_the_page_of_a_node(shows: Callable[..., bool], answer: Answer) -> None:
    """Its devices and leases, over Pulse."""
    assert shows(answer, "80x24", ("down", "down", "down", "down", "enter"))


def test_help(shows: Callable[..., bool], answer: Answer) -> None:
    """States, columns, keys."""
    assert shows(answer, "120x40", ("question_mark",))


def _quiet(answer: Answer) -> tuple[Any, ...]:
    return tuple(replace(site, transfer_bytes_per_s=0.0) for site in answer.federation.sites)
