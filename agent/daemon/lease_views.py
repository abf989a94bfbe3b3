"""A lease of this node's books as the local API shows it. Pure."""

from __future__ import annotations

from dataclasses import replace

from agent.local.views import GrantedView, LeaseView
from agent.state import LeaseRecord


def whose(granted: GrantedView, account: str, who: str) -> GrantedView:
    """Return a granted lease with its account and its user."""
    return replace(granted, lease=replace(granted.lease, account=account, who=who))


def view_of(record: LeaseRecord, pid: int | None) -> LeaseView:
    """Return a lease as the local API shows it."""
    return LeaseView(
        id=record.id,
        model=record.model,
        image_id=record.image_id.hex(),
        state=record.state,
        created_at=record.created_at,
        ended_at=record.ended_at,
        reason=record.reason,
        port=record.port,
        pid=pid,
        donor=record.donor,
        borrower=record.borrower,
        account=record.account,
        who=record.who,
    )
