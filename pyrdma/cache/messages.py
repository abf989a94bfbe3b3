"""What the weight cache and its owner say to each other, as values and as JSON.

A call is ``{"id", "op", ...}``; its answers carry the same id: any number of ``progress`` and ``part``
messages, then one ``result`` or one ``error``. Manifests and the status, which may be large, travel as sealed
memfds. Both ends are processes of one node that trust each other's intentions; the limits of ``pyrdma.wire``
hold all the same.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pyrdma.image import ImageId
from pyrdma.pull.engine import Progress, PullReport, SourceProgress
from pyrdma.transport import SourceGrant


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One image, or some pieces of it, in this node's memory.

    ``pulling``: a pull fills it just now, so that it may be pulled from here as far as it is proven.
    """

    image_id: ImageId
    total_bytes: int
    pieces: int
    verified_pieces: int
    attached: int
    pulling: bool


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One lane worker."""

    lane: str
    pid: int


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """The donated memory and what lies in it; ``faulted_bytes`` are really held by now."""

    budget_bytes: int
    used_bytes: int
    faulted_bytes: int
    replicas: tuple[ReplicaStatus, ...]
    workers: tuple[WorkerStatus, ...]


def status_to_json(status: CacheStatus) -> dict[str, Any]:
    """Return a status as JSON."""
    whole = asdict(status)
    for replica in whole["replicas"]:
        replica["image_id"] = replica["image_id"].hex()
    return whole


def status_from_json(data: dict[str, Any]) -> CacheStatus:
    """Return the status that ``status_to_json`` wrote."""
    return CacheStatus(
        data["budget_bytes"],
        data["used_bytes"],
        data["faulted_bytes"],
        tuple(
            ReplicaStatus(**(replica | {"image_id": ImageId.fromhex(replica["image_id"])}))
            for replica in data["replicas"]
        ),
        tuple(WorkerStatus(**worker) for worker in data["workers"]),
    )


def progress_from_json(data: dict[str, Any]) -> Progress:
    """Return the progress that ``dataclasses.asdict`` wrote."""
    return Progress(**(data | {"sources": tuple(SourceProgress(**one) for one in data["sources"])}))


def report_from_json(data: dict[str, Any]) -> PullReport:
    """Return the report that ``dataclasses.asdict`` wrote."""
    return PullReport(**(data | {"sources": tuple(SourceProgress(**one) for one in data["sources"])}))


def grant_to_json(grant: SourceGrant) -> dict[str, Any]:
    """Return a grant as JSON."""
    return {"session": grant.session, "lane": grant.lane, "address": grant.address.hex()}


def grant_from_json(data: dict[str, Any]) -> SourceGrant:
    """Return the grant that ``grant_to_json`` wrote."""
    return SourceGrant(data["session"], data["lane"], bytes.fromhex(data["address"]))
