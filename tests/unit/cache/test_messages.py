"""What the cache and its owner say survives its way through JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from pyrdma.cache.messages import (
    CacheStatus,
    ReplicaStatus,
    WorkerStatus,
    grant_from_json,
    grant_to_json,
    progress_from_json,
    report_from_json,
    status_from_json,
    status_to_json,
)
from pyrdma.image import ImageId
from pyrdma.pull.engine import Progress, PullReport, SourceProgress
from pyrdma.transport import SourceGrant


def through_json(value: object) -> dict[str, object]:
    """The value as the other end reads it."""
    read: dict[str, object] = json.loads(json.dumps(value))
    return read


def test_every_value_reads_back_equal() -> None:
    """Status, progress, report and grant; sessions keep all their 64 bits."""
    replica = ReplicaStatus(ImageId(bytes(range(32))), 5, 1, 0, 2, True)
    status = CacheStatus(9, 8, 7, (replica, replica), (WorkerStatus("tcp", 12),))
    assert status_from_json(through_json(status_to_json(status))) == status
    source = SourceProgress("uni-a", "tcp", 3, "dropped", "stalled")
    progress = Progress(1, 2, "tcp", (source,))
    assert progress_from_json(through_json(asdict(progress))) == progress
    report = PullReport(1, 0.5, "tcp", (source, source), 0.25)
    assert report_from_json(through_json(asdict(report))) == report
    grant = SourceGrant(2**64 - 1, "tcp", bytes(range(81)))
    assert grant_from_json(through_json(grant_to_json(grant))) == grant
