"""Who has one device: its guests or its owner. ``step(held, event) -> (held, effects)``, pure.

::

    lent -> reclaiming -> stopping -> verifying -> owned -> lent
    lent <- reclaiming

The rules:

1. Whatever wants the device for its owner is a *claim*: local use that was seen, hours that are over, a
   command of the owner's, a person's word. The device is the owner's as long as there is one.
2. The first claim takes it back. Its guests get notice and the longest grace among theirs; no lease starts.
3. When the grace is over they are killed. Those that are still there after ``KILL_S`` hang in the driver.
4. Then its memory is verified free, for ``VERIFY_S`` at most. It is handed over even if it is not, and then
   stays in *doubt*: it is not lent again before it was seen free.
5. No deadline is ever moved: from the first claim to the hand-over pass at most the grace, ``KILL_S`` and
   ``VERIFY_S``, whoever comes, goes, or says nothing.
6. When the last claim goes while the grace runs, the device is lent again at once, and its guests' notices
   are withdrawn. Once nothing runs there any more, or a kill was due, it goes to its owner first.

Times are of the node's own clock of boots. Nothing here asks the gateway, the ledger or a borrower, so none
of them can hold a reclaim up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import assert_never

from agent.limits import KILL_S, VERIFY_S


class Phase(StrEnum):
    """Where a device stands."""

    LENT = "lent"
    RECLAIMING = "reclaiming"
    STOPPING = "stopping"
    VERIFYING = "verifying"
    OWNED = "owned"


@dataclass(frozen=True, slots=True)
class Held:
    """One device.

    Args:
        phase: where it stands.
        claims: why its owner has it or takes it back, by who or what claims it.
        guests: the leases that have it, each with its grace.
        since_s: when the present reclaim began.
        deadline_s: when the present phase ends at the latest; ``None`` in those that have no end.
        doubt: it was handed over and its memory had not been seen free.
        reclaims: how often it was handed over.
        last_reclaim_s: how long that took, the last time; ``None`` before the first.
    """

    phase: Phase = Phase.LENT
    claims: Mapping[str, str] = field(default_factory=dict)
    guests: Mapping[str, float] = field(default_factory=dict)
    since_s: float = 0.0
    deadline_s: float | None = None
    doubt: bool = False
    reclaims: int = 0
    last_reclaim_s: float | None = None

    @property
    def takes_guests(self) -> bool:
        """Whether a lease may start on it."""
        return self.phase is Phase.LENT

    @property
    def reason(self) -> str:
        """Why its owner has it, in half a sentence; empty while it is lent."""
        return next(iter(self.claims.values()), "") if self.phase is not Phase.LENT else ""


# --- events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claimed:
    """The owner wants the device; the same claim again changes nothing."""

    claim: str
    reason: str
    now_s: float


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """What claimed it is gone."""

    claim: str
    now_s: float


@dataclass(frozen=True, slots=True)
class GuestCame:
    """A lease was taken on."""

    lease_id: str
    grace_s: float
    now_s: float


@dataclass(frozen=True, slots=True)
class GuestLeft:
    """Nothing of a lease runs any more."""

    lease_id: str
    now_s: float


@dataclass(frozen=True, slots=True)
class MemorySeen:
    """Somebody looked whether the device's memory is free of guests."""

    free: bool
    now_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""

    now_s: float


Event = Claimed | Unclaimed | GuestCame | GuestLeft | MemorySeen | Tick

# --- effects ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MakeRoom:
    """Let go of what nobody leased: spare runners, replicas without a lease."""


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell a guest that it is killed at ``deadline_s``."""

    lease_id: str
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Tell a guest that it is not killed after all."""

    lease_id: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End a guest at once."""

    lease_id: str


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The device is its owner's."""

    seconds: float
    doubt: bool


@dataclass(frozen=True, slots=True)
class LentAgain:
    """Leases may have it."""


Effect = MakeRoom | Notify | Withdraw | Kill | HandedOver | LentAgain


