"""The exchange of books with all other gateways, as long as the gateway runs.

Rules: each site that answers is asked every ``LEDGER_EVERY_S``, spread so that sites do not ask in step; few
at a time, each round within ``LEDGER_ROUND_S``: what was taken until then is kept. A peer that answers
nonsense is said once and asked again the next time. Receipts of every donor come from whoever has them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from agent.ledger.books import Judge, LedgerBooks
from agent.ledger.carbon import CarbonTable
from agent.ledger.sync import Round, sync_from
from agent.limits import LEDGER_EVERY_S, LEDGER_ROUND_S, MAX_LEDGER_PEERS
from federation.errors import FederationError
from federation.ledger.carbon import SignedCarbon
from federation.ledger.exchange import LedgerPeer
from pyrdma.errors import Error

_log = logging.getLogger(__name__)


class ExchangePeer(LedgerPeer, Protocol):
    """Another gateway's books, and the carbon series that came with its heads."""

    @property
    def carbon(self) -> SignedCarbon | None:
        """As its site sent it last, unread."""
        ...


class LedgerExchange:
    """Brings the books of all gateways together with ours.

    Args:
        books: ours.
        peers: returns the gateways that answer now.
        judge: returns what says whether a receipt that charges us is right.
        changed: told after each round: something new may be in the books, and they are newer than before.
        clock: Unix time in s.
    """

    def __init__(
        self,
        books: LedgerBooks,
        peers: Callable[[], Iterable[ExchangePeer]],
        judge: Callable[[], Awaitable[Judge]],
        changed: Callable[[], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._books = books
        self._peers = peers
        self._judge = judge
        self._changed = changed
        self._clock = clock
        self.carbon = CarbonTable()
        self._few = asyncio.Semaphore(MAX_LEDGER_PEERS)
        self._faults: dict[str, str] = {}
        self._rounds: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def faults(self) -> dict[str, str]:
        """Why the books of a site could not be read the last time, by site."""
        return dict(self._faults)

    def start(self) -> None:
        """Begin to ask."""
        self._task = asyncio.create_task(self._ask_always(), name="ledger")

    async def close(self) -> None:
        """Stop asking."""
        tasks = [*self._rounds.values(), *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ask_all(self) -> None:
        """Have a round with every gateway that answers, now."""
        await asyncio.gather(*self._begin(), return_exceptions=True)

    def _begin(self) -> list[asyncio.Task[None]]:
        return [self._round_with(peer) for peer in self._peers()]

    def _round_with(self, peer: ExchangePeer) -> asyncio.Task[None]:
        # One round with each at a time: one that is under way is not begun again.
        task = self._rounds.get(peer.site)
        if task is None:
            task = asyncio.create_task(self._round(peer), name=f"ledger-{peer.site}")
            self._rounds[peer.site] = task
            task.add_done_callback(lambda _: self._rounds.pop(peer.site, None))
        return task

    async def _round(self, peer: ExchangePeer) -> None:
        async with self._few:
            try:
                async with asyncio.timeout(LEDGER_ROUND_S):
                    done = await sync_from(peer, self._books, judge=await self._judge(), now=self._clock)
                if peer.carbon is not None:
                    self.carbon.take(peer.site, peer.carbon, self._books.keys)
            except (Error, FederationError) as error:
                self._note(peer.site, error.message)
            except TimeoutError:
                self._note(peer.site, f"its books were not read to their end within {LEDGER_ROUND_S:.0f} s.")
            else:
                self._tell(peer.site, done)
        self._changed()  # also after a round that broke off: what was taken until then is in the books

    def _tell(self, site: str, done: Round) -> None:
        for donor, refusal in done.refused.items():
            self._note(site, f"a receipt of {donor} was not taken: {refusal.sentence}")
        if not done.refused and self._faults.pop(site, ""):
            _log.info("the books of %s are read again", site)
        if done.evidence:
            _log.error("a donor has signed two histories; see: pyrdma-agent ledger show")

    def _note(self, site: str, fault: str) -> None:
        if self._faults.get(site) != fault:
            _log.warning("the books of %s: %s", site, fault)
        self._faults[site] = fault

    async def _ask_always(self) -> None:
        while True:
            self._begin()
            await asyncio.sleep(LEDGER_EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
