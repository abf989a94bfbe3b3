"""A gateway's leases, lent and brokered, as rows of the state file, and back. Pure."""

from __future__ import annotations

from agent.daemon.faces import OfferRequest
from agent.gateway.book import Lease, LeaseState, Terms
from agent.gateway.fleet import DeviceRef
from agent.gateway.request import LeaseRequest
from agent.local.views import AcceptedView
from agent.state.records import SiteLeaseRecord
from pyrdma.image.manifest import ImageId


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
    )


def lease_of(record: SiteLeaseRecord, now_s: float, boot_id: str) -> Lease:
    """Return the lease of a row; one of another boot is over, since nothing that ran then runs now."""
    devices = tuple(DeviceRef(record.node, one) for one in record.device.split(","))
    request = LeaseRequest(
        id=record.request_id,
        borrower_site=record.borrower_site,
        borrower_node=record.borrower_node,
        model=record.model,
        image_id=record.image_id.hex(),
        total_bytes=record.total_bytes,
        devices=len(devices),
        account=record.account,
        purpose=record.purpose,
        instant=bool(record.instant),
        duration_s=record.duration_s,
    )
    same_boot = record.boot_id == boot_id
    return Lease(
        id=record.id,
        offer_id=record.offer_id,
        request=request,
        devices=devices,
        state=LeaseState(record.state),
        deadline_s=record.deadline_s if same_boot else now_s,
        terms=_terms_of(record),
        granted_at_s=record.granted_at_s if same_boot and record.granted_at_s else now_s,
    )


def _terms_of(record: SiteLeaseRecord) -> Terms:
    # A row that was written before rows had terms has those that a policy has by default.
    if record.grace_s is None or record.min_runtime_s is None or record.max_duration_s is None:
        return Terms()
    return Terms(record.grace_s, record.min_runtime_s, record.max_duration_s, instant=bool(record.instant))


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
