"""The gate of a lane worker that serves an image on its way: nothing of a piece before the cache names it."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrdma.lanes.fetching import Fetches
from pyrdma.lanes.frame import CONTROL_TAG, DATA_TAG, Frame, Kind
from pyrdma.lanes.serving import Sessions
from pyrdma.limits import EGRESS_TOLD_BYTES, MAX_REPLIES_IN_FLIGHT, MIB, PIECE_BYTES, WAIT_EVERY_S
from pyrdma.memory import ExtentPool
from pyrdma.memory.memfd import lent_memfd
from pyrdma.wire import Channel

SESSION = 5
PIECES = 4
TOTAL_BYTES = (PIECES - 1) * PIECE_BYTES + MIB


class Endpoint:
    """A way to a peer that is closed once."""

    closed = False

    def close_blocking(self) -> None:
        """Close it."""
        self.closed = True


@dataclass
class Request:
    """A receive that never ends."""

    completed: bool = False


@dataclass
class RecordingPort:
    """A port that keeps what is sent, until the test says that the peer took it."""

    sent: list[tuple[Any, int, Callable[[], None]]] = field(default_factory=list)
    endpoints: list[Endpoint] = field(default_factory=list)

    def endpoint(self, _address: str, _on_end: Callable[[int], None], _name: int) -> Endpoint:
        """Return a way to any peer."""
        self.endpoints.append(Endpoint())
        return self.endpoints[-1]

    def send(self, _endpoint: Endpoint, buffer: Any, tag: int, done: Callable[[], None]) -> bool:
        """Keep it."""
        self.sent.append((buffer, tag, done))
        return True

    def receive(self, _buffer: Any, _tag: int, *, endpoint: Any = None) -> Request:
        """Post a receive."""
        assert endpoint is not None
        return Request()

    def progress(self) -> bool:
        """Let nothing happen: a peer takes what it takes when the test says so."""
        return False

    def finish_sends(self) -> bool:
        """Finish nothing by itself."""
        return False

    def take(self) -> tuple[list[int], list[Frame]]:
        """The peer takes everything: the tags of ranges and the frames that came to it."""
        taken, self.sent = self.sent, []
        for _, _, done in taken:
            done()
        frames = [Frame.decode(buffer.tobytes()) for buffer, tag, _ in taken if tag == CONTROL_TAG]
        assert None not in frames
        return [tag for _, tag, _ in taken if tag != CONTROL_TAG], [one for one in frames if one]


@dataclass
class Served:
    """One session, with both of its neighbours: the peer that asks and the cache."""

    sessions: Sessions
    port: RecordingPort
    cache: Channel

    def ask(self, number: int, offset: int, nbytes: int) -> int:
        """The peer asks for a range; returns the tag."""
        tag = DATA_TAG | number
        self.sessions.answer(Frame(Kind.REQUEST, SESSION, offset, nbytes, tag))
        return tag

    def allow(self, *pieces: int) -> None:
        """The cache names pieces."""
        self.sessions.allow({"op": "allow", "session": SESSION, "pieces": list(pieces)}, [])

    def remind(self, after_s: float) -> list[Frame]:
        """The frames that go out when so much time has passed, as the event loop would see it."""
        self.sessions._remind_s -= after_s
        self.sessions.remind()
        return self.port.take()[1]


@pytest.fixture(scope="module")
def extents() -> Iterator[tuple[list[int], int]]:
    """The descriptors of an image, of which no page is ever touched."""
    pool = ExtentPool(64 * MIB, 64 * MIB)
    region = pool.allocate(TOTAL_BYTES)
    yield region.fds, region.extent_bytes
    pool.release(region)
    pool.close()


@contextlib.contextmanager
def served(extents: tuple[list[int], int], *, gated: bool = True, metered: bool = False) -> Iterator[Served]:
    """A worker's side with one session."""
    fds, extent_bytes = extents
    channel, theirs = Channel.pair()
    port = RecordingPort()
    worker = Channel(theirs)
    sessions = Sessions(port, worker)  # type: ignore[arg-type]
    order = {
        "op": "serve",
        "session": SESSION,
        "address": "00",
        "extents": len(fds),
        "extent_bytes": extent_bytes,
        "total_bytes": TOTAL_BYTES,
        "gated": gated,
        "metered": metered,
    }
    sessions.serve(order, [os.dup(fd) for fd in fds])
    assert channel.recv(5)[0] == {"op": "serving", "session": SESSION}
    try:
        yield Served(sessions, port, channel)
    finally:
        channel.close()
        worker.close()


