"""A site's queue across the local API, and as people and programs see it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from agent.local.queue_views import (
    DeviceCountView,
    QueueView,
    ReclaimsView,
    ShareView,
    TermsView,
    WaitCellView,
    WaitingRequestView,
)
from agent.local.views import PlaceView, ReasonView
from agent.openness.document import public_document, queue_document
from agent.openness.html import page
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.convert_queue import queue_from, queue_to

PLACE = PlaceView(2, 3, (ReasonView("lower-than", "/south goes first.", "wait"),), (30.0, 90.0))
VIEW = QueueView(
    site="north",
    consortium="demo",
    policy_version=4,
    policy_digest="ab" * 32,
    books_age_s=12.5,
    stale=True,
    requests=(WaitingRequestView("r1", "west/w1", "/west/lab", "safety", "llama", 2, True, 7.5, PLACE),),
    devices=(DeviceCountView("h100", 4, 3, 2),),
    waits=(WaitCellView("over 20 %", "h100", 9, 1.5, 2.5),),
    reserved_waits=(WaitCellView("student", "h100", 8, 3.5, 4.5),),
    reclaims=ReclaimsView(3, 8.5, 14.5),
    shares=(ShareView("/west", 500, 480),),
    terms=TermsView(10.0, 5.0, 900.0, 86400.0, ("/west",), ("mon-fri 20:00-06:00",)),
)


def empties(value: Any) -> list[str]:
    """Return the fields below a value that a message leaves away: a forgotten one would not show."""
    found = []
    for one in fields(value):
        inner = getattr(value, one.name)
        found += [one.name] if inner in ("", 0, None, (), False) else []
        for each in inner if isinstance(inner, tuple) else (inner,):
            found += empties(each) if is_dataclass(each) else []
    return found


def test_a_queue_survives_the_local_api() -> None:
    """Every field arrives, through bytes."""
    assert empties(VIEW) == []
    assert queue_from(pb.QueueState.FromString(queue_to(VIEW).SerializeToString())) == VIEW


def test_what_nobody_knows_is_not_zero() -> None:
    """Books of which there are none are not new, and a cell that is too small has no figure."""
    nothing = ReclaimsView(0, None, None)
    view = QueueView(
        *("north", "", 0, "", None, False, (), ()),
        waits=(WaitCellView("over 20 %", "h100", None, None, None),),
        reserved_waits=(),
        reclaims=nothing,
        shares=(),
        terms=VIEW.terms,
    )
    assert queue_from(queue_to(view)) == view
    assert "fewer than 5" in page(view)


def test_the_document_of_a_queue_is_all_of_it_and_the_public_one_is_not() -> None:
    """Its own people see requests; anybody sees none of them."""
    assert queue_document(VIEW)["requests"][0]["account"] == "/west/lab"
    public = public_document(VIEW)
    assert "requests" not in public
    assert "/west/lab" not in str(public)
    assert public["waiting"] is None


def test_the_page_is_text_whatever_people_name_things() -> None:
    """Names from policies and nodes are escaped."""
    view = QueueView(
        *("<script>", "<b>", 1, "d", 0.0, False, (), (DeviceCountView("<i>", 1, 0, 0),)),
        waits=(WaitCellView("<u>", "<s>", 5, 1.0, 2.0),),
        reserved_waits=(),
        reclaims=ReclaimsView(0, None, None),
        shares=(ShareView("/<a>", 1, 1),),
        terms=TermsView(1.0, 1.0, 1.0, 1.0, ("/<a>",), ("<p>",)),
    )
    text = page(view)
    for tag in ("<script>", "<b>", "<i>", "<u>", "<s>", "/<a>", "<p>No"):
        assert tag not in text.replace("<small>", "").replace("<p>None", ""), tag
