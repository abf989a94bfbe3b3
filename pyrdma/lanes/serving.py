"""The lane worker as a source: which peer may read which image, and the answers to their requests.

Rules: a request is answered on the endpoint of its own session, never where it came from. A peer that does
not take its answers is ended before they pile up, and so is one that has been silent for too long. An image
is mapped readable only.

It does not fetch, and does not decide who may read: the cache orders each session and withdraws it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyrdma.errors import LaneError
from pyrdma.lanes.frame import CONTROL_TAG, Frame, Kind
from pyrdma.lanes.port import Port
from pyrdma.limits import MAX_REPLIES_IN_FLIGHT, MAX_SESSIONS, PIECE_BYTES, SESSION_SILENCE_S
from pyrdma.memory.mapping import Access, Mapping, map_extents
from pyrdma.wire import Channel, Message


@dataclass(slots=True)
class _Session:
    """One peer that may read one image."""

    endpoint: Any
    mapping: Mapping
    view: Any
    total_bytes: int
    replies: int = 0
    last_sign_s: float = field(default_factory=time.monotonic)


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
        self._open[session] = _Session(endpoint, mapping, view, first["total_bytes"])
        self._channel.send({"op": "serving", "session": session})

    def withdraw(self, message: Message, _fds: list[int]) -> None:
        """Close a session; one that is gone is no error."""
        session = self._open.pop(message["session"], None)
        if session is not None:
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

        def done() -> None:
            session.replies -= 1
            session.last_sign_s = time.monotonic()

        if wrong or session.replies > MAX_REPLIES_IN_FLIGHT:
            refusal = Frame(Kind.REFUSE, frame.session, frame.offset, frame.nbytes, frame.tag)
            self._port.send(session.endpoint, np.frombuffer(refusal.encode(), np.uint8), CONTROL_TAG, done)
        else:
            self._port.send(session.endpoint, session.view[frame.offset : end], frame.tag, done)

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
        return max(0.0, min(waits)) if waits else -1.0

    def end_left(self) -> None:
        """Close the sessions of peers that left, died, fell silent or take no answers, and tell the cache."""
        while self._left:
            session = self._left.pop()
            ended = self._open.pop(session, None)
            if ended is not None:
                ended.endpoint.close_blocking()
                self._channel.send({"op": "session_lost", "session": session})
