"""SIGHUP: what may change while the agent runs is read again at once.

Rules: whatever is read says in the log how it stands, also what it said before; a file that is wrong never
takes the place of one in force, which is the readers' own affair; a signal that comes while files are being
read has them read once more. One that comes before the agent is ready counts when it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

Read = Callable[[], Awaitable[None]]
_log = logging.getLogger(__name__)


class Rereading:
    """The files of one agent that may be read again."""

    def __init__(self) -> None:
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def want(self) -> None:
        """Read them soon; returns at once."""
        self._wanted.set()

    def start(self, reads: Sequence[Read]) -> None:
        """Read from now on when it is wanted, or was."""
        self._task = asyncio.create_task(self._keep(reads), name="rereading")

    async def close(self) -> None:
        """Read nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self, reads: Sequence[Read]) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            _log.info("SIGHUP: what may change is read again")
            for read in reads:
                try:
                    await read()
                except Exception:  # noqa: BLE001 - the other files are read all the same
                    _log.exception("a file could not be read again, by a defect")
            _log.info("SIGHUP: all has been read")
