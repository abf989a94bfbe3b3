"""Between protobuf messages and the values of ``agent.daemon.faces`` and ``agent.daemon.reports``.

What comes from peers is checked where it is read: ids, names that are printed or stored, and numbers: a float
may be no number at all, and SQLite keeps no integer above 2^63.
"""

from __future__ import annotations

import math
from typing import Literal

from agent.daemon.faces import LeaseOffer, OfferRequest, Order, Refusal, Wish
from agent.daemon.reports import (
    ClassCount,
    LeaseEnd,
    LeaseUse,
    Report,
    ReportedDevice,
    ReportedImage,
    SiteSummary,
)
from agent.errors import RequestError
from agent.limits import (
    GRACE_S,
    MAX_ASK_WAIT_S,
    MAX_DEVICE_BYTES,
    MAX_DEVICE_CLASSES,
    MAX_DEVICES,
    MAX_DURATION_S,
    MAX_ERROR_TEXT_BYTES,
    MAX_GRACE_S,
    MAX_ID_CHARS,
    MAX_KIND_CHARS,
    MAX_LEASE_BYTES,
    MAX_LEASE_ENERGY_WH,
    MAX_LEASE_TTL_S,
    MAX_NAME_CHARS,
    MAX_REASON_BYTES,
    MAX_REASONS,
    MAX_REPORTED_IMAGES,
    MAX_REPORTED_NAMES,
    MAX_SIGNATURE_BYTES,
    MAX_SITE_DEVICES,
)
from agent.local.views import PlaceView, ReasonView
from agent.resolve import check_name
from agent.rpc import convert
from agent.rpc import pyrdma_pb2 as pb
from agent.text import printable
from federation.fairshare.accounts import check_account
from federation.identity.names import check_address, check_label
from federation.limits import MAX_IMAGE_BYTES
from federation.policy.policy import PER_MILLE
from pyrdma.image.manifest import ImageId


def check_id(text: str) -> str:
    """Return a lease's, offer's or request's id. Raises RequestError."""
    if not 0 < len(text) <= MAX_ID_CHARS or not text.isalnum() or not text.isascii():
        raise RequestError(f"an id has 1 to {MAX_ID_CHARS} letters and digits.")
    return text


def check_seconds(seconds: float) -> float:
    """Return a lease's time. Raises RequestError."""
    if not 0.0 <= seconds <= MAX_LEASE_TTL_S:  # false for what is no number, too
        raise RequestError(f"a lease's time is a number of seconds up to {MAX_LEASE_TTL_S:.0f}.")
    return seconds


def check_image_bytes(nbytes: int) -> int:
    """Return an image's size. Raises RequestError."""
    if nbytes > MAX_IMAGE_BYTES:
        raise RequestError(f"an image has at most {MAX_IMAGE_BYTES} bytes.")
    return nbytes


def rate_from(bytes_per_s: float) -> float:
    """Return a rate or a time for people to read; 0 where it is none."""
    return bytes_per_s if math.isfinite(bytes_per_s) and bytes_per_s > 0 else 0.0


def wish_to(wish: Wish) -> pb.RunRequest:
    """Return the message of a wish."""
    return pb.RunRequest(
        model=wish.model,
        site=wish.site,
        node=wish.node,
        account=wish.account,
        purpose=wish.purpose,
        instant=wish.instant,
        duration_s=wish.duration_s,
    )


def order_to(order: Order) -> pb.StartRunnerRequest:
    """Return the message of an order."""
    return pb.StartRunnerRequest(
        lease_id=order.lease_id,
        model=order.model,
        image_id=bytes(order.image_id),
        ttl_s=order.ttl_s,
        borrower=order.borrower,
        devices=order.devices,
        grace_s=order.grace_s,
        most_bytes=order.most_bytes,
    )


def order_from(message: pb.StartRunnerRequest) -> Order:
    """Return the value of an order. Raises Error."""
    if len(message.devices) > MAX_DEVICES:
        raise RequestError(f"a node has at most {MAX_DEVICES} devices.")
    grace_s = message.grace_s if message.HasField("grace_s") else GRACE_S
    return Order(
        check_id(message.lease_id),
        check_name(message.model),
        ImageId(message.image_id),
        check_seconds(message.ttl_s),
        printable(message.borrower, MAX_NAME_CHARS),
        devices=tuple(printable(one, MAX_ID_CHARS) for one in message.devices),
        grace_s=check_grace(grace_s),
        most_bytes=check_image_bytes(message.most_bytes),
    )


def check_grace(seconds: float) -> float:
    """Return a lease's grace. Raises RequestError."""
    if not 0.0 <= seconds <= MAX_GRACE_S:  # false for what is no number, too
        raise RequestError(f"a lease's grace is a number of seconds up to {MAX_GRACE_S:.0f}.")
    return seconds


