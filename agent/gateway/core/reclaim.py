"""Devices that go back: to their owner, at a notice's end. Never subject to fairness.

Rules:

1. The node says how its devices stand, and needs nobody for it. A device that its owner wants is offered to
   nobody; its lease gets notice once, with the node's deadline; the node ends what runs there by then.
2. A lease whose owner wants the device ends when its node says that the runner is gone, or ``KILL_SLACK_S``
   past the deadline. One that has to go for another reason is stopped at its deadline.
3. Offers on such devices are void; whoever had one has its place in the queue again. A lease that waits for
   such a device ends: nothing of it runs.
4. If the owner changes its mind in time, the leases go on.
"""

from __future__ import annotations

from typing import Final

from agent.gateway.core.book import Cause, Lease, Offer, notice_over_s
from agent.gateway.core.change import Change
from agent.gateway.core.events import Reclaimed
from agent.gateway.core.fleet import NodeReport, withdraw

OWNER: Final = "its owner needs the device"


def take_back(change: Change, event: Reclaimed) -> None:
    """End at once what stands on a device or a node: the grace is over, or was none."""

    def meant(one: Offer | Lease) -> bool:
        return one.device.node == event.node and (
            event.device is None or any(device.device == event.device for device in one.devices)
        )

    change.fleet = withdraw(change.fleet, event.node, event.device)
    for offer in [one for one in change.offers.values() if meant(one)]:
        change.void(offer)
    for lease in [one for one in change.leases.values() if meant(one)]:
        change.record("reclaim", lease.request, lease_id=lease.id, devices=lease.devices, code=event.reason)
        change.end(lease, Cause.RECLAIMED, event.reason, left_over=True)


def take_for_owner(change: Change, lease: Lease) -> None:
    """End a lease that its node has ended for the owner of the devices; nothing of it is left there."""
    if lease.notice_cause is not Cause.RECLAIMED:
        change.record("reclaim", lease.request, lease_id=lease.id, devices=lease.devices, code=OWNER)
    change.end(lease, Cause.RECLAIMED, OWNER, left_over=False)


def hear_devices(change: Change, report: NodeReport) -> None:
    """Follow a node's word on its devices."""
    lent = {one.id for one in report.devices if one.state == "lent"}
    if not report.donating:
        lent = set()
    wanted = {one.id: one for one in report.devices if one.state != "lent"}
    for offer in [one for one in change.offers.values() if one.device.node == report.node]:
        if not lent.issuperset(device.device for device in offer.devices):
            change.void(offer)
    for lease in [one for one in change.leases.values() if one.device.node == report.node]:
        claims = [wanted[device.device] for device in lease.devices if device.device in wanted]
        if claims:
            left_s = min(0.0 if one.state == "owned" else one.reclaim_left_s for one in claims)
            _claim(change, lease, change.now_s + left_s)
        elif lease.notice_cause is Cause.RECLAIMED:
            change.unnotice(lease)


def end_noticed(change: Change, lease: Lease) -> bool:
    """End a lease whose notice is over; whether it was."""
    if lease.notice_cause is None or change.now_s < notice_over_s(lease):
        return False
    change.end(lease, lease.notice_cause, lease.notice_reason, left_over=True)
    return True


def _claim(change: Change, lease: Lease, deadline_s: float) -> None:
    before = len(change.effects)
    change.notice(lease, deadline_s, Cause.RECLAIMED, OWNER)
    if len(change.effects) > before:
        change.record("reclaim", lease.request, lease_id=lease.id, devices=lease.devices, code=OWNER)
