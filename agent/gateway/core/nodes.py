"""What nodes say, and what their silence means: starts, ends, reports, the leases from before a restart."""

from __future__ import annotations

from agent.gateway.core.book import Cause, LeaseState
from agent.gateway.core.change import Change
from agent.gateway.core.events import NodeHeard, Restored, RunnerEnded, Started, StartFailed, Stop
from agent.gateway.core.fleet import Heard, NodeReport, dropped, forget, heard
from agent.gateway.core.reclaim import end_noticed, hear_devices, take_for_owner
from agent.gateway.core.values import altered
from agent.limits import MAX_NODES, NODE_FORGOTTEN_S


def started(change: Change, event: Started) -> None:
    """Note that a runner answers."""
    lease = change.leases.get(event.lease_id)
    left = change.stopping.get(event.lease_id)
    if lease is not None and lease.state is LeaseState.COMMITTED:
        now_s = change.now_s
        change.put(altered(lease, state=LeaseState.ACTIVE, started_at_s=now_s, watched_from_s=now_s))
    elif left is not None:
        change.effects.append(Stop(left.device.node, event.lease_id, "its lease has ended"))


def failed_or_gone(change: Change, event: StartFailed | RunnerEnded) -> None:
    """End a lease that did not start, or whose runner is gone; free what a node has let go of."""
    gone = isinstance(event, RunnerEnded)
    lease = change.leases.get(event.lease_id)
    held = lease or change.stopping.get(event.lease_id)
    if held is not None and gone:
        change.fleet = dropped(change.fleet, held.device.node, event.lease_id)
        change.gone(event.lease_id)
    if lease is None:
        return
    if isinstance(event, RunnerEnded) and event.for_owner:
        # The owner's notice may never have been heard here: by now the device may even be lent again.
        take_for_owner(change, lease)
        return
    if lease.notice_cause is not None and gone:
        # It went because it was told to: by its owner, the operator or another guest.
        change.end(lease, lease.notice_cause, lease.notice_reason, left_over=False)
        return
    # A start that nobody answers may still go on over there.
    change.end(lease, Cause.GONE if gone else Cause.FAILED, event.reason, left_over=not gone)


def hear(change: Change, event: NodeHeard) -> None:
    """Take a node's report over."""
    report = event.report
    before = change.fleet.nodes.get(report.node)
    if before is None and len(change.fleet.nodes) >= MAX_NODES:
        change.refuse("full", f"this site has {MAX_NODES} nodes already.", "let nodes leave that are gone")
        return
    change.fleet = heard(change.fleet, report, change.now_s)
    change.look = change.look or _news(before, report, change.now_s)
    for lease in [one for one in change.leases.values() if one.device.node == report.node]:
        if lease.id in report.leases:
            if lease.state is LeaseState.RESTORED:
                change.put(altered(lease, state=LeaseState.ACTIVE))
        elif lease.watched_from_s is not None and change.surely_later(lease.watched_from_s):
            if lease.notice_cause is not None:
                change.end(lease, lease.notice_cause, lease.notice_reason, left_over=False)
            else:
                change.end(lease, Cause.GONE, "its node no longer runs it", left_over=False)
    for lease_id, left in list(change.stopping.items()):
        theirs = left.device.node == report.node
        if theirs and lease_id not in report.leases and change.surely_later(left.since_s):
            change.gone(lease_id)
    hear_devices(change, report)
    strays = change.strays(report)
    if strays:
        change.fleet = heard(change.fleet, report, change.now_s, strays)
    for lease_id in strays:
        change.effects.append(Stop(report.node, lease_id, "its site has no such lease on this node"))


def restore(change: Change, event: Restored) -> None:
    """Take over the leases that an agent before this one had granted; their times go on.

    One that had not had its devices yet ends: nothing of it runs, and who has them keeps them.
    """
    for lease in event.leases:
        conflict = any(device in change.taken for device in lease.devices)
        change.restore(altered(lease, watched_from_s=change.now_s))
        if lease.reason:
            change.end(lease, Cause.RESTARTED, lease.reason, left_over=not conflict)
        elif lease.state is LeaseState.WAITING:
            reason = "its donor started again before its devices were free"
            change.end(lease, Cause.RESTARTED, reason, left_over=False)
        elif conflict:
            change.end(lease, Cause.CONFLICT, "another lease has its device", left_over=False)
            change.effects.append(Stop(lease.device.node, lease.id, "another lease has its device"))
        elif not end_noticed(change, lease) and change.now_s >= lease.deadline_s:
            change.end(lease, Cause.EXPIRED, "its borrower did not renew it in time", left_over=True)


def end_on_lost(change: Change) -> None:
    """End the leases of nodes that have been silent for too long."""
    nodes = change.fleet.nodes
    silent = {name for name, one in nodes.items() if change.now_s - one.heard_at_s > change.node_lost_s}
    for lease in list(change.leases.values()):
        node = lease.devices[0].node
        known = nodes.get(node)
        if known is not None and node not in silent:
            continue
        since_s = known.heard_at_s if known is not None else lease.watched_from_s
        if since_s is not None and change.now_s - since_s > change.node_lost_s:
            reason = f"its node {node} has not been heard of for {change.node_lost_s:g} s"
            change.end(lease, Cause.LOST, reason, left_over=True)


def forget_silent(change: Change) -> None:
    """Strike silent nodes off, and with them what was to be stopped there."""
    for name, one in change.fleet.nodes.items():
        if change.now_s - one.heard_at_s > NODE_FORGOTTEN_S:
            change.fleet = forget(change.fleet, name)
            for lease_id, left in list(change.stopping.items()):
                if left.device.node == name:
                    change.gone(lease_id)


def _news(before: Heard | None, report: NodeReport, now_s: float) -> bool:
    """Whether somebody may be served after a report who could not be before."""
    return (
        before is None
        or before.silent(now_s)
        or before.report.devices != report.devices
        or before.report.donating != report.donating
        or before.report.leases != report.leases
    )
