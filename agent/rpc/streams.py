"""A long call's events as a stream that a slow reader cannot make grow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from agent.local.views import ProgressView, WaitingView

E = TypeVar("E")
Work = Callable[[Callable[[E], None]], Awaitable[E]]
"""What emits events and returns the last one."""


class _Events(Generic[E]):
    """Waiting events; of several reports in a row of how far it is only the newest is kept."""

    def __init__(self) -> None:
        self._waiting: deque[E] = deque()
        self._news = asyncio.Event()

    def emit(self, event: E) -> None:
        """Add an event."""
        last = self._waiting[-1] if self._waiting else None
        if (isinstance(event, ProgressView) and isinstance(last, ProgressView)) or (
            isinstance(event, WaitingView) and isinstance(last, WaitingView) and event.site == last.site
        ):
            self._waiting[-1] = event
        else:
            self._waiting.append(event)
        self._news.set()

    def wake(self) -> None:
        """Let the reader look again."""
        self._news.set()

    def take(self) -> list[E]:
        """Return what waits and forget it."""
        taken = list(self._waiting)
        self._waiting.clear()
        self._news.clear()
        return taken

    async def wait(self) -> None:
        """Wait until there may be news."""
        await self._news.wait()


async def stream_of(work: Work[E]) -> AsyncGenerator[E, None]:
    """Run ``work(emit)`` and yield what it emits, then what it returns; raises what it raises.

    When the reader goes away, the work is cancelled and awaited.
    """
    events: _Events[E] = _Events()
    task = asyncio.ensure_future(work(events.emit))
    task.add_done_callback(lambda _: events.wake())
    try:
        while not task.done():
            await events.wait()
            for event in events.take():
                yield event
        for event in events.take():
            yield event
        yield task.result()
    finally:
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
