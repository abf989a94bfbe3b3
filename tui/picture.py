"""What is on show: the last good answer, its age, the fault since then, and a little history; pure.

Rules: a fault never takes away what was known, it only makes it older. Each change returns a new picture,
and time comes in as an argument. History is bounded and forgets what the last answer no longer names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.local.federation_views import FederationView
from agent.local.views import TransferView
from tui.limits import HISTORY_SAMPLES, MAX_ROWS_SHOWN, OVERDUE_INTERVALS, RATE_SAMPLES
from tui.source import Answer


@dataclass(frozen=True, slots=True)
class History:
    """Rates of each institution, in bytes a second, and progress of each running transfer, oldest first."""

    rates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    done: Mapping[str, tuple[tuple[float, int], ...]] = field(default_factory=dict)

    def after(self, answer: Answer, now: float) -> History:
        """Return the history with one more sample."""
        return History(_rates(self, answer.federation), _done(self, answer.transfers, now))

    def transfer_rate(self, transfer_id: str) -> float | None:
        """Return a running transfer's bytes a second over the last samples, if there are two."""
        samples = self.done.get(transfer_id, ())
        if len(samples) < 2 or samples[-1][0] <= samples[0][0]:
            return None
        return max(0.0, (samples[-1][1] - samples[0][1]) / (samples[-1][0] - samples[0][0]))


@dataclass(frozen=True, slots=True)
class Picture:
    """One moment of the UI: everything on the screen is a function of it."""

    answer: Answer
    answered_at: float
    now: float
    interval_s: float
    fault: str = ""
    history: History = field(default_factory=History)

    @classmethod
    def first(cls, answer: Answer, now: float, *, interval_s: float) -> Picture:
        """Return the picture of the first answer."""
        return cls(answer, now, now, interval_s, history=History().after(answer, now))

    def answered(self, answer: Answer, now: float) -> Picture:
        """Return the picture after an answer: the fault, if there was one, is over."""
        history = self.history.after(answer, now)
        return replace(self, answer=answer, answered_at=now, now=now, fault="", history=history)

    def failed(self, fault: str, now: float) -> Picture:
        """Return the picture after a question without an answer."""
        return replace(self, fault=fault, now=now)

    def at(self, now: float) -> Picture:
        """Return the same picture, so much older."""
        return replace(self, now=now)

    @property
    def age_s(self) -> float:
        """Seconds since the last good answer; never negative, whatever the clock does."""
        return max(0.0, self.now - self.answered_at)

    @property
    def overdue(self) -> bool:
        """Whether what is shown is older than a running agent would leave it."""
        return bool(self.fault) or self.age_s > OVERDUE_INTERVALS * self.interval_s


def finite(value: float) -> float:
    """Return a number from outside as one that can be drawn: 0 for what is negative or no number."""
    return value if math.isfinite(value) and value > 0 else 0.0


def _rates(history: History, federation: FederationView) -> dict[str, tuple[float, ...]]:
    return {
        site.name: (*history.rates.get(site.name, ()), finite(site.transfer_bytes_per_s))[-HISTORY_SAMPLES:]
        for site in federation.sites[:MAX_ROWS_SHOWN]
    }


def _done(
    history: History, transfers: tuple[TransferView, ...], now: float
) -> dict[str, tuple[tuple[float, int], ...]]:
    return {
        one.id: (*history.done.get(one.id, ()), (now, one.progress.done_bytes))[-RATE_SAMPLES:]
        for one in transfers[:MAX_ROWS_SHOWN]
        if one.state == "running"
    }
