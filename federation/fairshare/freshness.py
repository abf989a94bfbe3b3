"""What a donor does when the books are old: it keeps to the split that it served when they were fresh.

The books are as old as the oldest newest receipt that is known of any active donor. Up to ``FRESH_S``
accounts are ordered by everybody's books. Older ones mislead more than none: an account that ran elsewhere
unseen would be served as if it had not. So the split that this donor served when last fresh is *frozen*:
accounts then have turns by stride over what they use here from then on, with their shares of that split as
weights. Over one half life the split fades into the policy's weights, since nobody knows how things stand
any more; no account goes below ``FLOOR_PERMILLE`` of its weight, so that nobody is forgotten. When the
books are fresh again, the frozen split is dropped and the books rule, with everything in them that was used
meanwhile.

Known limit: in a partition an account confined to one side stays far from its share. The frozen split only
bounds how long it has nothing.

Rules: integers; the weights of siblings are in one unit, 1/2^20 of a policy's weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from federation.fairshare.accounts import parent_of, seat
from federation.fairshare.decay import EPOCH_S, DecayTable
from federation.fairshare.usage import Usage
from federation.policy.policy import PER_MILLE, Policy

FRESH_S: Final = 900
"""Books up to this age order everybody."""
FLOOR_PERMILLE: Final = 50
"""Of its weight an account keeps at least this much in a frozen split."""
WEIGHT_BITS: Final = 20
"""A frozen weight is in units of 2^-20 of a policy's weight."""


@dataclass(frozen=True, slots=True)
class Split:
    """How a donor split its devices when its books were last fresh.

    Args:
        epoch: when that was.
        served: decayed use of this donor's own devices at that time, by node; empty: it served nobody yet.
    """

    epoch: int
    served: Mapping[str, int] = field(default_factory=dict)


def is_fresh(oldest_head_age_s: int) -> bool:
    """Return whether books of this age order accounts."""
    return oldest_head_age_s <= FRESH_S


def freeze(epoch: int, local: Usage, table: DecayTable) -> Split:
    """Return the split of this epoch; kept while the books are fresh, it is what remains when they are not.

    Args:
        epoch: now.
        local: use of this donor's own devices.
        table: the policy's decay.
    """
    return Split(epoch, local.totals(epoch, table))


def frozen_weights(policy: Policy, split: Split, epoch: int) -> dict[str, int]:
    """Return the weights of every node of a policy and of the split, as they have faded by an epoch."""
    half_life_s = policy.decay.half_life_s
    age_s = min(half_life_s, max(0, epoch - split.epoch) * EPOCH_S)
    nominal = _nominal(policy, split)
    weight_below: dict[str, int] = {}
    served_below: dict[str, int] = {}
    for node, weight in nominal.items():
        above = parent_of(node)
        weight_below[above] = weight_below.get(above, 0) + weight
        served_below[above] = served_below.get(above, 0) + max(0, split.served.get(node, 0))
    weights = {}
    for node, weight in nominal.items():
        above = parent_of(node)
        whole = served_below[above]
        if not whole:
            weights[node] = weight << WEIGHT_BITS
            continue
        served = max(0, split.served.get(node, 0))
        kept = (served * weight_below[above] << WEIGHT_BITS) // whole
        faded = (kept * (half_life_s - age_s) + (weight << WEIGHT_BITS) * age_s) // half_life_s
        floor = (weight << WEIGHT_BITS) * FLOOR_PERMILLE // PER_MILLE
        weights[node] = max(faded, floor, 1)
    return weights


def _nominal(policy: Policy, split: Split) -> dict[str, int]:
    nominal = {path: rule.weight for path, rule in policy.accounts.items()}
    for node in split.served:
        nominal.setdefault(node, 1)
    inner = {parent_of(node) for node in nominal} - {""}
    for path in inner:
        nominal.setdefault(seat(path), 1)
    return nominal
