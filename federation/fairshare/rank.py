"""How one node of the account tree ranks among its siblings: an exact rational as one integer.

``LF = share / usage``, the highest first, is here ``usage / share``, the lowest first, since usage may be
zero. The denominators are below 2^64, so two different values differ by more than 2^-128: rounded down to a
multiple of 2^-128 they keep their order, and equal ones stay equal. So integers compare as the rationals
do.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final

from federation.fairshare.charging import Charges
from federation.fairshare.decay import SCALE_BITS
from federation.fairshare.line import Key
from federation.fairshare.standing import Standing
from federation.policy.policy import PER_MILLE

EXACT_BITS: Final = 128
"""Twice the bits of the largest denominator, weight times age factor."""


class Ranks:
    """The ranks of nodes under one standing and the charges of what was admitted here.

    It holds no state of its own: what a forest asks thousands of times is looked up once.
    """

    __slots__ = (
        "_aged_since_s",
        "_factors",
        "_max_wait_s",
        "_now_s",
        "_own",
        "_unnamed",
        "_use",
        "_weights",
        "epoch",
    )

    def __init__(self, standing: Standing, own: Charges) -> None:
        self.epoch = standing.epoch
        self._now_s = standing.now_s
        caps = standing.policy.caps
        self._max_wait_s = caps.max_wait_s
        self._factors = tuple(1 << doublings for doublings in range(caps.max_age_factor.bit_length()))
        self._aged_since_s = standing.now_s - 2 * caps.max_wait_s
        self._use = standing.ranked_use
        self._own = own.by_node
        self._weights = standing.weights
        self._unnamed = standing.unnamed_weight

    def used(self, node: str) -> int:
        """Return a node's use, 2^-40 msgs: what the books say, and what was admitted here."""
        return max(0, self._use.get(node, 0) + (self._own.get(node, 0) << SCALE_BITS))

    def weight(self, node: str) -> int:
        """Return a node's weight among its siblings."""
        return self._weights.get(node, self._unnamed)

    def rank(self, node: str) -> int:
        """Return a node's rank among its siblings; the lowest is served first."""
        used = self._use.get(node, 0) + (self._own.get(node, 0) << SCALE_BITS)
        return (used << EXACT_BITS) // self._weights.get(node, self._unnamed) if used > 0 else 0

    def rank_aged(self, node: str, asked_at_s: int) -> int:
        """Return the rank of an account's node whose oldest request waits since then.

        Its share is doubled with each ``max_wait_s`` after the first.
        """
        used = self._use.get(node, 0) + (self._own.get(node, 0) << SCALE_BITS)
        if used <= 0:
            return 0
        weight = self._weights.get(node, self._unnamed)
        if asked_at_s <= self._aged_since_s:
            doublings = (self._now_s - asked_at_s) // self._max_wait_s - 1
            weight *= self._factors[doublings] if doublings < len(self._factors) else self._factors[-1]
        return (used << EXACT_BITS) // weight

    def used_permille(self, node: str, siblings: tuple[str, ...]) -> int:
        """Return how much of its due a node has used among some, itself one of them; 1000: all of it."""
        used = sum(self.used(one) for one in siblings)
        weights = sum(self.weight(one) for one in siblings)
        return PER_MILLE * self.used(node) * weights // (self.weight(node) * used) if used else 0


def lot(key: Key, epoch: int) -> bytes:
    """Return what orders requests that are equal otherwise: another order in each epoch."""
    site, request_id = key
    return sha256(f"{epoch}\n{site}\n{request_id}".encode("utf-8", "surrogatepass")).digest()


known_lot = lru_cache(maxsize=16384)(lot)
"""The same, for requests that are sorted again and again in one epoch."""
