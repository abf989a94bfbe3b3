"""What people and other sites see of a site, from its gateway's state."""

from __future__ import annotations

from dataclasses import replace

from agent.gateway.core.book import Book, Lease, LeaseState, Stopping
from agent.gateway.core.fleet import Device, DeviceRef, Fleet, Heard, NodeReport, Replica
from agent.gateway.core.leases import State
from agent.gateway.core.request import LeaseRequest
from agent.gateway.view import node_views, site_summary
from agent.limits import NODE_SILENCE_S
from agent.state.records import MemberRecord

NOW_S = 1000.0
REPORT = NodeReport(
    node="a1",
    address="a1:7443",
    devices=(Device("gpu0", "gpu", 80), Device("gpu1", "gpu", 80)),
    replicas=(Replica("1" * 64, whole=True), Replica("2" * 64, whole=False)),
    leases=("l1",),
    spares_ready=1,
    donating=True,
    transfer_bytes_per_s=5.0,
)
REQUEST = LeaseRequest(
    id="r", borrower_site="uni-b", borrower_node="b1", model="m", image_id="1" * 64, total_bytes=1,
    account="", purpose="",
)  # fmt: skip
LEASE = Lease("l1", "o1", REQUEST, (DeviceRef("a1", "gpu0"),), LeaseState.ACTIVE, NOW_S + 60)


def state(*reports: NodeReport, silent: tuple[NodeReport, ...] = (), book: Book | None = None) -> State:
    """A gateway's state with some nodes that were heard just now, and some that were not."""
    nodes = {one.node: Heard(one, NOW_S - 1) for one in reports}
    nodes |= {one.node: Heard(one, NOW_S - NODE_SILENCE_S - 1) for one in silent}
    return State(book or Book(), Fleet(nodes))


def test_a_site_counts_what_it_can_lend_now() -> None:
    """Devices of nodes that are there and donate; one whose lease ends is not free yet."""
    other = replace(REPORT, node="a2", donating=False, leases=())
    lost = replace(REPORT, node="a3", replicas=(Replica("3" * 64, whole=True),))
    book = Book(
        leases={"l1": LEASE},
        stopping={
            "l0": Stopping((DeviceRef("a1", "gpu1"),), NOW_S),
            "lx": Stopping((DeviceRef("a3", "gpu0"),), NOW_S),
        },
    )
    said = site_summary("uni-a", "1.0", state(REPORT, other, silent=(lost,), book=book), NOW_S)
    assert (said.site, said.version, said.nodes) == ("uni-a", "1.0", 2)
    assert (said.devices, said.leased) == (2, 2)
    assert said.images == 1, "whole ones, each once, of nodes that are there"
    assert said.transfer_bytes_per_s == 10.0
    free = site_summary("uni-a", "1.0", state(REPORT), NOW_S)
    assert (free.devices, free.leased) == (2, 0)


def test_the_gateway_stands_first_and_is_shown_before_it_has_spoken() -> None:
    """Then the nodes by name, with how long ago each was heard."""
    members = (MemberRecord("a1", 1.0, None, 2.0), MemberRecord("a9", 1.0, None, 2.0))
    views = node_views("m0", members, state(REPORT, replace(REPORT, node="a0")), NOW_S)
    assert [(one.name, one.role, one.state) for one in views] == [
        ("m0", "gateway", "expected"),
        ("a0", "node", "ready"),
        ("a1", "node", "ready"),
        ("a9", "node", "expected"),
    ]
    assert [one.age_s for one in views] == [None, 1.0, 1.0, None]
    assert (views[0].devices, views[0].address, views[0].images) == ((), "", 0)
    assert (views[2].address, views[2].images, views[2].transfer_bytes_per_s) == ("a1:7443", 1, 5.0)


def test_a_node_that_left_shows_nothing_of_what_it_said() -> None:
    """A lost one does: that is what is missing."""
    members = (MemberRecord("a1", 1.0, 5.0, 2.0), MemberRecord("a2", 1.0, None, 2.0))
    lost = replace(REPORT, node="a2")
    views = node_views("a0", members, state(REPORT, silent=(lost,)), NOW_S)
    assert [(one.name, one.state) for one in views[1:]] == [("a1", "left"), ("a2", "lost")]
    assert views[1].devices == ()
    assert len(views[2].devices) == 2


def test_a_device_shows_who_has_it() -> None:
    """Leased with its borrower, still taken while its lease ends, idle, or not donated."""
    book = Book(leases={"l1": LEASE}, stopping={"l0": Stopping((DeviceRef("a1", "gpu1"),), NOW_S)})
    (_, view) = node_views("a0", (), state(REPORT, book=book), NOW_S)
    assert [(one.id, one.state, one.lease, one.borrower) for one in view.devices] == [
        ("gpu0", "leased", "l1", "uni-b/b1"),
        ("gpu1", "leased", "l0", ""),
    ]
    (_, view) = node_views("a0", (), state(REPORT), NOW_S)
    assert [one.state for one in view.devices] == ["idle", "idle"]
    (_, view) = node_views("a0", (), state(replace(REPORT, donating=False)), NOW_S)
    assert [one.state for one in view.devices] == ["off", "off"]
