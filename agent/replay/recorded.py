"""A recorded day decided again: the same events on the same state give the same effects, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agent.gateway.core.events import Decision, Effect, Event, Record
from agent.gateway.core.leases import step
from agent.gateway.core.state import State


def replay_recorded(state: State, events: Iterable[Event]) -> Iterator[tuple[Event, tuple[Effect, ...]]]:
    """Yield each event with the effects that the core has on it.

    Args:
        state: of the core before the first event.
        events: as they were recorded, in order.
    """
    for event in events:
        state, effects = step(state, event)
        yield event, effects


def decisions(effects: Iterable[Effect]) -> tuple[Decision, ...]:
    """Return what of some effects is kept for the books."""
    return tuple(one.decision for one in effects if isinstance(one, Record))
