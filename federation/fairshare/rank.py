"""How one node of the account tree ranks among its siblings: an exact rational as one integer.

``LF = share / usage``, the highest first, is here ``usage / share``, the lowest first, since usage may be
zero. The denominators are below 2^64, so two different values differ by more than 2^-128: rounded down to a
multiple of 2^-128 they keep their order, and equal ones stay equal. So integers compare as the rationals
do.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from federation.fairshare.charging import Charges
from federation.fairshare.decay import SCALE_BITS
from federation.fairshare.line import Key
from federation.fairshare.standing import Standing
from federation.policy.policy import PER_MILLE

EXACT_BITS: Final = 128
"""Twice the bits of the largest denominator, weight times age factor."""


def used_by(node: str, standing: Standing, own: Charges) -> int:
    """Return the use that a node is ranked by, 2^-40 msgs: what the books say, and what was admitted here."""
    return max(0, standing.used(node) + (own.on(node) << SCALE_BITS))


def rank_of(node: str, standing: Standing, own: Charges, age_factor: int = 1) -> int:
    """Return a node's rank among its siblings; the lowest is served first."""
    return (used_by(node, standing, own) << EXACT_BITS) // (standing.weight(node) * age_factor)


def age_factor(asked_at_s: int, standing: Standing) -> int:
    """Return what an account's share is multiplied by whose oldest request waits since then.

    It is doubled with each ``max_wait_s`` after the first.
    """
    caps = standing.policy.caps
    further = (standing.now_s - asked_at_s) // caps.max_wait_s - 1
    if further <= 0:
        return 1
    return min(caps.max_age_factor, 1 << min(further, caps.max_age_factor.bit_length()))


def lot(key: Key, epoch: int) -> bytes:
    """Return what orders requests that are equal otherwise: another order in each epoch."""
    site, request_id = key
    return sha256(f"{epoch}\n{site}\n{request_id}".encode("utf-8", "surrogatepass")).digest()


def used_permille(node: str, siblings: tuple[str, ...], standing: Standing, own: Charges) -> int:
    """Return how much of its due a node has used among some siblings, itself one of them; 1000: all of it."""
    used = sum(used_by(one, standing, own) for one in siblings)
    if not used:
        return 0
    weights = sum(standing.weight(one) for one in siblings)
    return PER_MILLE * used_by(node, standing, own) * weights // (standing.weight(node) * used)
