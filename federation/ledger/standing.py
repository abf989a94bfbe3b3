"""What receipts say about now: who is behind with countersignatures, and what is held on open leases.

Rules: a countersignature covers the receipt and all before it of its lease, since figures are cumulative. A
receipt without one counts all the same; after six intervals it is called ``unilateral``; a borrower with one
older than a day gets no new leases from anyone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from federation.limits import ARREARS_S, COUNTERSIGN_INTERVALS, RECEIPT_INTERVAL_S


@dataclass(frozen=True, slots=True)
class LeaseLine:
    """A lease as its last receipt says.

    Args:
        position: of its last receipt in the donor's chain.
        device: ``NODE/DEVICE`` names, separated by commas.
        signed_seq: the last receipt that the borrower has countersigned; 0: none.
        unsigned_since_s: when the first receipt after that one ends; ``None``: there is none after it.
    """

    donor: str
    lease_id: str
    position: int
    seq: int
    borrower: str
    account: str
    purpose: str
    device: str
    device_class: str
    from_s: int
    to_s: int
    busy_ms: int
    charge_msgs: int
    final: bool
    refunded: bool
    signed_seq: int
    unsigned_since_s: int | None


def is_unilateral(line: LeaseLine, now_s: int) -> bool:
    """Say whether the borrower has let the time for its signature pass."""
    since_s = line.unsigned_since_s
    return since_s is not None and now_s > since_s + COUNTERSIGN_INTERVALS * RECEIPT_INTERVAL_S


def in_arrears(lines: Iterable[LeaseLine], now_s: int) -> frozenset[str]:
    """Return the borrowers that get no new leases: with a unilateral receipt older than a day."""
    return frozenset(
        line.borrower
        for line in lines
        if line.unsigned_since_s is not None and now_s > line.unsigned_since_s + ARREARS_S
    )


def holdings(lines: Iterable[LeaseLine]) -> dict[str, int]:
    """Return how many devices each account holds on leases whose last receipt is not final."""
    held: dict[str, int] = defaultdict(int)
    for line in lines:
        if not line.final:
            held[line.account] += line.device.count(",") + 1
    return dict(held)
