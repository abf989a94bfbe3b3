"""A pass of the agent's door, for as long as a command needs one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from agent.errors import NotAllowedError, UnreachableError
from agent.limits import DOOR_LOOKUP_S, MAX_ERROR_TEXT_BYTES, PASS_LIFE_S, SHORT_CALL_S
from agent.text import printable

_MAX_LINE_BYTES: Final = 1024


class DoorPass:
    """The pass of one command. The connection to the door stays open as long as the pass is to be good."""

    def __init__(self, door: Path) -> None:
        self._door = door
        self._text = ""
        self._asked_s = 0.0
        self._writer: asyncio.StreamWriter | None = None

    async def text(self) -> str:
        """Return a pass that is good for a while.

        Raises:
            UnreachableError: there is no door.
            NotAllowedError: the agent gives none.
        """
        now_s = asyncio.get_running_loop().time()
        if not self._text or now_s - self._asked_s > PASS_LIFE_S / 2:
            self.close()
            self._text, self._asked_s = await self._ask(), now_s
        return self._text

    def close(self) -> None:
        """Give the pass back."""
        self._text = ""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    async def _ask(self) -> str:
        try:
            async with asyncio.timeout(DOOR_LOOKUP_S + SHORT_CALL_S):
                reader, self._writer = await asyncio.open_unix_connection(
                    str(self._door), limit=_MAX_LINE_BYTES
                )
                line = await reader.readline()
        except (OSError, ValueError, TimeoutError) as error:
            raise UnreachableError(
                f"no agent answers on {self._door}.", fix="start one with: pyrdma-agent serve"
            ) from error
        word, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
        if word != "pass":
            said = printable(rest, MAX_ERROR_TEXT_BYTES) or "the agent has too many callers."
            raise NotAllowedError(f"the agent gives you no pass: {said}", fix="try again in a moment")
        return rest