def test_a_piece_that_is_not_proven_waits_and_goes_out_once_it_is(extents: tuple[list[int], int]) -> None:
    """Nothing is sent for it, not even a refusal, until the cache names it; then exactly once."""
    with served(extents) as one:
        tag = one.ask(1, PIECE_BYTES, PIECE_BYTES)
        one.allow(0, 2)
        assert one.port.take() == ([], [])
        one.allow(1)
        assert one.port.take() == ([tag], [])
        one.allow(1)
        assert one.port.take() == ([], [])
        again = one.ask(2, PIECE_BYTES, PIECE_BYTES)
        assert one.port.take() == ([again], [])


def test_a_range_over_two_pieces_waits_for_both(extents: tuple[list[int], int]) -> None:
    """A peer cannot reach into a piece that is not proven from the end of one that is."""
    with served(extents) as one:
        one.allow(0, 3)
        across = one.ask(1, PIECE_BYTES - 1, 2)
        into = one.ask(2, 3 * PIECE_BYTES - 1, MIB)
        assert one.port.take() == ([], [])
        one.allow(1)
        assert one.port.take() == ([across], [])
        one.allow(2)
        assert one.port.take() == ([into], [])


def test_a_whole_image_has_no_gate(extents: tuple[list[int], int]) -> None:
    """Without one, everything goes out at once."""
    with served(extents, gated=False) as one:
        tag = one.ask(1, 2 * PIECE_BYTES, PIECE_BYTES)
        assert one.port.take() == ([tag], [])


def test_requests_that_wait_are_bounded(extents: tuple[list[int], int]) -> None:
    """They count as replies in flight: what goes beyond is refused, and a peer that goes on is ended."""
    with served(extents) as one:
        tags = [one.ask(number, 0, PIECE_BYTES) for number in range(MAX_REPLIES_IN_FLIGHT + 1)]
        ranges, frames = one.port.take()
        assert ranges == []
        assert [(frame.kind, frame.tag) for frame in frames] == [(Kind.REFUSE, tags[-1])]
        for number in range(2 * MAX_REPLIES_IN_FLIGHT):
            one.ask(number, 0, PIECE_BYTES)
        assert one.sessions.left
        one.sessions.end_left()
        assert one.port.endpoints[0].closed
        assert one.cache.recv(5)[0] == {"op": "session_lost", "session": SESSION}


def test_a_peer_that_waits_hears_so_every_interval(extents: tuple[list[int], int]) -> None:
    """The sign names what is waited for; it comes again and again, and no more once the range went out."""
    with served(extents) as one:
        assert one.remind(2 * WAIT_EVERY_S) == []
        tag = one.ask(1, 0, PIECE_BYTES)
        assert one.remind(0) == []
        assert 0 < one.sessions.watch() <= WAIT_EVERY_S
        for _ in range(3):
            assert one.remind(WAIT_EVERY_S) == [Frame(Kind.WAIT, SESSION, 0, PIECE_BYTES, tag)]
            assert one.remind(0) == []
        one.allow(0)
        assert one.port.take() == ([tag], [])
        assert one.remind(WAIT_EVERY_S) == []
        assert one.sessions.watch() > WAIT_EVERY_S


def test_signs_do_not_pile_up_before_a_peer_that_takes_nothing(extents: tuple[list[int], int]) -> None:
    """The next sign goes out when the last one was taken."""
    with served(extents) as one:
        one.ask(1, 0, PIECE_BYTES)
        for _ in range(5):
            one.sessions._remind_s -= WAIT_EVERY_S
            one.sessions.remind()
        assert len(one.port.sent) == 1


