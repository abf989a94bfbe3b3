"""The one worker that asks the agent, again and again, whatever happens to it.

Rules: one question at a time; a question has a deadline; after a fault the source is closed and opened anew,
since a socket that went away comes back as another one. It never ends by itself and never raises a fault of
the agent: those become part of the picture.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from agent.errors import Reported
from tui.limits import GIVE_UP_INTERVALS
from tui.source import Answer, OpenSource, Source, ask


class Polling:
    """Asks one agent every so often.

    Args:
        open_source: opens a connection to the agent; called again after each fault.
        interval_s: pause between an answer and the next question.
    """

    def __init__(self, open_source: OpenSource, *, interval_s: float) -> None:
        self._open_source = open_source
        self._interval_s = interval_s

    async def run(self, answered: Callable[[Answer], None], failed: Callable[[str], None]) -> None:
        """Ask until cancelled; tell each answer, or the sentence of what went wrong."""
        while True:
            try:
                async with AsyncExitStack() as stack:
                    source = await stack.enter_async_context(self._open_source())
                    while True:
                        answered(await self._ask(source))
                        await asyncio.sleep(self._interval_s)
            except Reported as error:
                failed(error.message)
            except OSError as error:
                failed(f"{error}.")
            await asyncio.sleep(self._interval_s)

    async def _ask(self, source: Source) -> Answer:
        limit_s = GIVE_UP_INTERVALS * self._interval_s
        try:
            async with asyncio.timeout(limit_s):
                return await ask(source)
        except TimeoutError:
            raise TimeoutError(f"it did not answer within {limit_s:.1f} s") from None
