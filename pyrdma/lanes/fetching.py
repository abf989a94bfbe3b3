"""The lane worker as a puller: the sources it is connected to, and the ranges that it was told to fetch.

Rules: a range is received under a random tag into the slot that the cache named, and nowhere else. A source
is let go of by force: when the cache hears ``disconnected``, no byte of that source can land in a slot any
more. Every fetch ends, and its end is said exactly once.

It does not choose sources, does not try again and proves nothing: the cache does all three.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pyrdma.errors import LaneError
from pyrdma.lanes.frame import CONTROL_TAG, DATA_TAG, TAG_BITS, Frame, Kind
from pyrdma.lanes.port import Port, failure
from pyrdma.limits import MAX_PEERS, WAIT_EVERY_S
from pyrdma.memory.mapping import Access, map_extents
from pyrdma.wire import Channel, Message

_FAREWELL_S: Final = 0.05
"""How long a source that is let go of may keep us from closing: a live one takes 48 bytes at once."""
_CANCEL_S: Final = 2.0
"""How long UCX may take to give up what a closed connection had under way; then this process ends instead."""


@dataclass(slots=True)
class _Fetch:
    """A range that a source was asked for."""

    peer: int
    request: Any
    tag: int


class Fetches:
    """What this worker fetches, from whom, and the ring that it arrives in.

    Args:
        port: what sources are reached through.
        channel: where the cache hears of the ends.
    """

    def __init__(self, port: Port, channel: Channel) -> None:
        self._port = port
        self._channel = channel
        self._slot_bytes = 0
        self._peers: dict[int, Any] = {}
        self._under_way: dict[int, _Fetch] = {}
        self._lost: list[int] = []
        self._told_s: dict[int, float] = {}
        """When the cache last heard that a source waits."""

    # --- what the cache orders ----------------------------------------------------------------------------

    def take_ring(self, message: Message, fds: list[int]) -> None:
        """Map the ring that the cache lends."""
        self._slot_bytes = message["slot_bytes"]
        ring = map_extents(fds, message["slots"] * self._slot_bytes, Access.SHARED_WRITE)
        self._ring_view = np.frombuffer(ring.view(), np.uint8)
        os.close(fds[0])

    def connect(self, message: Message, _fds: list[int]) -> None:
        """Connect to a source; one that cannot be reached is lost at once."""
        peer = message["peer"]
        try:
            if len(self._peers) >= MAX_PEERS:
                raise LaneError("this lane has its fill of sources.")
            endpoint = self._port.endpoint(message["address"], self._lost.append, peer)
        except LaneError:
            self._channel.send({"op": "peer_lost", "peer": peer})
            return
        self._peers[peer] = endpoint

    def disconnect(self, message: Message, _fds: list[int]) -> None:
        """Let go of a source; its fetches have ended before the cache is told.

        Raises:
            LaneError: UCX does not let go of it, so this process has to end.
        """
        peer = message["peer"]
        endpoint = self._peers.pop(peer, None)
        self._told_s.pop(peer, None)
        if endpoint is not None:
            leave = Frame(Kind.LEAVE, message["session"], 0, 0, 0)
            sent: list[bool] = []
            self._port.send(
                endpoint, np.frombuffer(leave.encode(), np.uint8), CONTROL_TAG, lambda: sent.append(True)
            )
            # The word of farewell goes first; a source that does not get it finds out by our silence.
            self._progress_until(lambda: bool(sent), _FAREWELL_S)
            # Cancels what waits on it and closes by force: no late byte of a source that was dropped lands in
            # a slot used again. (The plain close would leave receives posted for ever.)
            endpoint.close_blocking()
        if not self._progress_until(
            lambda: all(fetch.peer != peer for fetch in self._under_way.values()), _CANCEL_S
        ):
            raise LaneError("UCX did not let go of a source, and its worker was ended.")
        self._channel.send({"op": "disconnected", "peer": peer})

    def fetch(self, message: Message, _fds: list[int]) -> None:
        """Ask a source for a range, to be received into a slot of the ring."""
        name, peer, nbytes = message["fetch"], message["peer"], message["nbytes"]
        endpoint = self._peers.get(peer)
        if endpoint is None:
            self._channel.send({"op": "fetch_failed", "fetch": name, "reason": "the source is not connected"})
            return
        start = message["slot"] * self._slot_bytes
        tag = DATA_TAG | (secrets.randbits(56) & TAG_BITS)
        frame = Frame(Kind.REQUEST, message["session"], message["offset"], nbytes, tag)
        try:
            request = self._port.receive(self._ring_view[start : start + nbytes], tag, endpoint=endpoint)
        except LaneError as error:
            self._channel.send({"op": "fetch_failed", "fetch": name, "reason": str(error)})
            return
        self._under_way[name] = _Fetch(peer, request, tag)
        if not self._port.send(endpoint, np.frombuffer(frame.encode(), np.uint8), CONTROL_TAG, lambda: None):
            self._lost.append(peer)  # which ends the receive that was just posted

    # --- how they end -------------------------------------------------------------------------------------

    @property
    def lost(self) -> bool:
        """Whether there are sources to let go of."""
        return bool(self._lost)

    def refused(self, tag: int) -> None:
        """Note as lost a source that refuses what it granted; ``end_lost`` lets go of it.

        The receive that waits under the tag ends only with the connection, and until then the source could
        still fill the slot.
        """
        self._lost += [fetch.peer for fetch in self._under_way.values() if fetch.tag == tag]

    def waits(self, tag: int) -> None:
        """Tell the cache that a source waits itself for what it was asked for.

        One that says so all the time costs the cache nothing: it hears of it twice an interval at most.
        """
        now_s = time.monotonic()
        for peer in {fetch.peer for fetch in self._under_way.values() if fetch.tag == tag}:
            if peer in self._peers and now_s >= self._told_s.get(peer, 0.0) + WAIT_EVERY_S / 2:
                self._told_s[peer] = now_s
                self._channel.send({"op": "waiting", "peer": peer})

    def finish(self) -> bool:
        """Tell the cache which fetches have ended; return whether any has."""
        done = [(name, fetch) for name, fetch in self._under_way.items() if fetch.request.completed]
        for name, fetch in done:
            del self._under_way[name]
            reason = failure(fetch.request)
            if reason is not None and fetch.peer not in self._peers:
                reason = "the connection to the source ended"
            if reason is None:
                self._channel.send({"op": "fetched", "fetch": name})
            else:
                self._channel.send({"op": "fetch_failed", "fetch": name, "reason": reason})
        return bool(done)

    def end_lost(self) -> None:
        """Close the ways to sources that died or refused, and tell the cache."""
        while self._lost:
            peer = self._lost.pop()
            endpoint = self._peers.pop(peer, None)
            if endpoint is not None:
                endpoint.close_blocking()
                self._channel.send({"op": "peer_lost", "peer": peer})

    def _progress_until(self, reached: Callable[[], bool], limit_s: float) -> bool:
        until_s = time.monotonic() + limit_s
        while not reached() and time.monotonic() < until_s:
            self._port.progress()
            self.finish()
            self._port.finish_sends()
        return reached()
