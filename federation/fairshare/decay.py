"""How much of a use still counts, as one table of integers that every machine makes alike.

``D[i] = round(2^40 * 2^(-i * 600 / H))`` for use that lies ``i`` epochs back; nothing counts after the
window.

Rules: no floats, so that no library, compiler or processor decides. ``2^(-600/H)`` is an exponential series
in fixed point with ``bits`` fractional bits, every further entry one product of the entry before it. Each
step rounds down by less than a few units of the last place, so an entry is wrong by less than ``ENTRY_ERROR
* entries`` of them. Where that could change how the entry rounds to a whole number, the table is made anew
with more bits: every entry is the nearest integer, exactly. A tie does not occur: a power of two with a
broken exponent is irrational, and one with a whole exponent is whole within the window.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from federation.errors import FederationInputError
from federation.limits import MAX_DECAY_EPOCHS

EPOCH_S: Final = 600
"""Use is counted in spans of this many seconds."""
SCALE_BITS: Final = 40
"""Decayed use is in units of 2^-40 msgs."""
ENTRY_ERROR: Final = 4
"""Units of the last place by which one more factor is wrong at most."""


def epoch_of(unix_s: int) -> int:
    """Return the epoch that a Unix time lies in."""
    return unix_s // EPOCH_S


@dataclass(frozen=True, slots=True)
class DecayTable:
    """The weights of use by age; ``decay_table`` returns it ready made.

    Args:
        half_life_s: after it a use counts half.
        window_half_lives: after so many of these it does not count at all; at most 39.

    Raises:
        FederationInputError: the table would be empty or too long.
    """

    half_life_s: int
    window_half_lives: int = 10
    weights: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        entries = self.half_life_s * self.window_half_lives // EPOCH_S
        if self.half_life_s < EPOCH_S or not 1 <= self.window_half_lives < SCALE_BITS:
            raise FederationInputError(
                f"use is halved after {EPOCH_S} s or more, and counted for 1 to {SCALE_BITS - 1} half-lives.",
                fix="write another half life or window",
            )
        if entries > MAX_DECAY_EPOCHS:
            raise FederationInputError(
                f"use is counted for {MAX_DECAY_EPOCHS * EPOCH_S // 86400} days at most.",
                fix="write a shorter half life or window",
            )
        object.__setattr__(self, "weights", _weights(self.half_life_s, entries))

    def weight(self, age: int) -> int:
        """Return what one msgs counts that lies so many epochs back; what lies ahead counts as new."""
        if age <= 0:
            return self.weights[0]
        return self.weights[age] if age < len(self.weights) else 0


@lru_cache(maxsize=16)
def decay_table(half_life_s: int, window_half_lives: int) -> DecayTable:
    """Return the table of a half life and a window."""
    return DecayTable(half_life_s, window_half_lives)


def _weights(half_life_s: int, entries: int) -> tuple[int, ...]:
    bits = 128
    while True:
        found = _rounded(half_life_s, entries, bits)
        if found is not None:
            return found
        bits *= 2


def _rounded(half_life_s: int, entries: int, bits: int) -> tuple[int, ...] | None:
    """Return the table by so many fractional bits, or ``None`` if these do not tell how an entry rounds."""
    one = 1 << bits
    factor = _exp_below_one(_ln2(bits) * EPOCH_S // half_life_s, bits)
    drop = bits - SCALE_BITS
    half, mask = 1 << (drop - 1), (1 << drop) - 1
    weights = [1 << SCALE_BITS]
    exact, error = one, 0
    for _ in range(entries):
        exact = exact * factor >> bits
        error += ENTRY_ERROR
        rest = exact & mask
        if abs(rest - half) <= error:
            return None
        weights.append((exact + half) >> drop)
    return tuple(weights)


def _ln2(bits: int) -> int:
    """Return ln 2 = 2 artanh(1/3), with 32 more bits inside so that the last one is right."""
    guard = bits + 32
    term = (1 << (guard + 1)) // 3
    total, order = 0, 1
    while term:
        total += term // order
        term //= 9
        order += 2
    return total >> 32


def _exp_below_one(exponent: int, bits: int) -> int:
    """Return ``exp(-exponent)`` for an exponent of at most ln 2, within two units of the last place."""
    exponent <<= 32
    guard = bits + 32
    term = total = 1 << guard
    order = 1
    while term:
        term = term * exponent // (order << guard)
        total += -term if order % 2 else term
        order += 1
    return total >> 32
