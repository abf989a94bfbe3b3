"""Between protobuf messages and the local API's values; nothing else of the agent sees the messages."""

from __future__ import annotations

from collections.abc import Iterable

from agent.local import views
from agent.rpc import convert_federation
from agent.rpc import pyrdma_pb2 as pb


def source_to(view: views.SourceView) -> pb.Source:
    """Return the message of a source."""
    return pb.Source(name=view.name, lane=view.lane, bytes=view.bytes, state=view.state, reason=view.reason)


def source_from(message: pb.Source) -> views.SourceView:
    """Return the value of a source."""
    return views.SourceView(message.name, message.lane, message.bytes, message.state, message.reason)


def progress_to(view: views.ProgressView) -> pb.Progress:
    """Return the message of a transfer's progress."""
    return pb.Progress(
        done_bytes=view.done_bytes,
        total_bytes=view.total_bytes,
        lane=view.lane,
        sources=[source_to(source) for source in view.sources],
    )


def progress_from(message: pb.Progress) -> views.ProgressView:
    """Return the value of a transfer's progress."""
    return views.ProgressView(
        message.done_bytes, message.total_bytes, message.lane, tuple(map(source_from, message.sources))
    )


def phases_to(phases: Iterable[views.PhaseView]) -> list[pb.Phase]:
    """Return the messages of timed parts."""
    return [pb.Phase(name=phase.name, seconds=phase.seconds) for phase in phases]


def phase_from(message: pb.Phase) -> views.PhaseView:
    """Return the value of a timed part."""
    return views.PhaseView(message.name, message.seconds)


def status_to(view: views.StatusView) -> pb.GetStatusResponse:
    """Return the message of a node's status."""
    return pb.GetStatusResponse(
        name=view.name,
        version=view.version,
        uptime_s=view.uptime_s,
        pid=view.pid,
        cache=pb.CacheState(
            up=view.cache.up,
            pid=view.cache.pid or 0,
            budget_bytes=view.cache.budget_bytes,
            used_bytes=view.cache.used_bytes,
            faulted_bytes=view.cache.faulted_bytes,
            restarts=view.cache.restarts,
            last_fault=view.cache.last_fault,
            workers=[pb.Worker(lane=worker.lane, pid=worker.pid) for worker in view.cache.workers],
        ),
        spares=pb.SpareState(
            wanted=view.spares.wanted,
            ready=view.spares.ready,
            pids=view.spares.pids,
            last_fault=view.spares.last_fault,
        ),
        peers=[
            pb.PeerState(address=peer.address, name=peer.name, reachable=peer.reachable, fault=peer.fault)
            for peer in view.peers
        ],
        leases=view.leases,
        state_fault=view.state_fault,
        donates=view.donates,
        policy=None if view.policy is None else convert_federation.policy_to(view.policy),
    )


def status_from(message: pb.GetStatusResponse) -> views.StatusView:
    """Return the value of a node's status."""
    cache, spares = message.cache, message.spares
    return views.StatusView(
        name=message.name,
        version=message.version,
        uptime_s=message.uptime_s,
        pid=message.pid,
        cache=views.CacheView(
            up=cache.up,
            pid=cache.pid or None,
            budget_bytes=cache.budget_bytes,
            used_bytes=cache.used_bytes,
            faulted_bytes=cache.faulted_bytes,
            restarts=cache.restarts,
            last_fault=cache.last_fault,
            workers=tuple(views.WorkerView(worker.lane, worker.pid) for worker in cache.workers),
        ),
        spares=views.SparesView(spares.wanted, spares.ready, tuple(spares.pids), spares.last_fault),
        peers=tuple(
            views.PeerView(peer.address, peer.name, peer.reachable, peer.fault) for peer in message.peers
        ),
        leases=message.leases,
        state_fault=message.state_fault,
        donates=message.donates,
        policy=convert_federation.policy_from(message.policy) if message.HasField("policy") else None,
    )


def model_to(view: views.ModelView) -> pb.Model:
    """Return the message of a model."""
    return pb.Model(
        name=view.name,
        image_id=bytes.fromhex(view.image_id),
        total_bytes=view.total_bytes,
        folder=view.folder,
        published_at=view.published_at or 0.0,
        pieces=view.pieces,
        verified_pieces=view.verified_pieces,
        attached=view.attached,
        origin=view.origin,
    )


def model_from(message: pb.Model) -> views.ModelView:
    """Return the value of a model."""
    return views.ModelView(
        name=message.name,
        image_id=message.image_id.hex(),
        total_bytes=message.total_bytes,
        folder=message.folder,
        published_at=message.published_at or None,
        pieces=message.pieces,
        verified_pieces=message.verified_pieces,
        attached=message.attached,
        origin=message.origin,
    )


def lease_to(view: views.LeaseView) -> pb.Lease:
    """Return the message of a lease."""
    return pb.Lease(
        id=view.id,
        model=view.model,
        image_id=bytes.fromhex(view.image_id),
        state=view.state,
        created_at=view.created_at,
        ended_at=view.ended_at or 0.0,
        reason=view.reason,
        port=view.port or 0,
        pid=view.pid or 0,
        donor=view.donor,
        borrower=view.borrower,
        account=view.account,
        who=view.who,
    )


def lease_from(message: pb.Lease) -> views.LeaseView:
    """Return the value of a lease."""
    return views.LeaseView(
        id=message.id,
        model=message.model,
        image_id=message.image_id.hex(),
        state=message.state,
        created_at=message.created_at,
        ended_at=message.ended_at or None,
        reason=message.reason,
        port=message.port or None,
        pid=message.pid or None,
        donor=message.donor,
        borrower=message.borrower,
        account=message.account,
        who=message.who,
    )


