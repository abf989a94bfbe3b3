"""Between protobuf messages and the values of this node's devices."""

from __future__ import annotations

from collections.abc import Iterable

from agent.devices.wishes import Claim, DeviceChange
from agent.errors import RequestError
from agent.limits import MAX_DEVICE_BYTES, MAX_DEVICES, MAX_ID_CHARS, MAX_NAME_CHARS
from agent.local import device_views as views
from agent.rpc import pyrdma_pb2 as pb
from agent.text import printable


def device_to(view: views.OwnDeviceView) -> pb.NodeDevice:
    """Return the message of a device."""
    return pb.NodeDevice(
        id=view.id,
        kind=view.kind,
        device_class=view.device_class,
        memory_bytes=view.memory_bytes,
        state=view.state,
        wanted=view.wanted,
        left_s=view.left_s,
        guests=[
            pb.Guest(
                lease_id=one.lease_id,
                model=one.model,
                borrower=one.borrower,
                held_s=one.held_s,
                grace_s=one.grace_s,
            )
            for one in view.guests
        ],
        donated=view.donated,
        draining=view.draining,
        only_idle=view.only_idle,
        hours=view.hours,
        headroom_bytes=view.headroom_bytes,
        doubt=view.doubt,
        last_reclaim_s=-1.0 if view.last_reclaim_s is None else view.last_reclaim_s,
    )


def device_from(message: pb.NodeDevice) -> views.OwnDeviceView:
    """Return the value of a device."""
    return views.OwnDeviceView(
        id=message.id,
        kind=message.kind,
        device_class=message.device_class,
        memory_bytes=message.memory_bytes,
        state=message.state,
        wanted=tuple(message.wanted),
        left_s=message.left_s,
        guests=tuple(
            views.GuestView(one.lease_id, one.model, one.borrower, one.held_s, one.grace_s)
            for one in message.guests
        ),
        donated=message.donated,
        draining=message.draining,
        only_idle=message.only_idle,
        hours=tuple(message.hours),
        headroom_bytes=message.headroom_bytes,
        doubt=message.doubt,
        last_reclaim_s=message.last_reclaim_s if message.last_reclaim_s >= 0 else None,
    )


def devices_to(found: Iterable[views.OwnDeviceView]) -> pb.ListDevicesResponse:
    """Return the message of devices."""
    return pb.ListDevicesResponse(devices=map(device_to, found))


def devices_from(message: pb.ListDevicesResponse) -> tuple[views.OwnDeviceView, ...]:
    """Return the values of devices."""
    return tuple(map(device_from, message.devices))


def change_to(wish: DeviceChange) -> pb.ChangeDevicesRequest:
    """Return the message of what the owner says of devices."""
    return pb.ChangeDevicesRequest(
        change=wish.change,
        devices=wish.devices,
        count=wish.count,
        dry_run=wish.dry_run,
        only_idle=wish.only_idle,
        hours=None if wish.hours is None else pb.HourSpans(spans=wish.hours),
        headroom_bytes=wish.headroom_bytes,
    )


def change_from(message: pb.ChangeDevicesRequest) -> DeviceChange:
    """Return the value of what the owner says of devices. Raises RequestError."""
    return DeviceChange(
        change=message.change,
        devices=_names(message.devices),
        count=message.count,
        dry_run=message.dry_run,
        only_idle=message.only_idle if message.HasField("only_idle") else None,
        hours=tuple(message.hours.spans) if message.HasField("hours") else None,
        headroom_bytes=min(message.headroom_bytes, MAX_DEVICE_BYTES)
        if message.HasField("headroom_bytes")
        else None,
    )


def claim_to(wish: Claim) -> pb.ClaimDevicesRequest:
    """Return the message of a command that needs devices."""
    return pb.ClaimDevicesRequest(
        devices=wish.devices,
        count=wish.count,
        pid=wish.pid,
        pid_started=wish.started,
        command=printable(wish.command, MAX_NAME_CHARS),
    )


def claim_from(message: pb.ClaimDevicesRequest) -> Claim:
    """Return the value of a command that needs devices. Raises RequestError."""
    command = printable(message.command, MAX_NAME_CHARS)
    return Claim(_names(message.devices), message.count, message.pid, message.pid_started, command)


def claim_event_to(event: views.ClaimEvent) -> pb.ClaimEvent:
    """Return the message of a step of a claim."""
    if isinstance(event, views.TakingView):
        return pb.ClaimEvent(taking=devices_to(event.devices))
    over = pb.HandedOver(devices=event.devices, gpus=event.gpus, seconds=event.seconds, doubt=event.doubt)
    return pb.ClaimEvent(handed_over=over)


def claim_event_from(message: pb.ClaimEvent) -> views.ClaimEvent | None:
    """Return the value of a step of a claim; ``None`` for one that is not known here."""
    match message.WhichOneof("event"):
        case "taking":
            return views.TakingView(devices_from(message.taking))
        case "handed_over":
            over = message.handed_over
            return views.HandedOverView(tuple(over.devices), tuple(over.gpus), over.seconds, over.doubt)
    return None


def _names(names: Iterable[str]) -> tuple[str, ...]:
    found = tuple(printable(one, MAX_ID_CHARS) for one in names)
    if len(found) > MAX_DEVICES:
        raise RequestError(f"a node has at most {MAX_DEVICES} devices.")
    return found