def test_a_session_that_is_withdrawn_refuses_what_its_peer_still_waits_for(
    extents: tuple[list[int], int],
) -> None:
    """The peer hears it before the connection closes; what the cache names afterwards is no error."""
    with served(extents) as one:
        one.ask(1, 0, PIECE_BYTES)
        tag = one.ask(2, PIECE_BYTES, PIECE_BYTES)
        one.ask(3, 2 * PIECE_BYTES, PIECE_BYTES)
        one.allow(0, 2)
        one.port.take()
        one.sessions.withdraw({"op": "withdraw", "session": SESSION}, [])
        assert one.port.endpoints[0].closed
        assert one.port.take() == ([], [Frame(Kind.REFUSE, SESSION, PIECE_BYTES, PIECE_BYTES, tag)])
        one.allow(1)
        assert one.remind(WAIT_EVERY_S) == []
        assert one.port.take() == ([], [])
        assert one.cache.recv(5)[0] == {"op": "withdrawn", "session": SESSION}


def test_a_peer_that_waits_for_nothing_is_not_refused_anything(extents: tuple[list[int], int]) -> None:
    """Its session just ends."""
    with served(extents) as one:
        one.allow(0)
        one.ask(1, 0, PIECE_BYTES)
        one.port.take()
        one.sessions.withdraw({"op": "withdraw", "session": SESSION}, [])
        assert one.port.take() == ([], [])


