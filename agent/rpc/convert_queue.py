"""Between protobuf messages and the values of ``agent.local.queue_views``."""

from __future__ import annotations

from agent.local import queue_views as views
from agent.rpc import convert
from agent.rpc import pyrdma_pb2 as pb


def queue_to(view: views.QueueView) -> pb.QueueState:
    """Return the message of a site's queue."""
    return pb.QueueState(
        site=view.site,
        consortium=view.consortium,
        policy_version=view.policy_version,
        policy_digest=view.policy_digest,
        books_age_s=_or_negative(view.books_age_s),
        stale=view.stale,
        requests=[
            pb.WaitingRequest(
                request_id=one.request_id,
                borrower=one.borrower,
                account=one.account,
                purpose=one.purpose,
                model=one.model,
                devices=one.devices,
                instant=one.instant,
                waited_s=one.waited_s,
                place=convert.place_to(one.place),
            )
            for one in view.requests
        ],
        devices=[
            pb.DeviceCount(device_class=one.device_class, lent=one.lent, used=one.used, owned=one.owned)
            for one in view.devices
        ],
        waits=map(_cell_to, view.waits),
        reserved_waits=map(_cell_to, view.reserved_waits),
        reclaims=view.reclaims.reclaims,
        reclaim_p50_s=_or_negative(view.reclaims.p50_s),
        reclaim_longest_s=_or_negative(view.reclaims.longest_s),
        shares=[
            pb.ShareState(
                institution=one.institution,
                due_permille=one.due_permille,
                delivered_permille=one.delivered_permille,
            )
            for one in view.shares
        ],
        terms=pb.LendingTerms(
            grace_s=view.terms.grace_s,
            instant_grace_s=view.terms.instant_grace_s,
            min_runtime_s=view.terms.min_runtime_s,
            max_duration_s=view.terms.max_duration_s,
            to=view.terms.to,
            hours=view.terms.hours,
        ),
    )


def queue_from(message: pb.QueueState) -> views.QueueView:
    """Return the value of a site's queue."""
    terms = message.terms
    return views.QueueView(
        site=message.site,
        consortium=message.consortium,
        policy_version=message.policy_version,
        policy_digest=message.policy_digest,
        books_age_s=_or_none(message.books_age_s),
        stale=message.stale,
        requests=tuple(
            views.WaitingRequestView(
                one.request_id,
                one.borrower,
                one.account,
                one.purpose,
                one.model,
                one.devices,
                one.instant,
                one.waited_s,
                convert.place_from(one.place),
            )
            for one in message.requests
        ),
        devices=tuple(
            views.DeviceCountView(one.device_class, one.lent, one.used, one.owned) for one in message.devices
        ),
        waits=tuple(map(_cell_from, message.waits)),
        reserved_waits=tuple(map(_cell_from, message.reserved_waits)),
        reclaims=views.ReclaimsView(
            message.reclaims, _or_none(message.reclaim_p50_s), _or_none(message.reclaim_longest_s)
        ),
        shares=tuple(
            views.ShareView(one.institution, one.due_permille, one.delivered_permille)
            for one in message.shares
        ),
        terms=views.TermsView(
            terms.grace_s,
            terms.instant_grace_s,
            terms.min_runtime_s,
            terms.max_duration_s,
            tuple(terms.to),
            tuple(terms.hours),
        ),
    )


def _cell_to(cell: views.WaitCellView) -> pb.WaitCell:
    return pb.WaitCell(
        group=cell.group,
        device_class=cell.device_class,
        requests=cell.requests or 0,
        p50_s=cell.p50_s or 0.0,
        p90_s=cell.p90_s or 0.0,
    )


def _cell_from(message: pb.WaitCell) -> views.WaitCellView:
    if not message.requests:
        return views.WaitCellView(message.group, message.device_class, None, None, None)
    return views.WaitCellView(
        message.group, message.device_class, message.requests, message.p50_s, message.p90_s
    )


def _or_negative(value: float | None) -> float:
    return -1.0 if value is None else value


def _or_none(value: float) -> float | None:
    return None if value < 0 else value