def check_wait(seconds: float) -> float:
    """Return how long a question may be kept open. Raises RequestError."""
    if not 0.0 <= seconds <= MAX_ASK_WAIT_S:  # false for what is no number, too
        raise RequestError(f"a question waits at most {MAX_ASK_WAIT_S:.0f} s.")
    return seconds


def offer_request_to(request: OfferRequest, wait_s: float) -> pb.AskOfferRequest:
    """Return the message of a request for an offer."""
    return pb.AskOfferRequest(
        request_id=request.request_id,
        model=request.model,
        image_id=bytes(request.image_id),
        total_bytes=request.total_bytes,
        devices=request.devices,
        node=request.node,
        borrower_node=request.borrower_node,
        account=request.account,
        purpose=request.purpose,
        instant=request.instant,
        duration_s=request.duration_s,
        asked_at_s=request.asked_at_s,
        nonce=request.nonce,
        signature=request.signature,
        wait_s=wait_s,
    )


def offer_request_from(message: pb.AskOfferRequest) -> OfferRequest:
    """Return the value of a request for an offer. Raises Error, FederationError."""
    return OfferRequest(
        request_id=check_id(message.request_id),
        model=check_name(message.model),
        image_id=ImageId(message.image_id),
        total_bytes=check_image_bytes(message.total_bytes),
        devices=message.devices,
        node=check_label(message.node, "node") if message.node else "",
        borrower_node=check_label(message.borrower_node, "node"),
        account=check_account(message.account) if message.account else "",
        purpose=check_label(message.purpose, "purpose") if message.purpose else "",
        instant=message.instant,
        duration_s=min(message.duration_s, MAX_DURATION_S),
        asked_at_s=message.asked_at_s,
        nonce=check_id(message.nonce) if message.nonce else "",
        signature=message.signature[:MAX_SIGNATURE_BYTES],
    )


def checked_place(place: PlaceView) -> PlaceView:
    """Return what another site says of a place, safe to print."""
    return PlaceView(
        place.position,
        place.waiting,
        tuple(
            ReasonView(
                printable(one.code, MAX_NAME_CHARS),
                printable(one.sentence, MAX_REASON_BYTES),
                printable(one.change, MAX_REASON_BYTES),
            )
            for one in place.reasons[:MAX_REASONS]
        ),
        None if place.eta_s is None else (rate_from(place.eta_s[0]), rate_from(place.eta_s[1])),
    )


def offer_reply_to(reply: LeaseOffer | PlaceView | Refusal) -> pb.OfferReply:
    """Return the message of an answer to a request."""
    if isinstance(reply, PlaceView):
        return pb.OfferReply(place=convert.place_to(reply))
    if isinstance(reply, Refusal):
        refusal = pb.Refusal(code=reply.code, sentence=reply.sentence, fix=reply.fix, terminal=reply.terminal)
        return pb.OfferReply(refusal=refusal)
    offer = pb.LeaseOffer(
        offer_id=reply.offer_id,
        ttl_s=reply.ttl_s,
        node=reply.node,
        warm=reply.warm,
        grace_s=reply.grace_s,
        min_runtime_s=reply.min_runtime_s,
        max_duration_s=reply.max_duration_s,
        instant=reply.instant,
        starts_in_s=reply.starts_in_s,
    )
    return pb.OfferReply(offer=offer)


def offer_reply_from(message: pb.OfferReply) -> LeaseOffer | PlaceView | Refusal:
    """Return the value of an answer to a request. Raises RequestError."""
    kind = message.WhichOneof("reply")
    if kind == "place":
        return checked_place(convert.place_from(message.place))
    if kind == "offer":
        offer = message.offer
        return LeaseOffer(
            check_id(offer.offer_id),
            check_seconds(offer.ttl_s),
            printable(offer.node, MAX_NAME_CHARS),
            offer.warm,
            grace_s=rate_from(offer.grace_s),
            min_runtime_s=rate_from(offer.min_runtime_s),
            max_duration_s=rate_from(offer.max_duration_s),
            instant=offer.instant,
            starts_in_s=rate_from(offer.starts_in_s),
        )
    refusal = message.refusal
    return Refusal(
        printable(refusal.code, MAX_NAME_CHARS) or "unknown",
        printable(refusal.sentence, MAX_ERROR_TEXT_BYTES) or "it gives no reason.",
        printable(refusal.fix, MAX_ERROR_TEXT_BYTES),
        refusal.terminal,
    )


