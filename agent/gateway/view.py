"""What people and other sites see of a site, from its gateway's state. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agent.daemon.reports import ClassCount, SiteSummary
from agent.gateway.core.book import Book
from agent.gateway.core.fleet import Device, DeviceRef, Heard
from agent.gateway.core.leases import State
from agent.gateway.core.request import Place
from agent.local.federation_views import DeviceView, NodeView
from agent.local.queue_views import DeviceCountView
from agent.local.views import PlaceView, ReasonView
from agent.state.records import MemberRecord


def site_summary(site: str, version: str, state: State, now_s: float) -> SiteSummary:
    """Return what a site says of itself to others: nodes that are not lost, and their donated devices."""
    present = state.fleet.present(now_s)
    counts = device_counts(state, now_s)
    return SiteSummary(
        site=site,
        version=version,
        devices=sum(one.lent for one in counts),
        leased=sum(one.used for one in counts),
        nodes=len(present),
        images=len({replica.image_id for one in present for replica in one.replicas if replica.whole}),
        transfer_bytes_per_s=sum(one.transfer_bytes_per_s for one in present),
        by_class=tuple(ClassCount(one.device_class, one.lent, one.used) for one in counts),
    )


def device_counts(state: State, now_s: float) -> tuple[DeviceCountView, ...]:
    """Return the devices of the nodes that are not lost, by class: lent, of these used, and their owner's."""
    book = state.book
    taken = {one for part in (book.leases, book.stopping) for held in part.values() for one in held.devices}
    counts: dict[str, list[int]] = {}
    for report in state.fleet.present(now_s):
        for device in report.devices if report.donating else ():
            count = counts.setdefault(device.device_class, [0, 0, 0])
            if device.state == "owned":
                count[2] += 1
            else:
                count[0] += 1
                count[1] += DeviceRef(report.node, device.id) in taken
    return tuple(DeviceCountView(name, *counts[name]) for name in sorted(counts))


def place_view(place: Place) -> PlaceView:
    """Return a place in the queue with its reasons in words."""
    reasons = tuple(ReasonView(one.code, one.sentence(), one.change) for one in place.reasons)
    return PlaceView(place.position, place.waiting, reasons, place.eta_s)


def node_views(
    gateway: str, members: Sequence[MemberRecord], state: State, now_s: float
) -> tuple[NodeView, ...]:
    """Return the nodes of a site, the gateway first."""
    known = {one.node: one for one in members}
    names = sorted({*known, *state.fleet.nodes} - {gateway})
    return tuple(
        _node_view(name, name == gateway, known.get(name), state.fleet.nodes.get(name), state.book, now_s)
        for name in (gateway, *names)
    )


def _node_view(
    name: str, is_gateway: bool, member: MemberRecord | None, heard: Heard | None, book: Book, now_s: float
) -> NodeView:
    if member is not None and member.left_at is not None:
        state = "left"
    elif heard is None:
        state = "expected"
    else:
        state = "lost" if heard.silent(now_s) else "ready"
    report = heard.report if heard is not None and state != "left" else None
    return NodeView(
        name=name,
        address=report.address if report is not None else "",
        role="gateway" if is_gateway else "node",
        state=state,
        age_s=None if heard is None else now_s - heard.heard_at_s,
        devices=tuple(
            _device_view(DeviceRef(name, one.id), one, report.donating, book) for one in report.devices
        )
        if report is not None
        else (),
        images=sum(one.whole for one in report.replicas) if report is not None else 0,
        transfer_bytes_per_s=report.transfer_bytes_per_s if report is not None else 0.0,
    )


def _device_view(ref: DeviceRef, device: Device, donating: bool, book: Book) -> DeviceView:
    kind, memory_bytes = device.kind, device.memory_bytes
    lease = next((one for one in book.leases.values() if ref in one.devices), None)
    if lease is not None:
        borrower = f"{lease.request.borrower_site}/{lease.request.borrower_node}"
        return DeviceView(ref.device, kind, memory_bytes, "leased", lease.id, borrower)
    ending = next((one for one, left in book.stopping.items() if ref in left.devices), None)
    if ending is not None:  # nobody else gets it before its node has let go of it
        return DeviceView(ref.device, kind, memory_bytes, "leased", ending, "")
    free = "idle" if device.state == "lent" else device.state
    return DeviceView(ref.device, kind, memory_bytes, free if donating else "off", "", "")
