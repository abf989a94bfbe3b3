"""What one borrower may take up of a donor's queue, however many accounts it has."""

from __future__ import annotations

import pytest

from agent.gateway.core import asked
from agent.gateway.core.events import NodeHeard, OfferAsked, OfferCommitted, Queued, Refuse
from agent.gateway.core.fleet import Device, NodeReport
from agent.gateway.core.leases import State, step
from agent.gateway.core.request import LeaseRequest, Refused

NOW_S = 1000.0


def ask(state: State, request_id: str, site: str, account: str) -> tuple[State, Queued | Refused]:
    """Ask for a device of a donor whose only one is in use; return what is answered."""
    request = LeaseRequest(
        id=request_id,
        borrower_site=site,
        borrower_node="n",
        model="m",
        image_id="a" * 64,
        total_bytes=1,
        account=account,
        purpose="",
    )
    state, effects = step(state, OfferAsked(request, f"offer-{site}-{request_id}", NOW_S))
    for one in effects:
        if isinstance(one, Queued):
            return state, one
        if isinstance(one, Refuse):
            return state, one.refused
    raise AssertionError(effects)


def full() -> State:
    """A donor whose one device is somebody's."""
    node = NodeReport("n1", "n1:1", (Device("cpu0", "cpu", 100),), (), (), 1, True, 0.0)
    state, _ = step(State(), NodeHeard(node, NOW_S))
    first = LeaseRequest(
        id="r0",
        borrower_site="uni-z",
        borrower_node="n",
        model="m",
        image_id="a" * 64,
        total_bytes=1,
        account="/uni-z",
        purpose="",
    )
    state, _ = step(state, OfferAsked(first, "offer-0", NOW_S))
    state, _ = step(state, OfferCommitted("offer-0", "uni-z", NOW_S))
    return state


def test_an_institution_of_many_accounts_leaves_room_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Past its part of the queue it is refused for now; another one, and who waits already, is not."""
    monkeypatch.setattr(asked, "MAX_QUEUE_OF_INSTITUTION", 20)
    state = full()
    for at in range(20):
        state, answer = ask(state, f"r{at}", "uni-b", f"/uni-b/group-{at}")
        assert isinstance(answer, Queued)
    state, answer = ask(state, "r20", "uni-b", "/uni-b/group-20")
    assert isinstance(answer, Refused)
    assert not answer.terminal
    assert "requests of one institution" in answer.sentence
    state, answer = ask(state, "r3", "uni-b", "/uni-b/group-3")
    assert isinstance(answer, Queued)
    state, answer = ask(state, "r1", "uni-c", "/uni-c")
    assert isinstance(answer, Queued)