def step(held: Held, event: Event) -> tuple[Held, tuple[Effect, ...]]:
    """Return how the device stands after an event, and what is to be done, in this order."""
    effects: list[Effect] = []
    # What is due by now happens before the event is looked at, so a late tick changes no answer but its own.
    held = _advance(held, event.now_s, effects)
    match event:
        case Claimed(claim, reason):
            held = replace(held, claims={**held.claims, claim: held.claims.get(claim, reason)})
            if held.phase is Phase.LENT:
                held = _begin(held, event.now_s, effects)
        case Unclaimed(claim):
            held = replace(held, claims={one: why for one, why in held.claims.items() if one != claim})
        case GuestCame(lease_id, grace_s):
            held = replace(held, guests={**held.guests, lease_id: grace_s})
            if held.phase is not Phase.LENT:
                effects.append(Kill(lease_id))  # it slipped in; it was promised nothing yet
        case GuestLeft(lease_id):
            held = replace(held, guests={one: s for one, s in held.guests.items() if one != lease_id})
        case MemorySeen(free):
            held = _seen(held, free, event.now_s, effects)
        case Tick():
            effects += [Kill(one) for one in held.guests if held.phase in (Phase.STOPPING, Phase.VERIFYING)]
        case _:
            assert_never(event)
    held = _advance(held, event.now_s, effects)
    return held, tuple(effects)


def next_deadline_s(held: Held) -> float | None:
    """Return when a ``Tick`` is due; ``None``: not by the clock."""
    return held.deadline_s


def _begin(held: Held, now_s: float, effects: list[Effect]) -> Held:
    deadline_s = now_s + max(held.guests.values(), default=0.0)
    effects.append(MakeRoom())
    effects += [Notify(one, deadline_s) for one in held.guests]
    return replace(held, phase=Phase.RECLAIMING, since_s=now_s, deadline_s=deadline_s)


def _advance(held: Held, now_s: float, effects: list[Effect]) -> Held:
    """Go on to the phase that this moment is in."""
    while True:
        over = held.deadline_s is not None and now_s >= held.deadline_s
        if held.phase in (Phase.RECLAIMING, Phase.STOPPING) and not held.guests:
            begun_s = min(now_s, held.deadline_s) if held.deadline_s is not None else now_s
            held = replace(held, phase=Phase.VERIFYING, deadline_s=begun_s + VERIFY_S)
        elif held.phase is Phase.RECLAIMING and over and held.deadline_s is not None:
            effects += [Kill(one) for one in held.guests]
            held = replace(held, phase=Phase.STOPPING, deadline_s=held.deadline_s + KILL_S)
        elif held.phase is Phase.RECLAIMING and not held.claims:
            held = replace(held, phase=Phase.LENT, deadline_s=None)
            effects += [Withdraw(one) for one in held.guests]
            effects.append(LentAgain())
        elif held.phase is Phase.STOPPING and over and held.deadline_s is not None:
            held = replace(held, phase=Phase.VERIFYING, deadline_s=held.deadline_s + VERIFY_S)
        elif held.phase is Phase.VERIFYING and over:
            held = _hand_over(held, now_s, effects, doubt=True)
        elif held.phase is Phase.OWNED and not (held.claims or held.guests or held.doubt):
            held = replace(held, phase=Phase.LENT)
            effects.append(LentAgain())
        else:
            return held


def _seen(held: Held, free: bool, now_s: float, effects: list[Effect]) -> Held:
    if not free or held.guests:
        return held
    if held.phase is Phase.VERIFYING:
        return _hand_over(held, now_s, effects, doubt=False)
    return replace(held, doubt=False) if held.phase is Phase.OWNED else held


def _hand_over(held: Held, now_s: float, effects: list[Effect], *, doubt: bool) -> Held:
    seconds = now_s - held.since_s
    effects.append(HandedOver(seconds, doubt))
    return replace(
        held,
        phase=Phase.OWNED,
        deadline_s=None,
        doubt=doubt,
        reclaims=held.reclaims + 1,
        last_reclaim_s=seconds,
    )
