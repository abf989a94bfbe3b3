"""How long a request is said to wait: the same for the same state, longer further back, bounded work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.gateway.core import eta
from agent.gateway.core.book import Book, Cause, Lease, LeaseState
from agent.gateway.core.change import Change
from agent.gateway.core.eta import MIN_DURATIONS, PLAYED, eta_of
from agent.gateway.core.events import NodeHeard, OfferAsked, Tick
from agent.gateway.core.fleet import Device, DeviceRef, NodeReport
from agent.gateway.core.leases import State, step
from agent.gateway.core.places import place_now
from agent.gateway.core.request import LeaseRequest
from agent.gateway.core.supply import Supply

NOW_S = 1000.0
LENGTHS = tuple(float(one) for one in range(60, 1260, 60))
DEVICES = tuple(DeviceRef("n1", f"g{at}") for at in range(3))


def request(name: str) -> LeaseRequest:
    """A request for one device."""
    return LeaseRequest(
        id=name,
        borrower_site="uni-b",
        borrower_node="b1",
        model="m",
        image_id="a" * 64,
        total_bytes=1,
        account="",
        purpose="",
    )


def lease(at: int) -> Lease:
    """A lease that has run for a while on one device."""
    return Lease(
        f"l{at}",
        f"o{at}",
        request(f"held{at}"),
        (DEVICES[at],),
        LeaseState.ACTIVE,
        9e9,
        granted_at_s=900.0 + at,
    )


def full(waiting: int, durations: tuple[float, ...] = LENGTHS) -> State:
    """Three devices in use, so many in line."""
    state = State(Book(1e9, leases={f"l{at}": lease(at) for at in range(3)}), durations=durations)
    devices = tuple(Device(one.device, "gpu", 80) for one in DEVICES)
    report = NodeReport("n1", "n1", devices, (), ("l0", "l1", "l2"), 0, True, 0.0)
    state, _ = step(state, NodeHeard(report, NOW_S))
    for at in range(waiting):
        state, _ = step(state, OfferAsked(request(f"r{at}"), f"w{at}", NOW_S))
    return state


def etas(state: State) -> list[tuple[float, float] | None]:
    """What each of the line is told."""
    places = [place_now(state, one.key, NOW_S) for one in state.queue.walk()]
    return [None if one is None else one.eta_s for one in places]


def test_without_a_history_nothing_is_said() -> None:
    """With a few leases to judge by neither; with enough, something is."""
    assert etas(full(1, ())) == [None]
    assert etas(full(1, LENGTHS[: MIN_DURATIONS - 1])) == [None]
    assert etas(full(1, LENGTHS[:MIN_DURATIONS])) != [None]


def test_the_same_state_gives_the_same_estimate() -> None:
    """No dice are thrown, and the order in which lengths were seen does not matter."""
    assert etas(full(9)) == etas(full(9))
    assert etas(full(9)) == etas(full(9, LENGTHS[::-1]))


def test_who_is_further_back_is_told_no_less() -> None:
    """Through the part that is played, and beyond it; nine of ten are no less than half."""
    found = [one for one in etas(full(2 * PLAYED)) if one is not None]
    assert len(found) == 2 * PLAYED
    for half in (0, 1):
        assert [one[half] for one in found] == sorted(one[half] for one in found)
    assert all(0.0 <= one[0] <= one[1] for one in found)


def test_a_device_whose_guest_has_notice_is_free_by_then() -> None:
    """However long leases last here."""
    state = full(1, (1e6,) * MIN_DURATIONS)
    leases = {
        **state.book.leases,
        "l0": replace(lease(0), notice_deadline_s=NOW_S + 7.0, notice_cause=Cause.RECLAIMED),
    }
    assert etas(replace(state, book=Book(1e9, leases=leases))) == [(7.0, 7.0)]


def test_a_device_that_somebody_is_to_have_next_is_counted_once() -> None:
    """It is free when its heir is done, not when its guest is."""
    state = full(1, (1e6,) * MIN_DURATIONS)
    guests = {f"l{at}": replace(lease(at), notice_deadline_s=NOW_S + 7.0) for at in range(3)}
    heirs = {
        f"h{at}": replace(lease(at), id=f"h{at}", request=request(f"h{at}"), state=LeaseState.WAITING)
        for at in range(3)
    }
    ((half, most),) = (one for one in etas(replace(state, book=Book(1e9, leases=guests | heirs))) if one)
    assert half > 1e5
    assert most >= half


def test_the_work_is_bounded_whatever_the_length_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths are drawn for the devices and the part that is played, not for the whole line."""
    state = full(600)
    drawn = 0
    length = eta._length

    def counted(*arguments: object) -> float:
        nonlocal drawn
        drawn += 1
        return length(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(eta, "_length", counted)
    change = Change(state, Tick(NOW_S))
    last = list(state.queue.walk())[-1]
    assert eta_of(change, Supply(change), last, 599) is not None
    assert drawn <= eta.REPLAYS * (len(DEVICES) + PLAYED + 1)
