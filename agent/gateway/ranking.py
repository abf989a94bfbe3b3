"""What a donor ranks by, kept up to date: a new standing at each epoch, and when the books have changed.

Rules: a standing is made from the ledger, never changed in place; the books are as old as the donor's chain
that was heard of longest ago, among members that have signed something lately; while they are fresh, the
split that this donor serves is remembered, and it is what rules when they are not. Without a policy there is
nothing to rank by.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Final

from agent.errors import StateError
from agent.ledger.books import LedgerBooks, Standings
from agent.limits import RANK_EVERY_S, RANK_SOON_S
from agent.state.ledger_rows import DonorRow
from federation.fairshare.charging import rate_of
from federation.fairshare.decay import EPOCH_S, decay_table
from federation.fairshare.freshness import Split, freeze, is_fresh
from federation.fairshare.standing import OpenLease, Standing, standing_of
from federation.fairshare.usage import Usage
from federation.ledger.standing import LeaseLine
from federation.limits import RECEIPT_INTERVAL_S
from federation.policy.policy import PER_MILLE, Policy

_log = logging.getLogger(__name__)
ACTIVE_S: Final = 7 * 86400
"""A donor that has signed nothing for so long lends no more: nobody waits for its books."""
BELIEVED_RECEIPTS: Final = 3
"""An open lease elsewhere is believed to go on for so many intervals after its last receipt."""


class Ranking:
    """The standing of accounts at one donor.

    Args:
        books: what is known of everybody's use.
        policy: returns the policy in force.
        donated: returns the devices of the federation by class, this donor's included.
        changed: takes a new standing.
        unix_s: Unix time.
    """

    def __init__(
        self,
        books: LedgerBooks,
        *,
        policy: Callable[[], Policy | None],
        donated: Callable[[], Mapping[str, int]],
        changed: Callable[[Standing], Awaitable[object]],
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._books = books
        self._policy = policy
        self._donated = donated
        self._changed = changed
        self._unix_s = unix_s
        self._split: Split | None = None
        self._arrears: frozenset[str] = frozenset()
        self._soon, self._turn = asyncio.Event(), asyncio.Lock()
        self._running: asyncio.Task[None] | None = None

    @property
    def arrears(self) -> frozenset[str]:
        """The borrowers that get no new leases, since they owe signatures for more than a day."""
        return self._arrears

    def start(self) -> None:
        """Begin."""
        self._running = asyncio.create_task(self._always(), name="ranking")

    async def close(self) -> None:
        """Stop."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def soon(self) -> None:
        """Make a new standing shortly: the books, the policy or the devices have changed."""
        self._soon.set()

    async def now(self) -> None:
        """Make a new standing."""
        async with self._turn:  # an older standing must not follow a newer one
            policy = self._policy()
            if policy is None:
                self._arrears = frozenset()
                return
            said = await self._books.standings()
            rows = await self._books.store.donors()
            local = await self._books.store.usage_of(self._books.site)
            self._arrears = said.arrears
            await self._changed(self._standing(policy, said, rows, local))

    def _standing(self, policy: Policy, said: Standings, rows: Iterable[DonorRow], local: Usage) -> Standing:
        now_s = int(self._unix_s())
        epoch = now_s // EPOCH_S
        age_s = books_age_s(rows, self._books.keys.sites.keys() - {self._books.site}, now_s)
        if is_fresh(age_s):
            table = decay_table(policy.decay.half_life_s, policy.decay.window_half_lives)
            self._split = freeze(epoch, local, table)
        return standing_of(
            policy,
            epoch,
            usage=said.usage,
            open_leases=[_open(one, policy) for one in said.open_leases if one.donor != self._books.site],
            donated=self._donated(),
            oldest_head_age_s=age_s,
            last_split=self._split,
            local=local,
            ledger_digest=said.digest.hex(),
        )

    async def _always(self) -> None:
        while True:
            self._soon.clear()
            try:
                await self.now()
            except StateError as error:
                _log.error("accounts are ranked by what was known before: %s", error.message)
            except Exception:  # noqa: BLE001 - a donor that ranks no more would serve an old order for ever
                _log.exception("the ranking met a defect; it goes on")
            await asyncio.sleep(RANK_SOON_S)  # many changes at once are one
            left_s = EPOCH_S - self._unix_s() % EPOCH_S
            try:
                async with asyncio.timeout(min(RANK_EVERY_S, left_s)):
                    await self._soon.wait()
            except TimeoutError:
                pass


def books_age_s(rows: Iterable[DonorRow], others: Collection[str], now_s: int) -> int:
    """Return the age of the books: of the chain, among those of other donors, heard of longest ago.

    A chain whose donor contradicted itself has ended: it must not make everybody's books old.
    """
    active = (
        row for row in rows if row.donor in others and row.forked_at is None and now_s - row.to_s <= ACTIVE_S
    )
    heard = (max(row.heard_at, row.to_s) for row in active)
    return max(0, now_s - int(min(heard, default=now_s)))


def _open(line: LeaseLine, policy: Policy) -> OpenLease:
    devices = line.device.count(",") + 1
    rate = rate_of(
        policy,
        device_class=line.device_class,
        purpose=line.purpose,
        devices=devices,
        share_permille=PER_MILLE,
    )
    until_s = line.to_s + BELIEVED_RECEIPTS * RECEIPT_INTERVAL_S
    return OpenLease(line.account, devices, rate, line.to_s, until_s)
