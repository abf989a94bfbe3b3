"""What accounts have used, as the gateway's books have it: the ledger's receipts, else its list of leases."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from agent.limits import MAX_USAGE_RECEIPTS
from agent.local.people_views import AccountUsageView, ReceiptLineView, UsageView
from federation.fairshare.accounts import institution
from federation.fairshare.standing import Standing
from federation.ledger.standing import LeaseLine, is_unilateral

MSGS_PER_S: Final = 1000
"""Milli standard-GPU-seconds of a whole standard device in a second."""
DECAY_BITS: Final = 40
"""Decayed use is in units of 2^-40 msgs."""
_PERMILLE: Final = 1000


class LeaseTimes(Protocol):
    """A book of leases."""

    async def lease_times(self, borrower_site: str, account: str, *, now_s: float) -> tuple[int, float]:
        """Return how many leases an account and what is below it hold, and the seconds of all until now."""


class Receipts(Protocol):
    """A ledger."""

    async def leases(self, *, account: str, limit: int) -> list[LeaseLine]:
        """Return the leases of an account and what is below it as their last receipts say, latest first."""


class LeaseUsage:
    """Use as the gateway's own book of leases has it: whole devices' seconds, without weights or decay.

    Args:
        site: this site's name.
        leases: the book.
    """

    def __init__(self, site: str, leases: LeaseTimes) -> None:
        self._site = site
        self._leases = leases

    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        """Return what accounts have used."""
        rows = []
        for one in accounts:
            held, seconds = await self._leases.lease_times(self._site, one, now_s=time.time())
            rows.append(AccountUsageView(one, charged_msgs=int(seconds * MSGS_PER_S), leases=held))
        return UsageView(tuple(rows), "seconds of whole devices in this gateway's list of leases")


class LedgerUsage:
    """Use as receipts have it, and as the order of requests at this gateway sees it.

    Args:
        standing: returns how accounts stand, if there is a policy to rank by.
        receipts: the ledger.
        leases: says how many leases are open, and all where nothing ranks yet.
        site: this site's name.
    """

    def __init__(
        self, standing: Callable[[], Standing | None], receipts: Receipts, leases: LeaseTimes, site: str
    ) -> None:
        self._standing = standing
        self._receipts = receipts
        self._leases = leases
        self._site = site

    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        """Return what accounts have used."""
        standing = self._standing()
        if standing is None:
            return await LeaseUsage(self._site, self._leases).usage(accounts)
        now_s = time.time()
        rows = []
        for one in accounts:
            held, _ = await self._leases.lease_times(self._site, one, now_s=now_s)
            lines = await self._receipts.leases(account=one, limit=MAX_USAGE_RECEIPTS)
            receipts = tuple(receipt_line(line, int(now_s)) for line in lines)
            rows.append(_row(standing, one, held, receipts))
        age = f"books {standing.oldest_head_age_s} s old" + (", too old to rank by" if standing.stale else "")
        return UsageView(tuple(rows), f"receipts that this gateway has checked; {age}")


def receipt_line(line: LeaseLine, now_s: int) -> ReceiptLineView:
    """Return a lease's last receipt in one line."""
    if line.refunded:
        state = "refunded"
    elif line.signed_seq >= line.seq:
        state = "signed by both"
    else:
        state = "unilateral" if is_unilateral(line, now_s) else "to be countersigned"
    return ReceiptLineView(
        line.donor, line.lease_id, line.seq, line.charge_msgs, float(line.from_s), float(line.to_s), state
    )


def _row(
    standing: Standing, account: str, held: int, receipts: tuple[ReceiptLineView, ...]
) -> AccountUsageView:
    part, whole = standing.share(account)
    roots = (path for path in standing.policy.accounts if path == f"/{institution(path)}")
    used_by_all = sum(standing.usage.get(root, 0) for root in roots)
    used = standing.usage.get(account, 0)
    return AccountUsageView(
        account,
        classes=standing.classes(account),
        decayed_msgs=max(0, used >> DECAY_BITS),
        charged_msgs=max(0, standing.ever.get(account, 0)),
        due_permille=part * _PERMILLE // whole if whole else 0,
        delivered_permille=used * _PERMILLE // used_by_all if used_by_all else 0,
        leases=held,
        receipts=receipts,
    )
