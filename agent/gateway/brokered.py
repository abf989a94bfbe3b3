"""The leases of other sites that nodes of this one have: whose each is, and until when it is believed in.

Rules: a lease is on disk before its borrower hears of it; an end goes on even if it cannot be written; a
lease that nobody renewed in its time is struck off, since its donor has ended it by its own clock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.daemon.faces import OfferRequest
from agent.errors import PeerNodeError, StateError, UnknownLeaseError
from agent.gateway.borrowing import Borrowed, renewed
from agent.gateway.records import brokered_record
from agent.limits import MAX_BROKERED
from agent.local.views import AcceptedView
from agent.state import SiteLeaseRecord, SiteStore

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Lease:
    """One of them; the clock is its borrower's view of it."""

    record: SiteLeaseRecord
    clock: Borrowed


class BrokeredLeases:
    """What this site's nodes have from other sites.

    Args:
        site: this site's name.
        books: where it stands.
        boot_id: names the present boot.
        clock: the clock of leases, in s.
    """

    def __init__(self, site: str, books: SiteStore, boot_id: str, clock: Callable[[], float]) -> None:
        self._site = site
        self._books = books
        self._boot_id = boot_id
        self._clock = clock
        self._leases: dict[str, _Lease] = {}
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        """Whether the site has as many as it may."""
        return len(self._leases) >= MAX_BROKERED

    async def restore(self) -> None:
        """Know again what was brokered before this agent started; each lives until nobody renews it."""
        now_s = self._clock()
        for one in await self._books.leases(include_ended=False):
            if one.side == "brokered":
                lease_id = one.id.rpartition("/")[2]
                self._leases[lease_id] = _Lease(one, Borrowed(lease_id, one.donor_site, now_s, one.ttl_s))

    async def close(self) -> None:
        """Wait until every end is written down."""
        await asyncio.gather(*self._writing)

    def enter(self, accepted: AcceptedView, request: OfferRequest, sent_at_s: float) -> None:
        """Know a lease that another site has accepted; ``write`` follows.

        Raises:
            PeerNodeError: the site means no such thing: its id is another lease's, or its time is none.
        """
        lease_id = accepted.lease_id
        if lease_id in self._leases:
            raise PeerNodeError(
                f"{accepted.site} names a lease that is another one already.", fix="try again"
            )
        clock = Borrowed(lease_id, accepted.site, sent_at_s, accepted.ttl_s)
        record = brokered_record(accepted, request, self._site, self._boot_id, time.time())
        self._leases[lease_id] = _Lease(record, clock)

    async def write(self, lease_id: str) -> None:
        """Write down a lease that was entered. Raises StateError."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            await self._books.put_lease(lease.record)

    def of(self, borrower: str) -> tuple[str, ...]:
        """Return the leases that a node has."""
        return tuple(key for key, one in self._leases.items() if one.record.borrower_node == borrower)

    def donor_of(self, lease_id: str, borrower: str) -> str:
        """Return the site that a node has a lease from.

        Raises:
            UnknownLeaseError: that node has no such lease.
        """
        lease = self._leases.get(lease_id)
        if lease is None or lease.record.borrower_node != borrower:
            raise UnknownLeaseError(
                f"{borrower} has borrowed no lease {lease_id[:32]!r}.",
                fix="see them with: pyrdma-agent leases",
            )
        return lease.record.donor_site

    def renewed(self, lease_id: str, sent_at_s: float, ttl_s: float) -> None:
        """Note that a donor has renewed a lease. Raises PeerNodeError when its time is none."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            lease.clock = renewed(lease.clock, sent_at_s, ttl_s)

    async def strike(self, lease_id: str, reason: str) -> None:
        """Note a lease's end; one that is not known has been struck off already."""
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            return
        ended = replace(lease.record, state="ended", ended_at=time.time(), reason=reason)
        # Whoever tells of an end may be called off in this moment; the books have it all the same.
        writing = asyncio.create_task(self._write_end(ended))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.shield(writing)

    async def strike_overdue(self) -> None:
        """Strike off what nobody renewed."""
        now_s = self._clock()
        for lease_id in [key for key, one in self._leases.items() if now_s >= one.clock.deadline_s]:
            await self.strike(lease_id, "its borrower did not renew it in time")

    async def _write_end(self, ended: SiteLeaseRecord) -> None:
        try:
            await self._books.put_lease(ended)
        except StateError as error:
            _log.error("lease %s has ended, its record could not be written: %s", ended.id, error.message)
