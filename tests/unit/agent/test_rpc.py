"""What crosses a gRPC call: values, events and errors; and the committed stubs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from agent.local import federation_views, views
from agent.rpc import convert
from agent.rpc.generate import generate
from agent.rpc.streams import stream_of

_ROOT = Path(__file__).parents[3]
IMAGE = "ab" * 32
SOURCE = views.SourceView("eth", "tcp", 10, "dropped", "sent a wrong byte")
PROGRESS = views.ProgressView(10, 20, "tcp", (SOURCE,))
LEASE = views.LeaseView(
    "l", "m", IMAGE, "ended", 1.5, 2.5, "why", 4000, 77, "eth/gpu07", "uni-a/n1", "/a", "uid:7"
)
STATUS = views.StatusView(
    "eth",
    "0.1.0",
    3.5,
    5,
    views.CacheView(True, 6, 100, 50, 60, 1, "it died", (views.WorkerView("tcp", 7),)),
    views.SparesView(2, 1, (8, 9), "fault"),
    (views.PeerView("unix:/x", "n", True, "f"),),
    2,
    "disk full",
    policy=federation_views.PolicyView(3, "ab", 2, "it opted out", ((4, 5),), ("one",)),
)
PLACE = views.PlaceView(1, 2, (views.ReasonView("full", "all in use.", "wait"),), (3.5, 9.5))
START = views.StartView("tcp", 20, 0.25, 0.125, 0.5, True, (views.PhaseView("map", 0.25),), (SOURCE,))


@pytest.mark.parametrize(
    ("value", "there", "back"),
    [
        (STATUS, convert.status_to, convert.status_from),
        (
            views.ModelView("m", IMAGE, 20, "/f", 2.5, 2, 1, 3, "published"),
            convert.model_to,
            convert.model_from,
        ),
        (LEASE, convert.lease_to, convert.lease_from),
        (
            views.TransferView("t", "m", IMAGE, "pull", "failed", PROGRESS, 2.5, 0.5, "why"),
            convert.transfer_to,
            convert.transfer_from,
        ),
        (views.NoteView("n"), convert.publish_event_to, convert.publish_event_from),
        (PROGRESS, convert.publish_event_to, convert.publish_event_from),
        (
            views.PublishedView("m", IMAGE, 20, 2, 3, ("a", "b"), "cd" * 32, 0.5, "mit"),
            convert.publish_event_to,
            convert.publish_event_from,
        ),
        (views.NoteView("n"), convert.run_event_to, convert.run_event_from),
        (PROGRESS, convert.run_event_to, convert.run_event_from),
        (views.PhaseView("map", 0.5), convert.run_event_to, convert.run_event_from),
        (views.AcceptedView("l", 600.0, "eth", "gpu07"), convert.run_event_to, convert.run_event_from),
        (views.WaitingView("eth", PLACE), convert.run_event_to, convert.run_event_from),
        (views.GrantedView(LEASE, "http://e", "key", START), convert.run_event_to, convert.run_event_from),
    ],
    ids=lambda value: type(value).__name__ if is_dataclass(value) else "",
)
def test_a_value_survives_the_wire(
    value: object, there: Callable[[object], object], back: Callable[[object], object]
) -> None:
    """Every field arrives; none of these has a default's value, so that a forgotten one shows."""
    if is_dataclass(value):
        assert all(getattr(value, field.name) not in ("", 0, None, ()) for field in fields(value))
    assert back(there(value)) == value


def test_what_is_absent_stays_absent() -> None:
    """None is neither 0 nor an empty text on the other side."""
    lease = views.LeaseView("l", "m", IMAGE, "warming", 1.5, None, "", None, None)
    assert convert.lease_from(convert.lease_to(lease)) == lease


def test_the_committed_stubs_are_up_to_date() -> None:
    """Whoever changes the protocol file runs the generator."""
    for name, text in generate().items():
        assert (_ROOT / name).read_text() == text, f"{name}: run python -m agent.rpc.generate"


def _collect(work: Callable[[Callable[[object], None]], object]) -> list[object]:
    async def run() -> list[object]:
        return [event async for event in stream_of(work)]  # type: ignore[arg-type]

    return asyncio.run(run())


def test_a_stream_ends_with_the_result() -> None:
    """Notes keep their order; the outcome is last."""

    async def work(emit: Callable[[object], None]) -> object:
        emit(views.NoteView("a"))
        emit(views.NoteView("b"))
        return "done"

    assert _collect(work) == [views.NoteView("a"), views.NoteView("b"), "done"]


def test_a_slow_reader_sees_only_the_newest_progress() -> None:
    """Progress never piles up; notes between are kept."""

    async def work(emit: Callable[[object], None]) -> object:
        for done in range(1000):
            emit(views.ProgressView(done, 1000, "tcp"))
        emit(views.NoteView("a"))
        emit(views.ProgressView(1000, 1000, "tcp"))
        return "done"

    assert _collect(work) == [
        views.ProgressView(999, 1000, "tcp"),
        views.NoteView("a"),
        views.ProgressView(1000, 1000, "tcp"),
        "done",
    ]


def test_a_reader_that_leaves_ends_the_work() -> None:
    """A caller that presses Ctrl-C does not leave a pull behind."""

    async def run() -> bool:
        ended = asyncio.Event()

        async def work(emit: Callable[[object], None]) -> object:
            emit(views.NoteView("a"))
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return None

        events = stream_of(work)
        await anext(events)
        await events.aclose()
        return ended.is_set()

    assert asyncio.run(run())


def test_a_failure_of_the_work_reaches_the_reader_after_its_events() -> None:
    """What was said before the failure is not lost."""

    async def run() -> list[object]:
        async def work(emit: Callable[[object], None]) -> object:
            emit(views.NoteView("a"))
            raise ValueError("x")

        seen: list[object] = []
        events = stream_of(work)
        seen.append(await anext(events))
        with pytest.raises(ValueError, match="x"):
            await anext(events)
        return seen

    assert asyncio.run(run()) == [views.NoteView("a")]
