"""A site's queue as JSON: all of it for its own people, the published part for anybody. Pure.

The published part names no request, borrower or account below an institution; counts of 1 to 4 waiting
requests are not said.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from agent.local.queue_views import QueueView
from agent.openness.statistics import SMALL_CELL

SCHEMA: Final = 1
Document = dict[str, Any]


def queue_document(view: QueueView) -> Document:
    """Return all of it."""
    return {"schema": SCHEMA, **asdict(view)}


def public_document(view: QueueView) -> Document:
    """Return what anybody may know: no request, but how many wait if they are enough."""
    document = queue_document(view)
    document.pop("requests")
    waiting = waiting_in(view)
    return {**document, "waiting": None if 0 < waiting < SMALL_CELL else waiting}


def waiting_in(view: QueueView) -> int:
    """Return how many requests wait; a view lists the first of them only."""
    return view.requests[0].place.waiting if view.requests else 0
