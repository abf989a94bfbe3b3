"""The publications and pulls since the agent started: running ones and the last finished ones, in memory."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from agent.limits import MAX_TRANSFERS_KEPT, MIN_MEASURED_BYTES
from agent.local.views import ProgressView, SourceView, TransferView
from pyrdma.cache.client import Progress, SourceProgress
from pyrdma.errors import Error

Emit = Callable[[ProgressView], None]


def source_view(source: SourceProgress) -> SourceView:
    """Return a source as the local API shows it."""
    return SourceView(source.name, source.lane, source.bytes, source.state, source.reason)


def progress_view(progress: Progress) -> ProgressView:
    """Return progress as the local API shows it."""
    return ProgressView(
        progress.done_bytes, progress.total_bytes, progress.lane, tuple(map(source_view, progress.sources))
    )


class Transfers:
    """The list behind ``pyrdma-agent transfers``."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[TransferView, float]] = {}
        self._finished: deque[TransferView] = deque(maxlen=MAX_TRANSFERS_KEPT)

    def list(self) -> tuple[TransferView, ...]:
        """Return running transfers, then finished ones, newest first."""
        now = time.monotonic()
        running = [replace(view, seconds=now - begun) for view, begun in self._running.values()]
        return (*reversed(running), *self._finished)

    def pace(self) -> float:
        """Return the bytes a second at which running pulls bring bytes here, each since its start."""
        running = (one for one in self.list() if one.state == "running" and one.kind == "pull")
        return sum(one.progress.done_bytes / one.seconds for one in running if one.seconds > 0)

    def measured(self) -> float:
        """Return the bytes a second of the last pull that was long enough to say something; 0 without one."""
        for one in self._finished:
            if one.state == "done" and one.kind == "pull" and one.seconds > 0:
                moved = one.progress.done_bytes
                if moved >= MIN_MEASURED_BYTES:
                    return moved / one.seconds
        return 0.0

    @contextmanager
    def record(
        self, model: str, image_id: str, kind: str, emit: Emit
    ) -> Iterator[Callable[[Progress], None]]:
        """Keep a transfer in the list while the body runs; yields what takes its progress."""
        key = secrets.token_hex(4)
        begun = time.monotonic()
        view = TransferView(
            id=key,
            model=model,
            image_id=image_id,
            kind=kind,
            state="running",
            progress=ProgressView(0, 0, ""),
            started_at=time.time(),
            seconds=0.0,
            reason="",
        )
        self._running[key] = view, begun

        def on_progress(progress: Progress) -> None:
            shown = progress_view(progress)
            self._running[key] = replace(self._running[key][0], progress=shown), begun
            emit(shown)

        state, reason = "failed", "called off"
        try:
            yield on_progress
            state, reason = "done", ""
        except Error as error:
            reason = error.message
            raise
        finally:
            last, _ = self._running.pop(key)
            seconds = time.monotonic() - begun
            self._finished.appendleft(replace(last, state=state, reason=reason, seconds=seconds))