def report_to(report: Report) -> pb.ReportRequest:
    """Return the message of a node's report."""
    return pb.ReportRequest(
        address=report.address,
        devices=[
            pb.ReportedDevice(
                id=one.id,
                kind=one.kind,
                memory_bytes=one.memory_bytes,
                state=one.state,
                reclaim_left_s=one.reclaim_left_s,
                device_class=one.device_class,
                reclaims=one.reclaims,
                last_reclaim_s=one.last_reclaim_s,
            )
            for one in report.devices
        ],
        images=[
            pb.ReportedImage(
                image_id=bytes(one.image_id), total_bytes=one.total_bytes, whole=one.whole, names=one.names
            )
            for one in report.images
        ],
        leases=report.leases,
        spares_ready=report.spares_ready,
        transfer_bytes_per_s=report.transfer_bytes_per_s,
        donating=report.donating,
        ended=[
            pb.EndedLease(lease_id=one.lease_id, reason=one.reason, for_owner=one.for_owner)
            for one in report.ended
        ],
        uses=[
            pb.LeaseUse(lease_id=one.lease_id, energy_wh=one.energy_wh, sent_bytes=one.sent_bytes)
            for one in report.uses
        ],
    )


def report_from(message: pb.ReportRequest) -> Report:
    """Return the value of a node's report. Raises Error, FederationError."""
    if len(message.devices) > MAX_DEVICES or len(message.images) > MAX_REPORTED_IMAGES:
        raise RequestError(f"a node reports at most {MAX_DEVICES} devices and {MAX_REPORTED_IMAGES} images.")
    return Report(
        address=check_address(message.address),
        devices=tuple(_reported_device(one) for one in message.devices),
        images=tuple(
            ReportedImage(
                ImageId(one.image_id),
                check_image_bytes(one.total_bytes),
                one.whole,
                tuple(check_name(name) for name in one.names[:MAX_REPORTED_NAMES]),
            )
            for one in message.images
        ),
        leases=tuple(check_id(one) for one in message.leases[:MAX_REPORTED_IMAGES]),
        spares_ready=message.spares_ready,
        transfer_bytes_per_s=rate_from(message.transfer_bytes_per_s),
        donating=message.donating,
        ended=tuple(
            LeaseEnd(check_id(one.lease_id), printable(one.reason, MAX_REASON_BYTES), one.for_owner)
            for one in message.ended[:MAX_REPORTED_IMAGES]
        ),
        uses=tuple(
            LeaseUse(
                check_id(one.lease_id),
                min(one.energy_wh, MAX_LEASE_ENERGY_WH) if one.HasField("energy_wh") else None,
                min(one.sent_bytes, MAX_LEASE_BYTES),
            )
            for one in message.uses[: 2 * MAX_REPORTED_IMAGES]
        ),
    )


def _reported_device(message: pb.ReportedDevice) -> ReportedDevice:
    """Return the value of a device; a state that is not known here is nobody's to lend."""
    state: Literal["lent", "reclaiming", "owned"] = "owned"
    if message.state in ("", "lent"):
        state = "lent"
    elif message.state == "reclaiming":
        state = "reclaiming"
    kind = printable(message.kind, MAX_KIND_CHARS)
    return ReportedDevice(
        printable(message.id, MAX_ID_CHARS),
        kind,
        min(message.memory_bytes, MAX_DEVICE_BYTES),
        state=state,
        reclaim_left_s=min(rate_from(message.reclaim_left_s), MAX_GRACE_S),
        device_class=printable(message.device_class, MAX_ID_CHARS) or kind,
        reclaims=message.reclaims,
        last_reclaim_s=min(rate_from(message.last_reclaim_s), MAX_LEASE_TTL_S),
    )


def summary_to(summary: SiteSummary) -> pb.SiteSummary:
    """Return the message of a site's summary."""
    return pb.SiteSummary(
        site=summary.site,
        version=summary.version,
        devices=summary.devices,
        leased=summary.leased,
        nodes=summary.nodes,
        images=summary.images,
        transfer_bytes_per_s=summary.transfer_bytes_per_s,
        by_class=[
            pb.DeviceCount(device_class=one.device_class, lent=one.lent, used=one.used)
            for one in summary.by_class
        ],
        egress_left_permille=summary.egress_left_permille,
        image_bytes_per_s=summary.image_bytes_per_s,
        waiting=summary.waiting,
    )


def summary_from(message: pb.SiteSummary) -> SiteSummary:
    """Return the value of a site's summary."""
    return SiteSummary(
        site=printable(message.site, MAX_NAME_CHARS),
        version=printable(message.version, 32),
        devices=message.devices,
        leased=message.leased,
        nodes=message.nodes,
        images=message.images,
        transfer_bytes_per_s=rate_from(message.transfer_bytes_per_s),
        by_class=tuple(
            ClassCount(
                printable(one.device_class, MAX_NAME_CHARS),
                min(one.lent, MAX_SITE_DEVICES),
                min(one.used, MAX_SITE_DEVICES),
            )
            for one in message.by_class[:MAX_DEVICE_CLASSES]
        ),
        egress_left_permille=(
            min(message.egress_left_permille, PER_MILLE) if message.HasField("egress_left_permille") else None
        ),
        image_bytes_per_s=rate_from(message.image_bytes_per_s),
        waiting=message.waiting,
    )
