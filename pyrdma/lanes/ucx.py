"""The UCX lane worker: ``python -m pyrdma.lanes.ucx --control-fd N --interface IFACE``.

It parses bytes from other machines in C code that was not written for enemies, so it is untrusted by
construction: it holds no key and no verified memory it could change. It writes into one ring that the weight
cache lent it, and reads the images that it was told to serve through descriptors that cannot be mapped
writable. The cache copies each piece out of the ring and proves the copy.

It says nothing that the cache believes but "fetch 7 ended". It never asks; orders come over the control
channel, requests of peers over UCX itself. With nothing to do it sleeps in epoll.
"""

from __future__ import annotations

import argparse
import os
import secrets
import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from pyrdma.errors import ChannelError, Error, LaneError
from pyrdma.lanes.bound import require_bound_to
from pyrdma.lanes.frame import CONTROL_TAG, DATA_TAG, FRAME_BYTES, TAG_BITS, Frame, Kind
from pyrdma.limits import MAX_PEERS, MAX_REPLIES_IN_FLIGHT, MAX_SESSIONS, PIECE_BYTES, SESSION_SILENCE_S
from pyrdma.memory.mapping import Access, Mapping, map_extents
from pyrdma.sandbox import Confinement, enter
from pyrdma.wire import Channel, Message

_CONTROL_RECEIVES: Final = 64
"""Frames that peers may have on the way to us before UCX must buffer them."""
_NETWORK_SYS: Final = (Path("/sys/class/net"), Path("/sys/devices"))
_IDLE_ROUNDS: Final = 2
"""Rounds without progress before the worker sleeps: one spare round is cheaper than a wake-up."""
_FAREWELL_S: Final = 0.05
"""How long a source that is let go of may keep us from closing: a live one takes 48 bytes at once."""
_CANCEL_S: Final = 2.0
"""How long UCX may take to give up what a closed connection had under way; then this process ends instead."""


@dataclass(slots=True)
class _Session:
    """One peer that may read one image."""

    endpoint: Any
    mapping: Mapping
    view: Any
    total_bytes: int
    replies: int = 0
    last_sign_s: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Fetch:
    """A range that a source was asked for."""

    peer: int
    request: Any
    tag: int


@dataclass(slots=True)
class _Pending:
    """A send that UCX has not finished; holds its buffer alive."""

    request: Any
    array: Any
    done: Callable[[], None]


