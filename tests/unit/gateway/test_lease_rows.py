"""Leases as rows of the state file: what comes back after a start, from old rows and from damaged ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.gateway.core.book import Cause, Lease, LeaseState, Terms
from agent.gateway.core.fleet import DeviceRef
from agent.gateway.core.request import LeaseRequest
from agent.gateway.records import lease_of, record_of
from agent.state import SiteLeaseRecord

words = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.text("abcdefgh0123456789-", min_size=1, max_size=12)
times = st.floats(0, 1e9, allow_nan=False)
numbers = st.integers(0, 1 << 50)

requests = st.builds(
    LeaseRequest,
    id=names,
    borrower_site=names,
    borrower_node=names,
    model=words,
    image_id=st.just("0a" * 32),
    total_bytes=numbers,
    devices=st.just(1),
    node=st.none() | names,
    account=words,
    purpose=words,
    classes=st.lists(names, max_size=3).map(tuple),
    instant=st.booleans(),
    duration_s=numbers,
    min_runtime_s=st.none() | numbers,
    asked_at_s=numbers,
    signature=st.binary(max_size=64),
)


@st.composite
def leases(draw: st.DrawFn) -> Lease:
    """Leases that have not ended, as a donor's rules make them."""
    devices = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    request = replace(draw(requests), devices=len(devices))
    node = draw(names)
    notice: dict[str, object] = {}
    if draw(st.booleans()):
        notice = {
            "notice_deadline_s": draw(times),
            "notice_cause": draw(st.sampled_from(Cause)),
            "notice_reason": draw(words),
        }
    return Lease(
        id=draw(names),
        offer_id=draw(names),
        request=request,
        devices=tuple(DeviceRef(node, one) for one in devices),
        state=draw(st.sampled_from([one for one in LeaseState if one is not LeaseState.ENDED])),
        deadline_s=draw(times),
        terms=Terms(draw(times), draw(times), draw(times), instant=request.instant),
        granted_at_s=draw(st.floats(0.001, 1e9)),
        started_at_s=draw(st.none() | times),
        charge_msgs=draw(st.none() | numbers),
        **notice,  # type: ignore[arg-type]
    )


LEASE = Lease(
    id="l1",
    offer_id="o1",
    request=LeaseRequest(
        id="r1",
        borrower_site="uni-b",
        borrower_node="b1",
        model="m",
        image_id="0a" * 32,
        total_bytes=10,
        account="/uni-b",
        purpose="teaching",
        classes=("student",),
        signature=b"\x01" * 64,
    ),
    devices=(DeviceRef("n1", "gpu0"),),
    state=LeaseState.ACTIVE,
    deadline_s=500.0,
    granted_at_s=100.0,
    notice_deadline_s=480.0,
    notice_cause=Cause.RECLAIMED,
    notice_reason="its owner needs the device",
)


def row(lease: Lease = LEASE) -> SiteLeaseRecord:
    """A lease's row."""
    return record_of(lease, "uni-a", 60.0, "boot", 1_700_000_000.0)


@given(lease=leases())
@settings(max_examples=150, deadline=None)
def test_a_lease_comes_back_as_it_was(lease: Lease) -> None:
    """All that rules read: request, offer, terms, times, notice, charge; and the same row again."""
    record = row(lease)
    back = lease_of(record, 777.0, "boot")
    assert back == lease
    assert row(back) == record


def test_a_row_without_a_rest_is_read_as_before() -> None:
    """An agent before wrote it: it has what its columns say."""
    old = lease_of(replace(row(), rest=""), 777.0, "boot")
    assert old.reason == ""
    assert (old.request.classes, old.request.signature, old.charge_msgs) == ((), b"", None)
    assert (old.deadline_s, old.granted_at_s, old.notice_deadline_s) == (500.0, 100.0, None)
    oldest = replace(
        row(), rest="", request_id="", granted_at_s=0.0, grace_s=None, min_runtime_s=None, max_duration_s=None
    )
    back = lease_of(oldest, 777.0, "boot")
    assert (back.reason, back.request.id, back.terms, back.granted_at_s) == ("", "l1", Terms(), 777.0)


def test_a_lease_of_another_boot_is_over() -> None:
    """Its times mean nothing on this clock."""
    back = lease_of(row(), 777.0, "another boot")
    assert back.reason == "the machine of its donor's gateway was started again"
    assert (back.id, back.devices) == (LEASE.id, LEASE.devices)


REST = row().rest


@pytest.mark.parametrize(
    "changed",
    [
        {"rest": "{"},
        {"rest": "[]"},
        {"rest": "{}"},
        {"rest": "[" * 10_000},
        {"rest": REST + " "},
        {"rest": REST.replace('"node":null', '"node":7')},
        {"rest": REST.replace('"node":null', '"node":"' + "n" * 20_000 + '"')},
        {"rest": REST.replace('"asked_at_s":0', '"asked_at_s":-1')},
        {"rest": REST.replace('"asked_at_s":0', '"asked_at_s":true')},
        {"rest": REST.replace('"asked_at_s":0', '"asked_at_s":0,"more":1')},
        {"rest": REST.replace("480.0", "NaN")},
        {"rest": REST.replace("480.0", "1e999")},
        {"rest": REST.replace('"reclaimed"', '"eaten"')},
        {"rest": REST.replace('["student"]', '[["student"]]')},
        {"rest": REST.replace('["student"]', "[" + ",".join(['"s"'] * 17) + "]")},
        {"rest": REST.replace("01" * 64, "0g")},
        {"state": "asleep"},
        {"state": "ended"},
        {"device": ""},
        {"device": "gpu0,"},
        {"deadline_s": "soon"},
        {"grace_s": "short"},
        {"instant": "yes"},
        {"rest": b"{}"},
    ],
    ids=lambda changed: str(changed)[:60],
)
def test_a_damaged_row_is_a_lease_that_is_over(changed: dict[str, object]) -> None:
    """It ends with a sentence; reading goes on."""
    back = lease_of(replace(row(), **changed), 777.0, "boot")  # type: ignore[arg-type]
    assert back.reason == "what its donor had written down of it is damaged"
    assert (back.id, back.request.borrower_site) == ("l1", "uni-b")


@given(
    rest=st.text(max_size=60) | st.builds(lambda at, one: REST[:at] + one + REST[at + 1 :], numbers, words)
)
@settings(max_examples=100, deadline=None)
def test_no_text_in_a_row_is_a_crash(rest: str) -> None:
    """Whatever stands there, a lease is returned: whole, or with why it is over."""
    back = lease_of(replace(row(), rest=rest), 777.0, "boot")
    assert back.reason or back.request.id == "r1"
