"""The sessions of a UCX lane as the weight cache sees them: who reads what, from the order to the end.

Rules: of what the worker says about a session, only the end of an order and the loss of the peer count; a
``KeyError`` or ``ValueError`` says that it broke its contract. Whoever ordered a session hears exactly once
that it is over, when the worker reads nothing for it any more.

It does not know which pieces are proven: the cache says so, session by session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyrdma.errors import Error, LaneError
from pyrdma.limits import MAX_LANE_ADDRESS_BYTES, MAX_MESSAGE_FDS
from pyrdma.memory import Region
from pyrdma.transport.worker_process import said
from pyrdma.wire import Channel, Message


@dataclass(slots=True)
class _Served:
    """One peer that reads one region."""

    on_end: Callable[[], None]
    opened: asyncio.Future[None]
    leaving: asyncio.Future[None] | None = None
    over: bool = False

    def end(self) -> None:
        """Tell whoever ordered it, once."""
        if not self.over:
            self.over = True
            self.on_end()


class ServedSessions:
    """What a lane worker serves.

    Args:
        channel: where the worker takes orders.
        order_deadline_s: how long it may take to obey one.
        break_lane: ends the worker, and returns the error that it is given.
    """

    def __init__(
        self, channel: Channel, order_deadline_s: float, break_lane: Callable[[LaneError], LaneError]
    ) -> None:
        self._channel = channel
        self._order_deadline_s = order_deadline_s
        self._break_lane = break_lane
        self._open: dict[int, _Served] = {}

    def __len__(self) -> int:
        return len(self._open)

    # --- orders -------------------------------------------------------------------------------------------

    async def serve(
        self,
        session: int,
        peer_address: bytes,
        region: Region,
        nbytes: int,
        *,
        gated: bool,
        metered: bool,
        on_end: Callable[[], None],
    ) -> None:
        """Open a session; returns when the worker is ready for its requests."""
        fds = region.fds
        order = {
            "op": "serve",
            "session": session,
            "address": peer_address.hex(),
            "extents": len(fds),
            "extent_bytes": region.extent_bytes,
            "total_bytes": nbytes,
            "gated": gated,
            "metered": metered,
        }
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Known from now on: the worker may lose it as soon as it serves it.
        self._open[session] = _Served(on_end, opened)
        try:
            if len(peer_address) > MAX_LANE_ADDRESS_BYTES:
                raise LaneError("the lane cannot serve: the peer's address is too long.")
            for first in range(0, len(fds), MAX_MESSAGE_FDS):
                await self._channel.asend(order, fds[first : first + MAX_MESSAGE_FDS])
            await asyncio.wait_for(opened, self._order_deadline_s)
        except TimeoutError:
            raise self._break_lane(LaneError("the UCX lane worker hangs.")) from None
        except Error:
            self._open.pop(session, None)
            raise

    async def allow(self, session: int, pieces: Sequence[int]) -> bool:
        """Let the peer of a gated session have these pieces, too; False when it has ended."""
        one = self._open.get(session)
        if one is None or one.over or one.leaving is not None:
            return False
        await self._channel.asend({"op": "allow", "session": session, "pieces": list(pieces)})
        return True

    async def withdraw(self, session: int) -> None:
        """End a session, and wait until the worker has let go of its peer."""
        one = self._open.get(session)
        if one is None:
            return
        if one.leaving is None:
            one.leaving = asyncio.get_running_loop().create_future()
            await self._channel.asend({"op": "withdraw", "session": session})
        await asyncio.wait([one.leaving], timeout=self._order_deadline_s)
        if not one.leaving.done():
            self._break_lane(LaneError("the UCX lane worker hangs on a session that was withdrawn."))

    # --- the worker's side --------------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """Take what the worker says of a session; a KeyError or ValueError ends the worker."""
        op, one = message["op"], self._open[message["session"]]
        if op == "session_lost":
            if one.over:
                raise ValueError(op)
            if one.leaving is None:
                del self._open[message["session"]]
            one.end()
        elif op == "withdrawn":
            if one.leaving is None:
                raise ValueError(op)
            del self._open[message["session"]]
            one.end()
            one.leaving.set_result(None)
        elif one.opened.done():
            raise ValueError(op)
        elif op == "serving":
            one.opened.set_result(None)
        else:
            one.opened.set_exception(LaneError(f"the lane cannot serve: {said(message['reason'])}."))

    def end_all(self, error: LaneError) -> None:
        """End every session: the worker, and with it whatever read for them, is gone."""
        ended, self._open = self._open, {}
        for one in ended.values():
            if not one.opened.done():
                one.opened.set_exception(error)
                one.opened.exception()
            if one.leaving is not None and not one.leaving.done():
                one.leaving.set_result(None)
            one.end()
