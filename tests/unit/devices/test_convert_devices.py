"""Devices across the local API: what goes in comes out, and bounds hold."""

from __future__ import annotations

import pytest

from agent.daemon.faces import Order
from agent.daemon.reports import LeaseUse, Report, ReportedDevice
from agent.devices.wishes import Claim, DeviceChange
from agent.errors import RequestError
from agent.limits import MAX_DEVICES, MAX_GRACE_S
from agent.local.device_views import GuestView, HandedOverView, OwnDeviceView, TakingView
from agent.rpc import convert_devices, convert_site
from agent.rpc import pyrdma_pb2 as pb
from pyrdma.image.manifest import ImageId

DEVICE = OwnDeviceView(
    id="gpu0",
    kind="gpu",
    device_class="h100-80gb",
    memory_bytes=80 << 30,
    state="reclaiming",
    wanted=("a job", "it is lent mon-fri 20:00-06:00 only"),
    left_s=7.5,
    guests=(GuestView("l1", "m", "uni-b/b1", 12.0, 10.0),),
    donated=True,
    draining=False,
    only_idle=True,
    hours=("mon-fri 20:00-06:00",),
    headroom_bytes=1 << 30,
    doubt="",
    last_reclaim_s=None,
)


def test_devices_and_claims_come_through() -> None:
    """Every field, and nothing where there is nothing."""
    assert convert_devices.devices_from(convert_devices.devices_to([DEVICE])) == (DEVICE,)
    for event in (TakingView((DEVICE,)), HandedOverView(("gpu0",), ("GPU-a",), 3.5, "in doubt.")):
        assert convert_devices.claim_event_from(convert_devices.claim_event_to(event)) == event
    assert convert_devices.claim_event_from(pb.ClaimEvent()) is None
    claim = Claim(("gpu0",), 0, 4711, 99, "sh -c true")
    assert convert_devices.claim_from(convert_devices.claim_to(claim)) == claim


@pytest.mark.parametrize(
    "wish",
    [
        DeviceChange("donate"),
        DeviceChange("donate", ("gpu0",), only_idle=False, hours=(), headroom_bytes=0),
        DeviceChange("donate", only_idle=True, hours=("08:00-12:00",), headroom_bytes=5),
        DeviceChange("reclaim", count=2, dry_run=True),
    ],
)
def test_what_is_not_said_stays_unsaid(wish: DeviceChange) -> None:
    """No hours at all is something else than nothing said of hours."""
    assert convert_devices.change_from(convert_devices.change_to(wish)) == wish


def test_more_devices_than_a_node_has_are_refused() -> None:
    """Before anything is done with them."""
    with pytest.raises(RequestError, match="at most"):
        convert_devices.change_from(pb.ChangeDevicesRequest(devices=["x"] * (MAX_DEVICES + 1)))
    with pytest.raises(RequestError, match="at most"):
        convert_devices.claim_from(pb.ClaimDevicesRequest(devices=["x"] * (MAX_DEVICES + 1)))


def test_an_order_names_its_devices_and_its_grace() -> None:
    """An agent that names none means the usual grace."""
    order = Order("l1", "m", ImageId(bytes(32)), 60.0, "uni-b/b1", devices=("gpu0", "gpu1"), grace_s=0.0)
    message = convert_site.order_to(order)
    assert convert_site.order_from(message) == order
    message.ClearField("grace_s")
    assert convert_site.order_from(message).grace_s == 10.0
    for grace_s in (-1.0, float("nan"), MAX_GRACE_S + 1):
        message.grace_s = grace_s
        with pytest.raises(RequestError, match="grace"):
            convert_site.order_from(message)


def test_a_report_says_who_has_each_device_and_what_leases_used() -> None:
    """A state of a newer agent is nobody's to lend; figures that are none count for nothing."""
    devices = (
        ReportedDevice("gpu0", "gpu", 5, "reclaiming", 3.5, "h100", 2, 11.5),
        ReportedDevice("gpu1", "gpu", 5, "owned", 0.0, "h100"),
    )
    uses = (LeaseUse("l1", 42, 1000), LeaseUse("l2", None, 0))
    report = Report("127.0.0.1:7443", devices, (), ("l1",), 0, 0.0, donating=True, uses=uses)
    message = convert_site.report_to(report)
    assert convert_site.report_from(message) == report
    message.devices[0].state = "melting"
    message.devices[0].reclaim_left_s = float("nan")
    message.devices[0].device_class = ""
    message.devices[1].state = ""
    first, second = convert_site.report_from(message).devices
    assert (first.state, first.reclaim_left_s, first.device_class) == ("owned", 0.0, "gpu")
    assert second.state == "lent"
