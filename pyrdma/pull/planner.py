"""Which piece from which source: the rules of a pull, in one class without I/O, tasks or clock.

The rules:

1. A piece that is proven is never asked for again.
2. A source has at most ``WINDOW_PIECES`` in flight, fewer when it is slower than the best one; all together
   have at most as many as there are slots.
3. A source that sends nothing for its allowance is stalled and dropped: the first allowance is fixed, later
   ones follow its own pace within named bounds. A source that is pulling the image itself says so while it
   has nothing to send, which counts as a sign of life; but for no piece may it take longer than
   ``MAX_PIECE_DEADLINE_S`` in all.
4. ``MAX_BAD_PIECES`` wrong digests, or as many refusals, drop a source for good.
5. What a dropped source had in flight goes to the others at once. Without any source left, the pull has
   failed; what is proven stays proven.
6. Near the end, an idle source is asked for a piece that a much slower one still has in flight: the last
   piece of a slow source does not hold up the whole. At most two sources that are in use are asked for the
   same piece.

Events come in as method calls with the time of the caller's monotonic clock; effects come back as values.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from pyrdma.limits import (
    FIRST_PIECE_DEADLINE_S,
    MAX_BAD_PIECES,
    MAX_PIECE_DEADLINE_S,
    MIN_PIECE_DEADLINE_S,
    WINDOW_PIECES,
)


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask this source for this piece, into a free slot."""

    piece: int
    source: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Let go of this source; tell people why."""

    source: int
    reason: str


Effect = Fetch | Drop


class SourceState(Enum):
    """Where a source stands in a pull."""

    ACTIVE = "active"
    DROPPED = "dropped"
    DONE = "done"


@dataclass(slots=True)
class Source:
    """What the plan knows of one source; times in seconds of the caller's monotonic clock."""

    name: str
    state: SourceState = SourceState.ACTIVE
    reason: str = ""
    in_flight: dict[int, float] = field(default_factory=dict)
    """Piece -> when it was asked for."""
    last_sign_s: float = 0.0
    """When it last sent a piece, or was first asked after having had nothing to do."""
    waited_s: float = 0.0
    """When it last said that it waits for a piece itself."""
    pace_s: float = 0.0
    """Smoothed seconds between pieces; 0 before the first."""
    arrived: int = 0
    proven: int = 0
    wrong: int = 0
    refused: int = 0

    def allowance_s(self) -> float:
        """Return how long this source may stay silent while it is asked for something."""
        if self.arrived == 0:
            return FIRST_PIECE_DEADLINE_S
        return min(MAX_PIECE_DEADLINE_S, max(MIN_PIECE_DEADLINE_S, 8 * self.pace_s))

    def deadline_s(self) -> float:
        """Return when this source is stalled if it gives no further sign."""
        silent_s = max(self.last_sign_s, self.waited_s) + self.allowance_s()
        return min(silent_s, self.last_sign_s + MAX_PIECE_DEADLINE_S)


