"""The picture: what is kept of answers, faults and samples."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from agent.local.federation_views import FederationView
from tui.alarms import alarms
from tui.limits import HISTORY_SAMPLES, RATE_SAMPLES
from tui.look import Tone
from tui.picture import Picture
from tui.source import Answer


def _with(answer: Answer, done_bytes: int) -> Answer:
    first = answer.transfers[0]
    progress = replace(first.progress, done_bytes=done_bytes)
    return replace(answer, transfers=(replace(first, progress=progress), *answer.transfers[1:]))


def _said(picture: Picture) -> list[str]:
    return [cell.text for cell in alarms(picture)]


def test_a_fault_keeps_the_last_answer_and_an_answer_ends_the_fault(picture: Picture, answer: Answer) -> None:
    """What was known gets older, nothing else."""
    failed = picture.failed("no agent answers.", picture.now + 30)
    assert (failed.answer, failed.age_s, failed.history) == (picture.answer, 30, picture.history)
    assert _said(failed) == ["■ No answer from the agent, shown is what it said 30 s ago: no agent answers."]
    again = failed.answered(answer, picture.now + 40)
    assert (again.fault, again.age_s, _said(again)) == ("", 0, [])


def test_a_question_that_stays_open_is_said_before_it_fails(picture: Picture) -> None:
    """Three intervals without an answer are enough."""
    assert _said(picture.at(picture.now + 4)) == []
    assert _said(picture.at(picture.now + 5)) == [
        "■ No answer from the agent, shown is what it said 5 s ago."
    ]


def test_a_clock_that_goes_back_makes_nothing_younger_than_now(picture: Picture) -> None:
    """An age is never negative."""
    assert picture.at(picture.now - 100).age_s == 0


def test_the_history_of_rates_is_bounded_and_forgets_who_left(picture: Picture, answer: Answer) -> None:
    """As many samples as a sparkline shows, of institutions that are still there."""
    for step in range(2 * HISTORY_SAMPLES):
        picture = picture.answered(answer, picture.now + step)
    assert {len(rates) for rates in picture.history.rates.values()} == {HISTORY_SAMPLES}
    alone = replace(answer, federation=replace(answer.federation, sites=answer.federation.sites[:1]))
    assert list(picture.answered(alone, picture.now + 1).history.rates) == ["epfl"]


@pytest.mark.parametrize("rate", [math.nan, math.inf, -1.0])
def test_a_rate_that_is_none_counts_as_nothing(answer: Answer, rate: float) -> None:
    """A peer cannot spoil the scale."""
    site = replace(answer.federation.sites[0], transfer_bytes_per_s=rate)
    spoiled = replace(answer, federation=replace(answer.federation, sites=(site,)))
    assert Picture.first(spoiled, 1.0, interval_s=1.0).history.rates == {"epfl": (0.0,)}


def test_the_rate_of_a_transfer_is_that_of_the_last_samples(answer: Answer) -> None:
    """A pull that slowed down says so; one sample gives none; finished ones have none."""
    picture = Picture.first(_with(answer, 0), 0.0, interval_s=1.0)
    assert picture.history.transfer_rate("t2") is None
    for second in range(1, 11):
        picture = picture.answered(_with(answer, 1000 * second), float(second))
    assert picture.history.transfer_rate("t2") == 1000
    for second in range(11, 11 + RATE_SAMPLES):
        picture = picture.answered(_with(answer, 10_000 + (second - 10) * 10), float(second))
    assert picture.history.transfer_rate("t2") == 10
    assert picture.history.transfer_rate("t1") is None
    assert len(picture.history.done["t2"]) == RATE_SAMPLES


def test_a_transfer_that_begins_again_has_no_negative_rate(answer: Answer) -> None:
    """A lane that was tried twice starts at nothing."""
    picture = Picture.first(_with(answer, 5000), 0.0, interval_s=1.0).answered(_with(answer, 0), 1.0)
    assert picture.history.transfer_rate("t2") == 0


def _federation(picture: Picture, **changes: object) -> Picture:
    federation: FederationView = replace(picture.answer.federation, **changes)  # type: ignore[arg-type]
    return replace(picture, answer=replace(picture.answer, federation=federation))


@pytest.mark.parametrize(
    ("left_s", "tone", "words"),
    [
        (7 * 3600.0, None, ""),
        (5 * 3600.0, Tone.WARN, "▲ this node's certificate expires in 5.0 hours"),
        (-7200.0, Tone.BAD, "■ this node's certificate expired 2.0 hours ago"),
    ],
)
def test_a_certificate_in_its_last_quarter_is_an_alarm(
    picture: Picture, left_s: float, tone: Tone | None, words: str
) -> None:
    """It should have been renewed at half of its life."""
    found = alarms(_federation(picture, certificate_expires_at=picture.now + left_s))
    assert [cell.tone for cell in found] == ([] if tone is None else [tone])
    assert all(cell.text.startswith(words) for cell in found)


def test_trouble_with_the_registry_and_a_bad_state_file_are_alarms(picture: Picture) -> None:
    """The node says why, and we say it on every view, made safe to print; to be in none is no trouble."""
    registry = replace(picture.answer.federation.registry, state="stale", detail="no mirror answers.\x1b[2J")
    assert _said(_federation(picture, registry=replace(registry, state="none"))) == []
    told = _federation(picture, registry=registry)
    status = replace(told.answer.status, state_fault="the disk is full.")
    told = replace(told, answer=replace(told.answer, status=status))
    assert _said(told) == ["■ the disk is full.", "▲ registry: no mirror answers.\\x1b[2J"]
