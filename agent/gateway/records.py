"""A gateway's leases, lent and brokered, as rows of the state file, and back. Pure.

Rules: a lent lease comes back with all that the rules need of it, its times as they were, as long as the
machine's clock goes on; after a boot it is over. A row that is not as it was written gives a lease that is
over, with a sentence, and stops nothing else. What the registry's lists said of the image is not kept: it
counts at admission only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from agent.daemon.faces import OfferRequest
from agent.gateway.core.book import Cause, Lease, LeaseState, Terms
from agent.gateway.core.fleet import DeviceRef
from agent.gateway.core.request import LeaseRequest
from agent.limits import MAX_LEASE_REST_CHARS
from agent.local.views import AcceptedView
from agent.state.records import SiteLeaseRecord
from federation.limits import MAX_CLASSES
from pyrdma.image.manifest import ImageId

_OTHER_BOOT: Final = "the machine of its donor's gateway was started again"
_DAMAGED: Final = "what its donor had written down of it is damaged"
_NO_REST: Final[Mapping[str, Any]] = {
    "asked_at_s": 0,
    "charge_msgs": None,
    "classes": [],
    "min_runtime_s": None,
    "node": None,
    "notice": None,
    "signature": "",
    "started_at_s": None,
}
"""What a row says that was written before there was more to say."""


def record_of(lease: Lease, site: str, ttl_s: float, boot_id: str, now_unix_s: float) -> SiteLeaseRecord:
    """Return the row of a lease as it stands now; ``created_at`` is now."""
    request = lease.request
    over = lease.state is LeaseState.ENDED
    return SiteLeaseRecord(
        id=lease.id,
        side="lent",
        model=request.model,
        image_id=ImageId.parse(request.image_id),
        total_bytes=request.total_bytes,
        borrower_site=request.borrower_site,
        borrower_node=request.borrower_node,
        donor_site=site,
        node=lease.device.node,
        device=",".join(one.device for one in lease.devices),
        state=str(lease.state),
        created_at=now_unix_s,
        deadline_s=lease.deadline_s,
        ttl_s=ttl_s,
        boot_id=boot_id,
        ended_at=now_unix_s if over else None,
        reason=lease.reason,
        account=request.account,
        purpose=request.purpose,
        request_id=request.id,
        offer_id=lease.offer_id,
        granted_at_s=lease.granted_at_s,
        duration_s=request.duration_s,
        grace_s=lease.terms.grace_s,
        min_runtime_s=lease.terms.min_runtime_s,
        max_duration_s=lease.terms.max_duration_s,
        instant=int(lease.terms.instant),
        rest=_rest(lease),
    )


def lease_of(record: SiteLeaseRecord, now_s: float, boot_id: str) -> Lease:
    """Return the lease of a row; one that cannot go on has a ``reason``.

    One of another boot cannot, since nothing that ran then runs now, nor one whose row is damaged.
    """
    lease = _bare(record, now_s)
    if record.boot_id != boot_id:
        return replace(lease, reason=_OTHER_BOOT)
    try:
        return _whole(lease, record)
    except (ValueError, RecursionError):
        return replace(lease, reason=_DAMAGED)


def _bare(record: SiteLeaseRecord, now_s: float) -> Lease:
    """Return what is enough to end a lease."""
    devices = tuple(DeviceRef(record.node, one) for one in record.device.split(","))
    request = LeaseRequest(
        id=record.request_id or record.id,
        borrower_site=record.borrower_site,
        borrower_node=record.borrower_node,
        model=record.model,
        image_id=record.image_id.hex(),
        total_bytes=record.total_bytes,
        devices=len(devices),
        account=record.account,
        purpose=record.purpose,
    )
    return Lease(record.id, record.offer_id, request, devices, LeaseState.RESTORED, now_s, granted_at_s=now_s)


def _whole(lease: Lease, record: SiteLeaseRecord) -> Lease:
    """Return a lease as it was; raises ValueError when the row says what no lease is."""
    rest = _rest_of(record.rest)
    state = LeaseState(record.state)
    if not all(one.device for one in lease.devices) or state is LeaseState.ENDED:
        raise ValueError("no open lease on devices")
    granted_at_s = _seconds(record.granted_at_s)
    notice: dict[str, Any] = {}
    if rest["notice"] is not None:
        deadline_s, cause, reason = _list(rest["notice"])
        notice = {
            "notice_deadline_s": _seconds(deadline_s),
            "notice_cause": Cause(_text(cause)),
            "notice_reason": _text(reason),
        }
    request = replace(
        lease.request,
        node=None if rest["node"] is None else _text(rest["node"]),
        classes=_classes(rest["classes"]),
        instant=bool(_whole_number(record.instant)),
        duration_s=_whole_number(record.duration_s),
        min_runtime_s=None if rest["min_runtime_s"] is None else _whole_number(rest["min_runtime_s"]),
        asked_at_s=_whole_number(rest["asked_at_s"]),
        signature=bytes.fromhex(_text(rest["signature"])),
    )
    return replace(
        lease,
        request=request,
        state=state,
        deadline_s=_seconds(record.deadline_s),
        terms=_terms_of(record),
        granted_at_s=granted_at_s or lease.granted_at_s,
        started_at_s=None if rest["started_at_s"] is None else _seconds(rest["started_at_s"]),
        charge_msgs=None if rest["charge_msgs"] is None else _whole_number(rest["charge_msgs"]),
        **notice,
    )


def _terms_of(record: SiteLeaseRecord) -> Terms:
    # A row that was written before rows had terms has those that a policy has by default.
    if record.grace_s is None or record.min_runtime_s is None or record.max_duration_s is None:
        return Terms()
    return Terms(
        _seconds(record.grace_s),
        _seconds(record.min_runtime_s),
        _seconds(record.max_duration_s),
        instant=bool(_whole_number(record.instant)),
    )


# --- what rows have no columns for ------------------------------------------------------------------------


def _rest(lease: Lease) -> str:
    request, notice = lease.request, None
    if lease.notice_deadline_s is not None and lease.notice_cause is not None:
        notice = [lease.notice_deadline_s, str(lease.notice_cause), lease.notice_reason]
    return _canonical(
        {
            "asked_at_s": request.asked_at_s,
            "charge_msgs": lease.charge_msgs,
            "classes": list(request.classes),
            "min_runtime_s": request.min_runtime_s,
            "node": request.node,
            "notice": notice,
            "signature": request.signature.hex(),
            "started_at_s": lease.started_at_s,
        }
    )


def _canonical(rest: object) -> str:
    return json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _rest_of(text: object) -> Mapping[str, Any]:
    """Return what ``_rest`` wrote, and nothing else."""
    if text == "":
        return _NO_REST
    if not isinstance(text, str) or len(text) > MAX_LEASE_REST_CHARS:
        raise ValueError("no text of such a length")
    rest = json.loads(text)
    if not isinstance(rest, dict) or rest.keys() != _NO_REST.keys() or _canonical(rest) != text:
        raise ValueError("not in the form in which it is written")
    return rest


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("no time")
    return value


def _whole_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ValueError("no number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")  # noqa: TRY004 - all that is wrong with a row is one kind of error
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError("no notice")
    return value


def _classes(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_CLASSES:
        raise ValueError("no classes")
    return tuple(_text(one) for one in value)


def brokered_record(
    accepted: AcceptedView, request: OfferRequest, site: str, boot_id: str, now_unix_s: float
) -> SiteLeaseRecord:
    """Return the row of a lease that another site has accepted for a node of this one.

    The lease's id is the other site's word; with its name before it, it writes over no row but its own.
    """
    return SiteLeaseRecord(
        id=f"{accepted.site}/{accepted.lease_id}",
        side="brokered",
        model=request.model,
        image_id=request.image_id,
        total_bytes=request.total_bytes,
        borrower_site=site,
        borrower_node=request.borrower_node,
        donor_site=accepted.site,
        node=accepted.node,
        device="",
        state="committed",
        created_at=now_unix_s,
        deadline_s=0.0,  # its donor counts, and its borrower
        ttl_s=accepted.ttl_s,
        boot_id=boot_id,
        account=request.account,
        purpose=request.purpose,
    )
