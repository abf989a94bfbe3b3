"""Virtual time: what is to happen, in order. What falls on one moment happens in the order of its entry."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush


class Agenda:
    """Calls to be made at moments of a replay; ``now_s`` is the moment of the one being made."""

    __slots__ = ("_entries", "_number", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self._entries: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._number = 0

    def at(self, when_s: float, call: Callable[..., None], *arguments: object) -> None:
        """Have a call made; a moment that is over means now."""
        self._number += 1
        heappush(self._entries, (max(when_s, self.now_s), self._number, call, arguments))

    def run(self, until_s: float) -> None:
        """Make every call up to and at a moment; calls may enter further ones."""
        entries = self._entries
        while entries and entries[0][0] <= until_s:
            self.now_s, _, call, arguments = heappop(entries)
            call(*arguments)
        self.now_s = max(self.now_s, until_s)
