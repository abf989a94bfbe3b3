"""The lane worker as a source: which peer may read which image, and the answers to their requests.

Rules: a request is answered on the endpoint of its own session, never where it came from. A peer that does
not take its answers is ended before they pile up, and so is one that has been silent for too long. An image
is mapped readable only. Of an image that is still being pulled, no byte is sent of a piece that the cache has
not named: a request for one waits here, and its peer is told so every second. So does a request of a metered
session for the sake of the pace; beyond the count that the cache set, it is refused.

It does not fetch, and does not decide who may read what: the cache orders each session and withdraws it.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from pyrdma.errors import LaneError
from pyrdma.lanes.egress import Egress
from pyrdma.lanes.frame import CONTROL_TAG, Frame, Kind
from pyrdma.lanes.port import Port
from pyrdma.limits import (
    EGRESS_TOLD_BYTES,
    MAX_REPLIES_IN_FLIGHT,
    MAX_SESSIONS,
    PIECE_BYTES,
    SESSION_SILENCE_S,
    WAIT_EVERY_S,
)
from pyrdma.memory.mapping import Access, Mapping, map_extents
from pyrdma.wire import Channel, Message

_FAREWELL_S: Final = 0.05
"""How long a peer that is let go of may keep us from closing; one that missed it finds out by our silence."""


@dataclass(slots=True)
class _Session:
    """One peer that may read one image."""

    endpoint: Any
    mapping: Mapping
    view: Any
    total_bytes: int
    metered: bool
    """Whether what it sends counts, and is bounded."""
    gate: bytearray | None
    """One byte a piece, 1 where the peer may have it; None where it may have all."""
    parked: list[Frame] = field(default_factory=list)
    """Requests for pieces that are not there yet, or not to be sent yet; each counts as a reply in flight."""
    reminding: bool = False
    """Whether a sign that we wait is on its way."""
    latest: Frame | None = None
    """What the peer asked for last: of what is on its way to it, that comes last."""
    replies: int = 0
    last_sign_s: float = field(default_factory=time.monotonic)

    def lets_through(self, frame: Frame) -> bool:
        """Whether every piece that a request touches is proven."""
        first, last = frame.offset // PIECE_BYTES, (frame.offset + frame.nbytes - 1) // PIECE_BYTES
        return self.gate is None or all(self.gate[first : last + 1])

    def next(self) -> Frame | None:
        """Return the first request that waits for the pace alone."""
        return next((one for one in self.parked if self.lets_through(one)), None)


class Sessions:
    """The peers that read from this worker.

    Args:
        port: what their requests are answered through.
        channel: where the cache hears of them.
    """

    def __init__(self, port: Port, channel: Channel) -> None:
        self._port = port
        self._channel = channel
        self._open: dict[int, _Session] = {}
        self._opening: dict[int, tuple[Message, list[int]]] = {}
        self._left: list[int] = []
        self._remind_s = math.inf
        """When the peers whose requests wait are to be told so; infinite while none waits."""
        self._egress = Egress()
        self._told_bytes = 0
        self._pace_s = math.inf
        """When the pace lets the next request through; infinite while none waits for it."""

    # --- what the cache orders ----------------------------------------------------------------------------

    def serve(self, message: Message, fds: list[int]) -> None:
        """Open a session once all of its image's descriptors are here."""
        session = message["session"]
        first, held = self._opening.setdefault(session, (message, []))
        held.extend(fds)
        if len(held) < first["extents"]:
            return
        del self._opening[session]
        mapping = map_extents(held, first["extent_bytes"], Access.SHARED_READ)
        for fd in held:
            os.close(fd)
        try:
            if len(self._open) >= MAX_SESSIONS:
                raise LaneError("this lane serves as many peers as it may.")
            endpoint = self._port.endpoint(first["address"], self._left.append, session)
        except LaneError as error:
            self._channel.send({"op": "serve_failed", "session": session, "reason": str(error)})
            return
        view = np.frombuffer(mapping.view(writable=False), np.uint8)
        total_bytes = first["total_bytes"]
        gate = bytearray(-(-total_bytes // PIECE_BYTES)) if first["gated"] else None
        self._open[session] = _Session(endpoint, mapping, view, total_bytes, first["metered"], gate)
        self._channel.send({"op": "serving", "session": session})

    def allow(self, message: Message, _fds: list[int]) -> None:
        """Let a peer have pieces that are proven by now, and send what it waits for."""
        session = self._open.get(message["session"])
        if session is None or session.gate is None:
            return  # it ended meanwhile
        for piece in message["pieces"]:
            session.gate[piece] = 1
        parked, session.parked = session.parked, []
        for frame in parked:
            self._send_or_park(session, frame)

    def bound(self, message: Message, _fds: list[int]) -> None:
        """Bound what metered sessions send from now on."""
        now_s = time.monotonic()
        self._egress.bound(message["bytes_per_s"], message["until_bytes"], now_s)
        self._pace_s = now_s  # whatever waits is looked at again

    def withdraw(self, message: Message, _fds: list[int]) -> None:
        """Close a session; one that is gone is no error."""
        session = self._open.pop(message["session"], None)
        if session is not None:
            self._tell_sent(session)
            awaited = session.parked[0] if session.parked else session.latest
            if session.replies and awaited is not None:
                self._refuse_for_good(session, awaited)
            session.endpoint.close_blocking()
        self._channel.send({"op": "withdrawn", "session": message["session"]})

    # --- what peers ask -----------------------------------------------------------------------------------

    def answer(self, frame: Frame) -> None:
        """Send the range that a peer asked for, or a refusal."""
        session = self._open.get(frame.session)
        if session is None:
            return  # nobody we know: there is no endpoint to answer on
        end = frame.offset + frame.nbytes
        wrong = not 0 < frame.nbytes <= PIECE_BYTES or end > session.total_bytes
        if session.replies >= 2 * MAX_REPLIES_IN_FLIGHT:
            self._left.append(frame.session)  # it does not even take refusals: nothing more is queued for it
            return
        session.replies += 1
        session.last_sign_s = time.monotonic()
        session.latest = frame
        if wrong or session.replies > MAX_REPLIES_IN_FLIGHT:
            self._say(session, Kind.REFUSE, frame, lambda: _reply_ended(session))
        else:
            self._send_or_park(session, frame)

    def _send_or_park(self, session: _Session, frame: Frame) -> None:
        if session.metered and not self._egress.lets(frame.nbytes):
            self._say(session, Kind.REFUSE, frame, lambda: _reply_ended(session))
            return
        now_s = time.monotonic()
        wait_s = self._egress.wait_s(now_s) if session.metered else 0.0
        if wait_s <= 0.0 and session.lets_through(frame):
            self._send(session, frame, now_s)
            return
        session.parked.append(frame)
        self._remind_s = min(self._remind_s, now_s + WAIT_EVERY_S)
        if wait_s > 0.0:
            self._pace_s = min(self._pace_s, now_s + wait_s)

    def _send(self, session: _Session, frame: Frame, now_s: float) -> None:
        view = session.view[frame.offset : frame.offset + frame.nbytes]
        sent = self._port.send(session.endpoint, view, frame.tag, lambda: _reply_ended(session))
        if session.metered and sent:
            self._egress.count(frame.nbytes, now_s)
            if self._egress.sent_bytes - self._told_bytes >= EGRESS_TOLD_BYTES:
                self._tell_sent(session)

    def _tell_sent(self, session: _Session) -> None:
        """Tell the cache the count, if it has grown."""
        if session.metered and self._egress.sent_bytes > self._told_bytes:
            self._told_bytes = self._egress.sent_bytes
            self._channel.send({"op": "sent", "bytes": self._told_bytes})

    def _send_paced(self, now_s: float) -> None:
        """Send what waited for the pace, one request of each session in turn, as far as it goes now."""
        self._pace_s = math.inf
        while True:
            found = next(
                ((name, one) for name, one in self._open.items() if one.metered and one.next()), None
            )
            if found is None:
                return
            name, session = found
            frame = session.next()
            assert frame is not None, "it was found by it"
            if self._egress.lets(frame.nbytes):
                wait_s = self._egress.wait_s(now_s)
                if wait_s > 0.0:
                    self._pace_s = now_s + wait_s
                    return
            session.parked.remove(frame)
            self._open[name] = self._open.pop(name)
            self._send_or_park(session, frame)

    def _refuse_for_good(self, session: _Session, request: Frame) -> None:
        """Tell a peer that waits that nothing comes any more: it does not see us close."""
        taken: list[bool] = []
        self._say(session, Kind.REFUSE, request, lambda: taken.append(True))
        until_s = time.monotonic() + _FAREWELL_S
        while not taken and time.monotonic() < until_s:
            self._port.progress()
            self._port.finish_sends()

    def _say(self, session: _Session, kind: Kind, request: Frame, done: Callable[[], None]) -> None:
        frame = replace(request, kind=kind)
        self._port.send(session.endpoint, np.frombuffer(frame.encode(), np.uint8), CONTROL_TAG, done)

    def remind(self) -> None:
        """Send what waited for its time, and tell the peers whose requests wait on, if it is time to."""
        now_s = time.monotonic()
        if now_s >= self._pace_s:
            self._send_paced(now_s)
        if now_s < self._remind_s:
            return
        self._remind_s = math.inf
        for session in self._open.values():
            if session.parked:
                self._remind_s = now_s + WAIT_EVERY_S
                if not session.reminding:  # a peer that takes nothing is told once
                    session.reminding = True
                    self._say(session, Kind.WAIT, session.parked[0], functools.partial(_reminded, session))

    def leave(self, session: int) -> None:
        """Note that a peer is done with its session; ``end_left`` ends it."""
        self._left.append(session)

    # --- how they end -------------------------------------------------------------------------------------

    @property
    def left(self) -> bool:
        """Whether there are sessions to end."""
        return bool(self._left)

    def watch(self) -> float:
        """Note the peers that have fallen silent as gone; return how long to sleep in s, -1 for ever."""
        now_s = time.monotonic()
        waits = [one.last_sign_s + SESSION_SILENCE_S - now_s for one in self._open.values()]
        self._left += [
            name for name, one in self._open.items() if one.last_sign_s + SESSION_SILENCE_S <= now_s
        ]
        return max(0.0, min(*waits, self._remind_s - now_s, self._pace_s - now_s)) if waits else -1.0

    def end_left(self) -> None:
        """Close the sessions of peers that left, died, fell silent or take no answers, and tell the cache."""
        while self._left:
            session = self._left.pop()
            ended = self._open.pop(session, None)
            if ended is not None:
                ended.endpoint.close_blocking()
                self._tell_sent(ended)
                self._channel.send({"op": "session_lost", "session": session})


def _reply_ended(session: _Session) -> None:
    session.replies -= 1
    session.last_sign_s = time.monotonic()


def _reminded(session: _Session) -> None:
    session.reminding = False
    session.last_sign_s = (
        time.monotonic()
    )  # it takes what it is told: one that waits for the pace is not dead
