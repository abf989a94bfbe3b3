"""A donor's rules step by step: one request, one node with one device, its lease, and what effects say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agent.gateway.core.book import Book, Lease, Offer, lease_id_of
from agent.gateway.core.events import (
    Effect,
    Ended,
    Event,
    NodeHeard,
    OfferAsked,
    OfferCommitted,
    Record,
    Refuse,
    Started,
)
from agent.gateway.core.fleet import Device, DeviceRef, NodeReport
from agent.gateway.core.leases import State, step
from agent.gateway.core.request import LeaseRequest
from agent.limits import LEASE_TTL_S

REQUEST = LeaseRequest(
    id="r1",
    borrower_site="uni-b",
    borrower_node="b1",
    model="uni-a/llama",
    image_id="a" * 64,
    total_bytes=10,
    account="",
    purpose="",
)
REPORT = NodeReport("n1", "n1:7400", (Device("gpu0", "gpu", 80),), (), (), 0, True, 0.0)
GPU0 = DeviceRef("n1", "gpu0")


def lease_id(request: LeaseRequest, offer_id: str) -> str:
    """The id of the lease that an offer becomes."""
    return lease_id_of(Offer(offer_id, request, (GPU0,), warm=False, expires_at_s=0.0))


L1 = lease_id(REQUEST, "o1")


def run(state: State, *events: Event) -> tuple[State, list[Effect]]:
    """All effects of some events, one after the other."""
    effects: list[Effect] = []
    for event in events:
        state, more = step(state, event)
        effects += (one for one in more if not isinstance(one, Record))
    return state, effects


def kinds(effects: Iterable[Effect]) -> list[str]:
    """The effects by the names of their classes."""
    return [type(one).__name__ for one in effects]


def refusal(effects: Iterable[Effect]) -> str:
    """The code of the one refusal."""
    (one,) = effects
    assert isinstance(one, Refuse)
    assert one.refused.sentence.endswith(".")
    assert one.refused.fix
    return one.refused.code


def heard(*leases: str, now_s: float, node: str = "n1") -> NodeHeard:
    """A report of the one node."""
    return NodeHeard(replace(REPORT, node=node, leases=leases), now_s)


def committed(*, ttl_s: float = LEASE_TTL_S) -> State:
    """A lease l1 from the offer o1, committed at 0."""
    state = State(Book(ttl_s))
    commit = OfferCommitted("o1", "uni-b", 0.0)
    return run(state, heard(now_s=0.0), OfferAsked(REQUEST, "o1", 0.0), commit)[0]


def active() -> State:
    """The lease l1, started at 1."""
    return run(committed(), Started(L1, 1.0))[0]


def ended(effects: Iterable[Effect]) -> list[tuple[str, str]]:
    """The leases that ended, with their reasons."""
    return [(one.lease.id, one.reason) for one in effects if isinstance(one, Ended)]


def saved() -> Lease:
    """The lease as it is on disk."""
    return active().book.leases[L1]
