"""The last leases that ended, as a map that never changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.gateway.core.book import Cause, Lease, LeaseState
from agent.gateway.core.fleet import DeviceRef
from agent.gateway.core.past import past_of
from agent.gateway.core.request import LeaseRequest

MOST = 50


def _ended(number: int, request: str, cause: Cause) -> Lease:
    asked = LeaseRequest(
        id=request,
        borrower_site="uni-b",
        borrower_node="n1",
        model="m",
        image_id="0" * 64,
        total_bytes=1,
        account="/uni-b",
        purpose="research",
    )
    return Lease(
        id=f"l{number}",
        offer_id=f"o{number}",
        request=asked,
        devices=(DeviceRef("n1", "gpu0"),),
        state=LeaseState.ENDED,
        deadline_s=0.0,
        notice_deadline_s=float(number),
        cause=cause,
    )


@given(
    st.lists(
        st.tuples(
            st.integers(0, 120), st.sampled_from("abcd"), st.sampled_from((Cause.PREEMPTED, Cause.GONE))
        ),
        max_size=120,
    ),
    st.one_of(st.just(MOST), st.integers(0, 70)),
)
def test_it_is_a_dictionary_of_the_last(ends: list[tuple[int, str, Cause]], begin: int) -> None:
    """It has what a dictionary would have that drops its oldest, in the same order, and finds lost leases."""
    causes = [Cause.PREEMPTED] * 4 + [Cause.GONE] * begin
    plain = {f"l{200 + at}": _ended(200 + at, "abcd"[at % 4], causes[at]) for at in range(begin)}
    past = past_of(dict(plain))
    for number, request, cause in ends:
        lease = _ended(number, request, cause)
        before, seen = past, list(past.items())
        past, dropped = past.with_ended(lease, MOST)
        plain[lease.id] = lease
        expected = []
        while len(plain) > MOST:
            expected.append(next(iter(plain)))
            del plain[expected[-1]]
        assert list(dropped) == expected
        assert list(past.items()) == list(plain.items())
        assert past == plain
        assert all(one in past for one in plain)
        assert not any(one in past or past.get(one) for one in dropped)
        assert list(before.items()) == seen
        for name in "abcd":
            lost = [
                one.notice_deadline_s
                for one in plain.values()
                if one.request.id == name and one.cause is Cause.PREEMPTED
            ]
            assert past.lost_at_s(("uni-b", name)) == (lost[-1] if lost else None)