class UcxWorker:
    """One UCX worker, its ring, its sessions and its fetches; runs in the process's only thread."""

    def __init__(self, channel: Channel, interface: str) -> None:
        self._channel = channel
        self._interface = interface
        self._slot_bytes = 0
        self._sessions: dict[int, _Session] = {}
        self._opening: dict[int, tuple[Message, list[int]]] = {}
        self._peers: dict[int, Any] = {}
        self._lost: list[int] = []
        self._left: list[int] = []
        self._fetches: dict[int, _Fetch] = {}
        self._sends: list[_Pending] = []
        self._controls: list[tuple[Any, Any]] = []

    def start(self) -> None:
        """Bring UCX up, check what it listens on, and tell the cache our address.

        Raises:
            LaneError: UCX is not installed, or listens beyond the declared interface.
        """
        try:
            from ucxx._lib import libucxx
            from ucxx._lib.arr import Array
        except ImportError as error:
            raise LaneError(
                f"UCX is not installed here ({error}).",
                fix="install pyrdma-agent with the extra 'cpu' or 'cu12'",
            ) from error
        self._ucx, self._array = libucxx, Array
        context = libucxx.UCXContext(feature_flags=(libucxx.Feature.TAG, libucxx.Feature.WAKEUP))
        self._worker = libucxx.UCXWorker(context)
        self._worker.init_blocking_progress_mode()
        require_bound_to(self._interface)
        self._mask = libucxx.UCXXTagMaskFull
        for _ in range(_CONTROL_RECEIVES):
            self._post_control()
        address = self._worker.address.tobytes()
        self._channel.send({"op": "ready", "address": address.hex(), "lane": "tcp"})

    def run(self) -> None:
        """Serve until the control channel ends."""
        poller = select.epoll()
        poller.register(self._channel.fileno(), select.EPOLLIN)
        poller.register(self._worker.epoll_file_descriptor, select.EPOLLIN)
        control = self._channel.fileno()
        idle = 0
        while True:
            busy = self._worker.progress_once()
            busy = self._finish() or busy
            idle = 0 if busy else idle + 1
            if idle < _IDLE_ROUNDS:
                timeout_s = 0.0
            elif self._worker.arm():
                timeout_s = self._watch_sessions()
            else:
                continue
            for fd, _ in poller.poll(timeout_s):
                if fd == control:
                    idle = 0
                    self._obey(*self._channel.recv())

    def _watch_sessions(self) -> float:
        """End sessions of peers that have fallen silent; return how long to sleep, -1 for ever."""
        now_s = time.monotonic()
        waits = [one.last_sign_s + SESSION_SILENCE_S - now_s for one in self._sessions.values()]
        self._left += [
            name for name, one in self._sessions.items() if one.last_sign_s + SESSION_SILENCE_S <= now_s
        ]
        return max(0.0, min(waits)) if waits else -1.0

    # --- what came back from UCX --------------------------------------------------------------------------

    def _finish(self) -> bool:
        busy = False
        for index, (request, array) in enumerate(self._controls):
            if request.completed:
                busy = True
                self._take_control(index, request, array)
        busy = self._finish_fetches() or busy
        busy = self._finish_sends() or busy
        if self._lost or self._left:
            busy = True
            self._end_lost()
        return busy

    def _finish_fetches(self) -> bool:
        done = [(name, fetch) for name, fetch in self._fetches.items() if fetch.request.completed]
        for name, fetch in done:
            del self._fetches[name]
            reason = _failure(fetch.request)
            if reason is not None and fetch.peer not in self._peers:
                reason = "the connection to the source ended"
            if reason is None:
                self._channel.send({"op": "fetched", "fetch": name})
            else:
                self._channel.send({"op": "fetch_failed", "fetch": name, "reason": reason})
        return bool(done)

    def _finish_sends(self) -> bool:
        done = [send for send in self._sends if send.request.completed]
        if done:
            self._sends = [send for send in self._sends if not send.request.completed]
            for send in done:
                send.done()
        return bool(done)

    def _end_lost(self) -> None:
        # An endpoint that failed only plans to cancel what was posted on it; rounds of progress do not do it.
        self._worker.cancel_inflight_requests()
        while self._lost:
            peer = self._lost.pop()
            endpoint = self._peers.pop(peer, None)
            if endpoint is not None:
                endpoint.close_blocking()
                self._channel.send({"op": "peer_lost", "peer": peer})
        while self._left:
            session = self._left.pop()
            ended = self._sessions.pop(session, None)
            if ended is not None:
                ended.endpoint.close_blocking()
                self._channel.send({"op": "session_lost", "session": session})

    def _post_control(self, index: int | None = None) -> None:
        buffer = np.zeros(FRAME_BYTES, dtype=np.uint8)
        array = self._array(buffer)
        request = self._worker.tag_recv(array, self._ucx.UCXXTag(CONTROL_TAG), self._mask)
        if index is None:
            self._controls.append((request, buffer))
        else:
            self._controls[index] = (request, buffer)

    def _take_control(self, index: int, request: Any, buffer: Any) -> None:
        frame = Frame.decode(buffer.tobytes()) if _failure(request) is None else None
        self._post_control(index)
        if frame is None:
            return
        if frame.kind is Kind.REQUEST:
            self._answer(frame)
            return
        if frame.kind is Kind.LEAVE:
            self._left.append(frame.session)
            return
        # A source that refuses what it granted is let go of: the receive that waits under the tag ends only
        # with the connection, and until then the source could still fill the slot.
        self._lost += [fetch.peer for fetch in self._fetches.values() if fetch.tag == frame.tag]

    def _answer(self, frame: Frame) -> None:
        session = self._sessions.get(frame.session)
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
            self._send(session.endpoint, np.frombuffer(refusal.encode(), np.uint8), CONTROL_TAG, done)
        else:
            self._send(session.endpoint, session.view[frame.offset : end], frame.tag, done)

    def _send(self, endpoint: Any, buffer: Any, tag: int, done: Callable[[], None]) -> bool:
        array = self._array(buffer)
        try:
            request = endpoint.tag_send(array, self._ucx.UCXXTag(tag))
        except self._ucx.UCXError:
            done()  # the endpoint is gone; its peer finds out by itself
            return False
        self._sends.append(_Pending(request, array, done))
        return True

    # --- what the cache orders ----------------------------------------------------------------------------

    def _obey(self, message: Message, fds: list[int]) -> None:
        orders: dict[str, Callable[[Message, list[int]], None]] = {
            "ring": self._order_ring,
            "connect": self._order_connect,
            "disconnect": self._order_disconnect,
            "fetch": self._order_fetch,
            "serve": self._order_serve,
            "withdraw": self._order_withdraw,
        }
        orders[message["op"]](message, fds)

    def _order_ring(self, message: Message, fds: list[int]) -> None:
        self._slot_bytes = message["slot_bytes"]
        ring = map_extents(fds, message["slots"] * self._slot_bytes, Access.SHARED_WRITE)
        self._ring_view = np.frombuffer(ring.view(), np.uint8)
        os.close(fds[0])

    def _endpoint(self, address: bytes) -> Any:
        return self._ucx.UCXEndpoint.create_from_worker_address(
            self._worker, self._ucx.UCXAddress.create_from_buffer(address), True
        )

    def _order_connect(self, message: Message, _fds: list[int]) -> None:
        peer = message["peer"]
        try:
            if len(self._peers) >= MAX_PEERS:
                raise LaneError("this lane has its fill of sources.")
            endpoint = self._endpoint(bytes.fromhex(message["address"]))
            endpoint.set_close_callback(self._lost.append, cb_args=(peer,))
        except (self._ucx.UCXError, LaneError, RuntimeError, ValueError):
            self._channel.send({"op": "peer_lost", "peer": peer})
            return
        self._peers[peer] = endpoint

    def _order_disconnect(self, message: Message, _fds: list[int]) -> None:
        peer = message["peer"]
        endpoint = self._peers.pop(peer, None)
        if endpoint is not None:
            leave = Frame(Kind.LEAVE, message["session"], 0, 0, 0)
            sent: list[bool] = []
            self._send(
                endpoint, np.frombuffer(leave.encode(), np.uint8), CONTROL_TAG, lambda: sent.append(True)
            )
            # The word of farewell goes first; a source that does not get it finds out by our silence.
            self._progress_until(lambda: bool(sent), _FAREWELL_S)
            # Cancels what waits on it and closes by force: no late byte of a source that was dropped lands in
            # a slot used again. (The plain close would leave receives posted for ever.)
            endpoint.close_blocking()
        if not self._progress_until(
            lambda: all(fetch.peer != peer for fetch in self._fetches.values()), _CANCEL_S
        ):
            raise LaneError("UCX did not let go of a source, and its worker was ended.")
        self._channel.send({"op": "disconnected", "peer": peer})

    def _progress_until(self, reached: Callable[[], bool], limit_s: float) -> bool:
        until_s = time.monotonic() + limit_s
        while not reached() and time.monotonic() < until_s:
            self._worker.progress_once()
            self._finish_fetches()
            self._finish_sends()
        return reached()

    def _order_fetch(self, message: Message, _fds: list[int]) -> None:
        name, peer, nbytes = message["fetch"], message["peer"], message["nbytes"]
        endpoint = self._peers.get(peer)
        if endpoint is None:
            self._channel.send({"op": "fetch_failed", "fetch": name, "reason": "the source is not connected"})
            return
        start = message["slot"] * self._slot_bytes
        tag = DATA_TAG | (secrets.randbits(56) & TAG_BITS)
        frame = Frame(Kind.REQUEST, message["session"], message["offset"], nbytes, tag)
        array = self._array(self._ring_view[start : start + nbytes])
        try:
            request = endpoint.tag_recv(array, self._ucx.UCXXTag(tag), self._mask)
            self._fetches[name] = _Fetch(peer, request, tag)
            if not self._send(endpoint, np.frombuffer(frame.encode(), np.uint8), CONTROL_TAG, lambda: None):
                self._lost.append(peer)  # which ends the receive that was just posted
        except self._ucx.UCXError as error:
            self._fetches.pop(name, None)
            self._channel.send({"op": "fetch_failed", "fetch": name, "reason": str(error)})

    def _order_serve(self, message: Message, fds: list[int]) -> None:
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
            if len(self._sessions) >= MAX_SESSIONS:
                raise LaneError("this lane serves as many peers as it may.")
            endpoint = self._endpoint(bytes.fromhex(first["address"]))
            endpoint.set_close_callback(self._left.append, cb_args=(session,))
        except (self._ucx.UCXError, LaneError, RuntimeError, ValueError) as error:
            self._channel.send({"op": "serve_failed", "session": session, "reason": str(error)})
            return
        view = np.frombuffer(mapping.view(writable=False), np.uint8)
        self._sessions[session] = _Session(endpoint, mapping, view, first["total_bytes"])
        self._channel.send({"op": "serving", "session": session})

    def _order_withdraw(self, message: Message, _fds: list[int]) -> None:
        session = self._sessions.pop(message["session"], None)
        if session is not None:
            session.endpoint.close_blocking()
        self._channel.send({"op": "withdrawn", "session": message["session"]})


def _failure(request: Any) -> str | None:
    try:
        request.check_error()
    except Exception as error:  # noqa: BLE001 - ucxx raises a class per status; the text is all that matters here
        return str(error) or type(error).__name__
    return None


def main() -> int:
    """Run the worker; ends with its control channel."""
    parser = argparse.ArgumentParser(prog="pyrdma-ucx-worker")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--interface", required=True)
    options = parser.parse_args()
    channel = Channel.from_fd(options.control_fd)
    try:
        # UCX lists network interfaces in /sys; everything else of the machine is out of sight from here on.
        enter(Confinement(network=True, keep_fds=(options.control_fd,), readable=_NETWORK_SYS))
        worker = UcxWorker(channel, options.interface)
        worker.start()
        worker.run()
    except ChannelError:
        pass  # the cache is gone or has let us go
    except Error as error:
        channel.send({"op": "failed", "code": error.code, "message": error.message, "fix": error.fix})
        return 1
    # UCX's own teardown waits seconds for peers that are gone; the kernel closes everything at once.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