_events = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, TOTAL_BYTES + 5), st.integers(0, PIECE_BYTES + 5)),
        st.tuples(st.just("allow"), st.integers(0, PIECES - 1), st.just(0)),
        st.tuples(st.just("take"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(_events)
def test_no_schedule_lets_an_unproven_byte_out(
    extents: tuple[list[int], int], events: list[tuple[str, int, int]]
) -> None:
    """Whatever peers ask and whenever pieces are proven: only proven ones are sent, each request once."""
    with served(extents) as one:
        proven: set[int] = set()
        asked: dict[int, tuple[int, int]] = {}
        answered: list[int] = []

        def look() -> None:
            base = one.sessions._open[SESSION].view.ctypes.data if SESSION in one.sessions._open else 0
            for buffer, tag, _ in one.port.sent:
                if tag != CONTROL_TAG:
                    offset, nbytes = asked[tag]
                    assert (buffer.ctypes.data - base, len(buffer)) == (offset, nbytes)
                    assert (
                        set(range(offset // PIECE_BYTES, (offset + nbytes - 1) // PIECE_BYTES + 1)) <= proven
                    )

        def take() -> None:
            look()
            ranges, frames = one.port.take()
            answered.extend(ranges)
            answered.extend(frame.tag for frame in frames if frame.kind is Kind.REFUSE)

        for number, (kind, first, second) in enumerate(events):
            match kind:
                case "ask":
                    asked[one.ask(number, first, second)] = (first, second)
                case "allow":
                    proven.add(first)
                    one.allow(first)
                case "take":
                    take()
            look()
            assert len(one.sessions._open[SESSION].parked) <= MAX_REPLIES_IN_FLIGHT
            if one.sessions.left:
                return  # a peer that floods is ended; nobody waits for an answer any more
        take()
        proven |= set(range(PIECES))
        one.allow(*range(PIECES))
        take()
        assert sorted(answered) == sorted(asked)


def test_a_source_that_always_says_it_waits_is_heard_twice_an_interval_at_most() -> None:
    """A flood of signs ends in the lane worker; signs for what nobody asked are thrown away."""
    channel, theirs = Channel.pair()
    port = RecordingPort()
    worker = Channel(theirs)
    fetches = Fetches(port, worker)  # type: ignore[arg-type]
    fetches.take_ring({"slots": 1, "slot_bytes": MIB}, [lent_memfd("ring", MIB)])
    fetches.connect({"peer": 3, "address": "00"}, [])
    order = {"fetch": 1, "peer": 3, "session": 9, "offset": 0, "nbytes": MIB, "slot": 0}
    fetches.fetch(order, [])
    (_, frames) = port.take()
    for _ in range(20):
        fetches.waits(frames[0].tag)
        fetches.waits(frames[0].tag ^ 1)
    assert channel.recv(5)[0] == {"op": "waiting", "peer": 3}
    with pytest.raises(BlockingIOError):
        channel.recv(0.0)
    channel.close()
    worker.close()


def bound(one: Served, bytes_per_s: int, until_bytes: int | None) -> None:
    """The cache bounds what metered sessions send."""
    one.sessions.bound({"op": "egress", "bytes_per_s": bytes_per_s, "until_bytes": until_bytes}, [])


def test_a_metered_session_waits_for_the_pace(extents: tuple[list[int], int]) -> None:
    """The first goes out, the second when its time has come, and its peer is told meanwhile that it comes."""
    with served(extents, gated=False, metered=True) as one:
        bound(one, PIECE_BYTES, None)
        first, second = one.ask(1, 0, PIECE_BYTES), one.ask(2, PIECE_BYTES, PIECE_BYTES)
        assert one.port.take() == ([first], [])
        one.sessions.remind()
        assert 0 < one.sessions.watch() <= 1.0
        assert [frame.kind for frame in one.remind(WAIT_EVERY_S)] == [Kind.WAIT]
        one.sessions._egress._ready_s -= 1.0
        one.sessions._pace_s -= 1.0
        one.sessions.remind()
        assert one.port.take() == ([second], [])


def test_a_session_that_is_not_metered_knows_no_pace(extents: tuple[list[int], int]) -> None:
    """What stays within the site goes as fast as it can, and counts for nothing."""
    with served(extents, gated=False) as one:
        bound(one, 1, 0)
        one.sessions._egress._ready_s = math.inf
        tags = [one.ask(number, 0, PIECE_BYTES) for number in range(3)]
        assert one.port.take() == (tags, [])
        assert one.sessions._egress.sent_bytes == 0


def test_beyond_the_bound_a_request_is_refused_until_there_is_another_bound(
    extents: tuple[list[int], int],
) -> None:
    """The peer goes on elsewhere; on the next day it may ask again."""
    with served(extents, gated=False, metered=True) as one:
        bound(one, 0, PIECE_BYTES + MIB)
        first, second = one.ask(1, 0, PIECE_BYTES), one.ask(2, PIECE_BYTES, PIECE_BYTES)
        assert one.port.take() == ([first], [Frame(Kind.REFUSE, SESSION, PIECE_BYTES, PIECE_BYTES, second)])
        bound(one, 0, 2 * PIECE_BYTES + MIB)
        third = one.ask(3, PIECE_BYTES, PIECE_BYTES)
        assert one.port.take() == ([third], [])


def test_what_waits_for_the_pace_hears_of_a_bound(extents: tuple[list[int], int]) -> None:
    """A new bound is looked at with the next round, not when the pace would have let it through."""
    with served(extents, gated=False, metered=True) as one:
        bound(one, MIB, None)
        one.ask(1, 0, PIECE_BYTES)
        waiting = one.ask(2, PIECE_BYTES, PIECE_BYTES)
        one.port.take()
        bound(one, MIB, PIECE_BYTES)
        one.sessions.remind()
        assert one.port.take() == ([], [Frame(Kind.REFUSE, SESSION, PIECE_BYTES, PIECE_BYTES, waiting)])


def test_the_cache_hears_what_was_sent(extents: tuple[list[int], int]) -> None:
    """Every so many bytes, and before it hears of the session's end."""
    with served(extents, gated=False, metered=True) as one:
        for number in range(5):
            one.ask(number, 0, PIECE_BYTES)
            one.port.take()
        assert one.cache.recv(5)[0] == {"op": "sent", "bytes": EGRESS_TOLD_BYTES}
        one.sessions.withdraw({"op": "withdraw", "session": SESSION}, [])
        assert one.cache.recv(5)[0] == {"op": "sent", "bytes": 5 * PIECE_BYTES}
        assert one.cache.recv(5)[0] == {"op": "withdrawn", "session": SESSION}