def transfer_to(view: views.TransferView) -> pb.Transfer:
    """Return the message of a transfer."""
    return pb.Transfer(
        id=view.id,
        model=view.model,
        image_id=bytes.fromhex(view.image_id),
        kind=view.kind,
        state=view.state,
        progress=progress_to(view.progress),
        started_at=view.started_at,
        seconds=view.seconds,
        reason=view.reason,
    )


def transfer_from(message: pb.Transfer) -> views.TransferView:
    """Return the value of a transfer."""
    return views.TransferView(
        id=message.id,
        model=message.model,
        image_id=message.image_id.hex(),
        kind=message.kind,
        state=message.state,
        progress=progress_from(message.progress),
        started_at=message.started_at,
        seconds=message.seconds,
        reason=message.reason,
    )


def publish_event_to(event: views.PublishEvent) -> pb.PublishEvent:
    """Return the message of a publication's event."""
    if isinstance(event, views.NoteView):
        return pb.PublishEvent(note=event.text)
    if isinstance(event, views.ProgressView):
        return pb.PublishEvent(progress=progress_to(event))
    return pb.PublishEvent(
        published=pb.Published(
            name=event.name,
            image_id=bytes.fromhex(event.image_id),
            total_bytes=event.total_bytes,
            pieces=event.pieces,
            tensors=event.tensors,
            skipped=event.skipped,
            replaced=bytes.fromhex(event.replaced or ""),
            seconds=event.seconds,
            licence=event.licence,
        )
    )


def publish_event_from(message: pb.PublishEvent) -> views.PublishEvent | None:
    """Return the value of a publication's event; ``None`` for a kind that a newer agent sends."""
    kind = message.WhichOneof("event")
    if kind == "note":
        return views.NoteView(message.note)
    if kind == "progress":
        return progress_from(message.progress)
    if kind == "published":
        done = message.published
        return views.PublishedView(
            name=done.name,
            image_id=done.image_id.hex(),
            total_bytes=done.total_bytes,
            pieces=done.pieces,
            tensors=done.tensors,
            skipped=tuple(done.skipped),
            replaced=done.replaced.hex() or None,
            seconds=done.seconds,
            licence=done.licence,
        )
    return None


def place_to(place: views.PlaceView) -> pb.QueuePlace:
    """Return the message of a place in a queue."""
    p50_s, p90_s = place.eta_s or (0.0, 0.0)
    return pb.QueuePlace(
        position=place.position,
        waiting=place.waiting,
        reasons=[
            pb.WaitReason(code=one.code, sentence=one.sentence, change=one.change) for one in place.reasons
        ],
        has_eta=place.eta_s is not None,
        eta_p50_s=p50_s,
        eta_p90_s=p90_s,
    )


def place_from(message: pb.QueuePlace) -> views.PlaceView:
    """Return the value of a place in a queue."""
    return views.PlaceView(
        message.position,
        message.waiting,
        tuple(views.ReasonView(one.code, one.sentence, one.change) for one in message.reasons),
        (message.eta_p50_s, message.eta_p90_s) if message.has_eta else None,
    )


def run_event_to(event: views.RunEvent) -> pb.RunEvent:
    """Return the message of a start's event."""
    if isinstance(event, views.NoteView):
        return pb.RunEvent(note=event.text)
    if isinstance(event, views.ProgressView):
        return pb.RunEvent(progress=progress_to(event))
    if isinstance(event, views.PhaseView):
        return pb.RunEvent(phase=pb.Phase(name=event.name, seconds=event.seconds))
    if isinstance(event, views.WaitingView):
        return pb.RunEvent(waiting=pb.Waiting(site=event.site, place=place_to(event.place)))
    if isinstance(event, views.AcceptedView):
        accepted = pb.Accepted(lease_id=event.lease_id, ttl_s=event.ttl_s, site=event.site, node=event.node)
        return pb.RunEvent(accepted=accepted)
    start = event.start
    return pb.RunEvent(
        granted=pb.Granted(
            lease=lease_to(event.lease),
            endpoint=event.endpoint,
            api_key=event.api_key,
            start=pb.Start(
                lane=start.lane,
                bytes=start.bytes,
                pull_s=start.pull_s,
                verify_s=start.verify_s,
                ready_s=start.ready_s,
                verified=start.verified,
                phases=phases_to(start.phases),
                sources=[source_to(source) for source in start.sources],
            ),
        )
    )


def run_event_from(message: pb.RunEvent) -> views.RunEvent | None:
    """Return the value of a start's event; ``None`` for a kind that a newer agent sends."""
    kind = message.WhichOneof("event")
    if kind == "note":
        return views.NoteView(message.note)
    if kind == "progress":
        return progress_from(message.progress)
    if kind == "phase":
        return phase_from(message.phase)
    if kind == "waiting":
        return views.WaitingView(message.waiting.site, place_from(message.waiting.place))
    if kind == "accepted":
        accepted = message.accepted
        return views.AcceptedView(accepted.lease_id, accepted.ttl_s, accepted.site, accepted.node)
    if kind == "granted":
        granted, start = message.granted, message.granted.start
        return views.GrantedView(
            lease=lease_from(granted.lease),
            endpoint=granted.endpoint,
            api_key=granted.api_key,
            start=views.StartView(
                lane=start.lane,
                bytes=start.bytes,
                pull_s=start.pull_s,
                verify_s=start.verify_s,
                ready_s=start.ready_s,
                verified=start.verified,
                phases=tuple(map(phase_from, start.phases)),
                sources=tuple(map(source_from, start.sources)),
            ),
        )
    return None
