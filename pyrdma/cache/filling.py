"""A pull that fills a replica, as those see it who pull from that replica meanwhile.

Rules: a session hears of a piece after it is proven, never before. What is proven in one turn of the event
loop travels in one message. A session that is told everything stays open; when the pull fails, its sessions
end, since what their peers wait for does not come.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from pyrdma.errors import LocalError
from pyrdma.limits import MAX_PIECES_PER_MESSAGE
from pyrdma.transport import Transport


class Filling:
    """One pull on its way.

    Args:
        proven: the pieces that were there before it began.
    """

    def __init__(self, proven: Iterable[int]) -> None:
        self._proven = list(proven)
        self._news = asyncio.Event()
        self._over = False
        self._whole = False
        self._tellers: set[asyncio.Task[None]] = set()

    def add(self, piece: int) -> None:
        """Take in a piece that is proven now."""
        self._proven.append(piece)
        self._news.set()

    def tell(self, lane: Transport, session: int) -> None:
        """Let the peer of a gated session have what is proven by now and from now on."""
        teller = asyncio.create_task(self._tell(lane, session))
        self._tellers.add(teller)
        teller.add_done_callback(self._tellers.discard)

    async def end(self, *, whole: bool) -> None:
        """Note the end of the pull; of one that failed, every session has ended on return."""
        self._over, self._whole = True, whole
        self._news.set()
        if self._tellers and not whole:
            await asyncio.wait(self._tellers)

    async def _tell(self, lane: Transport, session: int) -> None:
        told = 0
        with contextlib.suppress(LocalError):  # a lane that broke has ended its sessions
            while self._whole or not self._over:
                batch = self._proven[told : told + MAX_PIECES_PER_MESSAGE]
                if batch:
                    if not await lane.allow(session, batch):
                        return
                    told += len(batch)
                elif self._over:
                    return
                else:
                    self._news.clear()  # whoever waited for earlier news is awake already
                    await self._news.wait()
            await lane.withdraw(session)
