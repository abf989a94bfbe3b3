"""When a guest may take another guest's devices: rarely, and never in a circle.

Rules, all of which must hold:

1. The victim has run for its minimum time, and was not preempted within ``preempt_every_s``.
2. Where the ways to the two accounts part, the preemptor's node is strictly below the victim's in use by
   share after the move, and by a tenth at least: the preemptor charged with its lease, the victim relieved of
   its own. Both are counted with the larger of the two charges, so that a cheap victim is not taken for a
   dear lease.
3. Below an institution the move does not make the parent dearer: the preemptor's charge is at most the
victim's.
4. The books are fresh. A frozen split says how to share what is free, not who has too much.

Why there is no circle (I6), at one moment: look at the use by share of all nodes, level by level from the
top, each level sorted from the largest. By 2 a move makes the largest of the two changed values at its
level smaller; by 3 nothing above that level grows. So the list of levels falls with each move, and cannot
come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from federation.fairshare.accounts import parent_of
from federation.fairshare.charging import Charges
from federation.fairshare.decay import SCALE_BITS
from federation.fairshare.order import parting
from federation.fairshare.rank import Ranks
from federation.fairshare.standing import Standing
from federation.policy.policy import PER_MILLE

CLEARLY_PERMILLE: Final = 1100
"""The victim must be above by this much after the move. Without it accounts that are even take devices from
each other without end: in a federation that is always full, each lease past its minimum time, and 12 % of all
work was lost (``python -m benchmarks fair_share --only S8``); with it 3 %."""


@dataclass(frozen=True, slots=True)
class Running:
    """A guest's lease that another guest would like the devices of.

    Args:
        account: who is charged.
        charge_msgs: what it is charged and no receipt speaks of yet: what its end gives back.
        ran_s: how long it has run.
        min_runtime_s: what it may count on.
        preempted_before_s: how long ago its request lost a lease to another guest; ``None``: never.
    """

    account: str
    charge_msgs: int
    ran_s: int
    min_runtime_s: int
    preempted_before_s: int | None = None


def may_preempt(
    standing: Standing,
    own: Charges,
    account: str,
    charge_msgs: int,
    victim: Running,
    *,
    ranks: Ranks | None = None,
) -> bool:
    """Return whether a guest may take the devices of another's lease.

    Args:
        standing: how accounts stand.
        own: charges here that no receipt speaks of yet, the victim's among them.
        account: who wants the devices.
        charge_msgs: what its lease would be charged.
        victim: the lease.
        ranks: those of this standing and these charges, if the caller has them.
    """
    every_s = standing.policy.caps.preempt_every_s
    if standing.stale or not every_s or victim.ran_s < victim.min_runtime_s:
        return False
    if victim.preempted_before_s is not None and victim.preempted_before_s < every_s:
        return False
    return below_after_move(standing, own, account, charge_msgs, victim, ranks=ranks)


def below_after_move(
    standing: Standing,
    own: Charges,
    account: str,
    charge_msgs: int,
    victim: Running,
    *,
    ranks: Ranks | None = None,
) -> bool:
    """Return whether the move leaves an account strictly below the victim's, and raises nothing above."""
    if account == victim.account:
        return False
    mine, theirs = parting(account, victim.account)
    if parent_of(mine) and charge_msgs > victim.charge_msgs:
        return False
    moved = max(charge_msgs, victim.charge_msgs) << SCALE_BITS
    ranks = ranks or Ranks(standing, own)
    mine_after = ranks.used(mine) + moved
    theirs_after = ranks.used(theirs) - moved
    return (
        mine_after * ranks.weight(theirs) * CLEARLY_PERMILLE < theirs_after * ranks.weight(mine) * PER_MILLE
    )
