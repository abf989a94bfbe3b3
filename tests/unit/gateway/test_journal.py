"""Events and decisions as bytes, and back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.errors import InternalError
from agent.gateway.core import journal
from agent.gateway.core.book import Cause, Lease, LeaseState, Terms
from agent.gateway.core.events import (
    ClockRead,
    EgressCounted,
    Event,
    NodeHeard,
    OfferAsked,
    OfferCommitted,
    PolicyChanged,
    Receipted,
    Reclaimed,
    Record,
    Released,
    Renewed,
    Restored,
    RunnerEnded,
    StandingChanged,
    Started,
    StartFailed,
    Tick,
    Withdrawn,
)
from agent.gateway.core.fleet import Device, DeviceRef, NodeReport, Replica
from agent.gateway.core.leases import State, step
from agent.gateway.core.request import LeaseRequest
from federation.fairshare.freshness import Split
from federation.fairshare.standing import Standing
from federation.policy.policy import (
    AccountRule,
    DenyRule,
    Match,
    ModelRule,
    Models,
    Policy,
    PurposeRule,
    Where,
)

REQUEST = LeaseRequest(
    id="r1",
    borrower_site="uni-b",
    borrower_node="b1",
    model="uni-a/llama",
    image_id="a" * 64,
    total_bytes=10,
    account="/uni-b/nlp",
    purpose="teaching",
    classes=("student",),
    min_runtime_s=60,
    signature=b"\x00\xff",
)
POLICY = Policy(
    name="c",
    version=1,
    effective_at_s=0,
    digest="d" * 64,
    accounts={
        "/uni-b": AccountRule("/uni-b", 2, (), ("uni-b",), {"x": "y"}, open=True, where=Where("f", 1, 2))
    },
    classes={},
    purposes={"teaching": PurposeRule("teaching", 1000, ("*",))},
    device_classes={"gpu": 1000},
    models=Models(rules=(ModelRule("m", Match(models=("uni-a/*",)), only_for=("/uni-b",)),)),
    deny=(DenyRule("no-nights", Match(hours=("20:00-06:00",), larger_than_bytes=5), "sleep"),),
)
STANDING = Standing(3, POLICY, {"/uni-b": 1 << 50}, donated={"gpu": 4}, split=Split(1, {"/uni-b": 7}))
REPORT = NodeReport(
    "n1",
    "n1:7400",
    (Device("gpu0", "gpu", 80, "h100", "reclaiming", 12.5),),
    (Replica("a" * 64, whole=True),),
    ("l1",),
    1,
    True,
    1.5,
)
LEASE = Lease(
    "l1",
    "o1",
    REQUEST,
    (DeviceRef("n1", "gpu0"), DeviceRef("n1", "gpu1")),
    LeaseState.ACTIVE,
    60.5,
    Terms(10.0, 900.0, 7200.0, instant=True),
    notice_deadline_s=9.25,
    notice_cause=Cause.PREEMPTED,
)
EVENTS: tuple[Event, ...] = (
    OfferAsked(REQUEST, "o1", 1.0),
    OfferCommitted("o1", "uni-b", 1.5),
    Withdrawn("r1", "uni-b", 2.0),
    Started("l1", 2.5),
    StartFailed("l1", 'why "so"\n', 3.0),
    Renewed("l1", "uni-b", 0.1),
    Released("l1", "uni-b", "étude", 4.0),
    RunnerEnded("l1", "", 4.0),
    NodeHeard(REPORT, 5.0),
    Reclaimed("n1", None, "mine", 6.0),
    PolicyChanged(POLICY, 8.0),
    PolicyChanged(None, 8.0),
    StandingChanged(STANDING, 9.0),
    Receipted("l1", 10**15, 10.0),
    ClockRead(1_700_000_000, 7200, 11.0),
    EgressCounted(5, 60.0, 12.0),
    Restored((LEASE, replace(LEASE, id="l2", cause=Cause.GONE)), 13.0),
    Tick(14.0),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda one: type(one).__name__)
def test_an_event_comes_back_from_its_bytes(event: Event) -> None:
    """It equals what it was, and gives the same bytes again."""
    body = journal.event_bytes(event)
    assert journal.event_of(body) == event
    assert journal.event_bytes(journal.event_of(body)) == body


def test_every_kind_of_event_is_tried_here() -> None:
    """A new one has to be added above."""
    assert {type(one) for one in EVENTS} == set(Event.__args__)


def test_no_two_kinds_share_a_name() -> None:
    """Names stand for classes in the bytes."""
    named = [name for module in journal._MODULES for name, kind in vars(module).items() if _own(module, kind)]
    assert len(named) == len(set(named)) == len(journal._KINDS)


def _own(module: object, kind: object) -> bool:
    return (
        isinstance(kind, type)
        and hasattr(kind, "__dataclass_fields__")
        and kind.__module__ == getattr(module, "__name__", "")
    )


def test_equal_values_give_equal_bytes() -> None:
    """A table's order is not in them."""
    one = replace(STANDING, usage={"/a": 1, "/b": 2})
    other = replace(STANDING, usage={"/b": 2, "/a": 1})
    assert journal.event_bytes(StandingChanged(one, 1.0)) == journal.event_bytes(StandingChanged(other, 1.0))


def test_a_decision_comes_back_with_its_reasons_and_its_event() -> None:
    """Whoever has the event of a decision can have it decided again."""
    state, _ = step(State(), NodeHeard(replace(REPORT, leases=(), devices=(Device("g", "gpu", 80),)), 0.0))
    state, _ = step(state, OfferAsked(REQUEST, "o1", 1.0))
    _, effects = step(state, OfferAsked(replace(REQUEST, id="r2"), "o2", 2.0))
    (record,) = [one for one in effects if isinstance(one, Record)]
    assert record.decision.reasons
    assert journal.decision_of(journal.decision_bytes(record.decision)) == record.decision


@pytest.mark.parametrize("body", [b'["Nothing",1]', b"[1]", b"7", b'["Tick"]', b'["Tick","a","b"]'])
def test_other_bytes_are_no_event(body: bytes) -> None:
    """They are refused."""
    with pytest.raises((InternalError, ValueError)):
        journal.event_of(body)
