"""What another agent tells of a start, made safe to print, store and count by.

Rules: every text is cut and printable, every number is one, a lease's id is one. What a donor says of its own
site's name is taken over as it is: whoever asked it knows better.
"""

from __future__ import annotations

import math

from agent.errors import PeerNodeError
from agent.limits import MAX_ERROR_TEXT_BYTES, MAX_EVENT_PARTS, MAX_NAME_CHARS, MAX_REASON_BYTES
from agent.local import views
from agent.rpc import convert
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.convert_site import check_id, check_image_bytes, check_seconds, checked_place
from agent.text import printable
from pyrdma.errors import Error
from pyrdma.image.manifest import ImageId


def event_of_peer(message: pb.RunEvent, peer: str) -> views.RunEvent | None:
    """Return the value of a start's event; ``None`` for a kind that a newer agent sends.

    Raises:
        PeerNodeError: it is none.
    """
    event = convert.run_event_from(message)
    try:
        match event:
            case views.NoteView():
                return views.NoteView(printable(event.text, MAX_ERROR_TEXT_BYTES))
            case views.PhaseView():
                return _phase(event)
            case views.ProgressView():
                return views.ProgressView(
                    check_image_bytes(event.done_bytes),
                    check_image_bytes(event.total_bytes),
                    _name(event.lane),
                    _sources(event.sources),
                )
            case views.WaitingView():
                return views.WaitingView(_name(event.site), checked_place(event.place))
            case views.AcceptedView():
                lease_id, ttl_s = check_id(event.lease_id), check_seconds(event.ttl_s)
                return views.AcceptedView(lease_id, ttl_s, _name(event.site), _name(event.node))
            case views.GrantedView():
                return _granted(event)
            case None:
                return None
    except Error as error:
        raise PeerNodeError(
            f"the peer {peer} tells of a start outside the protocol: {error.message}"
        ) from error


def _granted(event: views.GrantedView) -> views.GrantedView:
    lease, start = event.lease, event.start
    return views.GrantedView(
        lease=views.LeaseView(
            id=check_id(lease.id),
            model=_name(lease.model),
            image_id=ImageId.parse(lease.image_id).hex(),
            state=_name(lease.state),
            created_at=_number(lease.created_at),
            ended_at=None,
            reason=printable(lease.reason, MAX_REASON_BYTES),
            port=lease.port,
            pid=lease.pid,
            donor=_name(lease.donor),
            borrower=_name(lease.borrower),
        ),
        endpoint=printable(event.endpoint, MAX_REASON_BYTES),
        api_key=printable(event.api_key, MAX_NAME_CHARS),
        start=views.StartView(
            lane=_name(start.lane),
            bytes=check_image_bytes(start.bytes),
            pull_s=_number(start.pull_s),
            verify_s=_number(start.verify_s),
            ready_s=_number(start.ready_s),
            verified=start.verified,
            phases=tuple(map(_phase, start.phases[:MAX_EVENT_PARTS])),
            sources=_sources(start.sources),
        ),
    )


def _phase(phase: views.PhaseView) -> views.PhaseView:
    return views.PhaseView(_name(phase.name), _number(phase.seconds))


def _sources(sources: tuple[views.SourceView, ...]) -> tuple[views.SourceView, ...]:
    return tuple(
        views.SourceView(
            _name(one.name),
            _name(one.lane),
            check_image_bytes(one.bytes),
            _name(one.state),
            printable(one.reason, MAX_REASON_BYTES),
        )
        for one in sources[:MAX_EVENT_PARTS]
    )


def _name(text: str) -> str:
    return printable(text, MAX_NAME_CHARS)


def _number(value: float) -> float:
    return value if math.isfinite(value) else 0.0
