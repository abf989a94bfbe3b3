"""Whether a receipt that charges us is right, by our own record of the lease. Pure.

Rules: a donor may count no more time than we had the lease, by our own clock and with ``SLACK_S`` for its
start and end; the account and the purpose are those that we asked for. What we have no record of was never
borrowed, if our records reach back to its beginning; else it is left alone, neither signed nor disputed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from agent.ledger.books import Judge
from federation.ledger.pricing import charge_of_receipt
from federation.ledger.receipt import Receipt
from federation.policy.policy import Policy

SLACK_S: Final = 60.0
"""A lease's notice of its end may be late by a poll and a call; a minute in all."""


@dataclass(frozen=True, slots=True)
class BorrowedTime:
    """A lease as we had it.

    Args:
        account, purpose: as we asked for it.
        from_s: when it was accepted, in Unix time.
        to_s: when we knew that it was over; ``None``: it is not.
    """

    account: str
    purpose: str
    from_s: float
    to_s: float | None


def judge_of(
    borrowed: Mapping[tuple[str, str], BorrowedTime],
    policies: Mapping[str, Policy],
    *,
    since_s: float,
    now_s: float,
) -> Judge:
    """Return what judges receipts.

    Args:
        borrowed: our record, by donor and lease.
        policies: by digest.
        since_s: from when on the record is complete (Unix time).
        now_s: Unix time.
    """

    def judge(receipt: Receipt) -> int | None:
        ours = borrowed.get((receipt.donor, receipt.lease_id))
        if ours is None:
            return 0 if receipt.from_s >= since_s else receipt.charge_msgs
        if (receipt.account, receipt.purpose) != (ours.account, ours.purpose):
            return 0
        had_s = (now_s if ours.to_s is None else ours.to_s) - ours.from_s + SLACK_S
        had_ms = max(0, int(had_s * 1000))
        if receipt.busy_ms <= had_ms:
            return None
        policy = policies.get(receipt.policy)
        if policy is None or receipt.refunded:
            return receipt.charge_msgs
        discount_ms = min(receipt.discount_ms, had_ms)
        return charge_of_receipt(replace(receipt, busy_ms=had_ms, discount_ms=discount_ms), policy)

    return judge