class PullPlan:
    """The state of one pull.

    Args:
        pieces: how many the image has.
        slots: how many may be between "asked for" and "proven" at a time.
        proven: those that are there already.
    """

    def __init__(self, pieces: int, slots: int, *, proven: Iterable[int] = ()) -> None:
        self.proven = set(proven)
        self.sources: list[Source] = []
        self._missing = [piece for piece in range(pieces) if piece not in self.proven]
        self._pieces = pieces
        self._slots = slots
        self._proving: set[int] = set()

    @property
    def complete(self) -> bool:
        """Whether every piece is proven."""
        return len(self.proven) == self._pieces

    @property
    def failed(self) -> bool:
        """Whether pieces are missing and nobody is left to ask, with nothing left to prove."""
        return (
            not self.complete
            and not self._proving
            and all(source.state is SourceState.DROPPED for source in self.sources)
        )

    def add_source(self, name: str, now_s: float) -> list[Effect]:
        """Take in a source that claims to hold the image."""
        self.sources.append(Source(name, last_sign_s=now_s))
        return self._assign(now_s)

    def arrived(self, piece: int, source: int, now_s: float) -> bool:
        """A piece lies in its slot. True: prove it, then say ``judged``; False: not needed, say ``surplus``.

        A piece is proven in one place at a time: a second copy that came meanwhile must not be written over
        the one that is being proven.
        """
        one = self.sources[source]
        one.in_flight.pop(piece, None)
        gap_s = now_s - one.last_sign_s
        one.pace_s = gap_s if one.arrived == 0 else 0.75 * one.pace_s + 0.25 * gap_s
        one.arrived += 1
        one.last_sign_s = now_s
        if piece in self.proven or piece in self._proving:
            return False
        self._proving.add(piece)
        return True

    def surplus(self, now_s: float) -> list[Effect]:
        """The slot of a piece that was not needed is free again."""
        return self._assign(now_s)

    def judged(self, piece: int, source: int, right: bool, now_s: float) -> list[Effect]:
        """A piece that was to be proven is, or its digest was wrong; its slot is free again."""
        one = self.sources[source]
        self._proving.discard(piece)
        if right:
            one.proven += 1
            self.proven.add(piece)
            return self._assign(now_s)
        self._give_back(piece)
        one.wrong += 1
        effects: list[Effect] = []
        if one.wrong >= MAX_BAD_PIECES:
            effects = self._drop(source, f"sent {one.wrong} pieces with a wrong digest")
        return effects + self._assign(now_s)

    def refused(self, piece: int, source: int, reason: str, now_s: float) -> list[Effect]:
        """A fetch ended without its piece; its slot is free again."""
        one = self.sources[source]
        one.in_flight.pop(piece, None)
        self._give_back(piece)
        one.refused += 1
        effects: list[Effect] = []
        if one.refused >= MAX_BAD_PIECES:
            effects = self._drop(source, reason)
        return effects + self._assign(now_s)

    def waits(self, source: int, now_s: float) -> None:
        """A source says that it waits itself for what it was asked for."""
        self.sources[source].waited_s = now_s

    def tick(self, now_s: float) -> list[Effect]:
        """Drop every source whose allowance is over."""
        effects: list[Effect] = []
        for index, one in enumerate(self.sources):
            deadline_s = one.deadline_s()
            if _is_awaited(one) and now_s >= deadline_s:
                effects += self._drop(index, f"stalled: no piece for {deadline_s - one.last_sign_s:.0f} s")
        return effects + self._assign(now_s) if effects else effects

    def next_deadline_s(self) -> float | None:
        """Return when ``tick`` may next have something to do."""
        deadlines = [one.deadline_s() for one in self.sources if _is_awaited(one)]
        return min(deadlines, default=None)

    def _assign(self, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        busy = sum(len(one.in_flight) for one in self.sources) + len(self._proving)
        best_s = min((one.pace_s for one in self.sources if _may_ask(one) and one.arrived), default=0.0)
        while busy < self._slots:
            open_ones = sorted(
                (len(one.in_flight), index)
                for index, one in enumerate(self.sources)
                if _may_ask(one) and len(one.in_flight) < _window(one, best_s)
            )
            choices = ((index, self._next_piece(index)) for _, index in open_ones)
            index, piece = next((choice for choice in choices if choice[1] is not None), (0, None))
            if piece is None:
                break
            one = self.sources[index]
            if not one.in_flight:
                one.last_sign_s = now_s
            one.in_flight[piece] = now_s
            effects.append(Fetch(piece, index))
            busy += 1
        return effects

    def _next_piece(self, source: int) -> int | None:
        while self._missing:
            piece = heapq.heappop(self._missing)
            if piece not in self.proven:
                return piece
        return self._second_ask(source)

    def _second_ask(self, source: int) -> int | None:
        """Return a piece that another source has in flight and that is better asked for here too."""
        mine = self.sources[source]
        idle = bool(mine.arrived) and not mine.in_flight
        late = [
            (asked_s, piece)
            for other in self.sources
            if not _may_ask(other) or (idle and (not other.arrived or other.pace_s > 4 * mine.pace_s))
            for piece, asked_s in other.in_flight.items()
            if piece not in mine.in_flight
            and piece not in self.proven
            and piece not in self._proving
            and self._askers(piece) == _may_ask(other)
        ]
        return min(late)[1] if late else None

    def _askers(self, piece: int) -> int:
        return sum(piece in one.in_flight for one in self.sources if _may_ask(one))

    def _give_back(self, piece: int) -> None:
        asked = any(piece in one.in_flight for one in self.sources)
        if not asked and piece not in self.proven and piece not in self._proving:
            heapq.heappush(self._missing, piece)

    def _drop(self, source: int, reason: str) -> list[Effect]:
        one = self.sources[source]
        if one.state is not SourceState.ACTIVE:
            return []
        one.state, one.reason = SourceState.DROPPED, reason
        # Its fetches still hold their slots; each ends as a refusal when the lane has let go of it.
        return [Drop(source, reason)]


def _may_ask(one: Source) -> bool:
    return one.state is SourceState.ACTIVE


def _is_awaited(one: Source) -> bool:
    return _may_ask(one) and bool(one.in_flight)


def _window(one: Source, best_s: float) -> int:
    if not one.arrived or one.pace_s <= 0 or best_s <= 0:
        return WINDOW_PIECES
    return max(1, min(WINDOW_PIECES, round(WINDOW_PIECES * best_s / one.pace_s)))
