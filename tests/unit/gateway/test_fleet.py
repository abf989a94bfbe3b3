"""The nodes of a site: reports in, and who is silent."""

from __future__ import annotations

from dataclasses import replace

from agent.gateway.core.fleet import (
    Device,
    DeviceRef,
    Fleet,
    NodeReport,
    Replica,
    forget,
    heard,
    lost,
    withdraw,
)
from agent.limits import NODE_SILENCE_S

REPORT = NodeReport(
    node="n1",
    address="n1.uni-a.example:7400",
    devices=(Device("gpu0", "gpu", 80), Device("gpu1", "gpu", 80)),
    replicas=(Replica("a" * 64, whole=True), Replica("b" * 64, whole=False)),
    leases=(),
    spares_ready=1,
    donating=True,
    transfer_bytes_per_s=1e9,
)


def test_a_report_replaces_the_one_before_it() -> None:
    """Nothing of the old report stays, and the fleet before is as it was."""
    before = heard(Fleet(), REPORT, 1.0)
    after = heard(before, replace(REPORT, devices=(), replicas=()), 2.0)
    assert after.present(2.0) == (replace(REPORT, devices=(), replicas=()),)
    assert before.present(2.0) == (REPORT,)


def test_a_node_is_lost_past_its_silence_and_back_with_its_next_report() -> None:
    """Up to the limit it counts; past it it is named as lost, known still; a report ends that."""
    fleet = heard(Fleet(), REPORT, 100.0)
    assert lost(fleet, 100.0 + NODE_SILENCE_S) == ()
    late_s = 100.5 + NODE_SILENCE_S
    assert lost(fleet, late_s) == ("n1",)
    assert fleet.present(late_s) == ()
    assert "n1" in fleet.nodes
    assert lost(heard(fleet, REPORT, late_s), late_s) == ()


def test_nodes_come_in_the_order_of_their_names() -> None:
    """Whoever reported first, the answer is the same."""
    one = heard(heard(Fleet(), REPORT, 0.0), replace(REPORT, node="n0"), 0.0)
    two = heard(heard(Fleet(), replace(REPORT, node="n0"), 0.0), REPORT, 0.0)
    assert [report.node for report in one.present(0.0)] == ["n0", "n1"]
    assert one.present(0.0) == two.present(0.0)
    assert lost(one, 60.0) == ("n0", "n1")


def test_a_node_that_is_forgotten_is_gone() -> None:
    """Forgetting one leaves the others; forgetting it again changes nothing."""
    fleet = heard(heard(Fleet(), REPORT, 0.0), replace(REPORT, node="n0"), 0.0)
    left = forget(fleet, "n1")
    assert set(left.nodes) == {"n0"}
    assert forget(left, "n1") == left


def test_a_part_of_an_image_is_not_the_image() -> None:
    """A node holds an image when the replica is whole."""
    assert REPORT.holds("a" * 64)
    assert not REPORT.holds("b" * 64)
    assert not REPORT.holds("c" * 64)


def test_what_its_owner_takes_back_is_lent_again_with_the_next_report_only() -> None:
    """A device leaves its node's list, or the whole node stops donating; its silence is counted as before."""
    fleet = heard(Fleet(), REPORT, 5.0)
    one = withdraw(fleet, "n1", "gpu0").nodes["n1"]
    assert one.report == replace(REPORT, devices=REPORT.devices[1:])
    assert one.heard_at_s == 5.0
    assert withdraw(fleet, "n1", None).nodes["n1"].report == replace(REPORT, donating=False)
    assert withdraw(fleet, "n2", None) == fleet
    assert heard(withdraw(fleet, "n1", None), REPORT, 6.0).present(6.0) == (REPORT,)


def test_a_device_reads_as_a_path() -> None:
    """People see node and device in one word."""
    assert str(DeviceRef("n1", "gpu0")) == "n1/gpu0"
