"""What those leave behind who leave: the leases that they lend and those that they use.

Rules: a node that leaves, or is put out, has neither any more from that moment; nor has a site that the
registry names no longer. While no registry is believed, nobody has left: running leases go on to their end.
"""

from __future__ import annotations

import asyncio
import contextlib

from agent.errors import StateError, UnknownLeaseError
from agent.gateway.broker import SiteBroker
from agent.gateway.donor import LocalDonor
from agent.site.trust import Trust


class Departures:
    """The ends of leases that departures bring.

    Args:
        donor: what this site lends.
        broker: what its nodes have from other sites.
        trust: who belongs to the consortium.
    """

    def __init__(self, donor: LocalDonor, broker: SiteBroker, trust: Trust) -> None:
        self._donor = donor
        self._broker = broker
        self._trust = trust
        self._ending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End nothing more."""
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def node(self, node: str) -> None:
        """End what runs on a node of this site, and what it uses."""
        site = self._donor.site
        reason = f"the node {node} has left {site}"
        await self._donor.gone(node, reason)
        for lease in tuple(self._donor.state.book.leases.values()):
            if (lease.request.borrower_site, lease.request.borrower_node) == (site, node):
                await self._end(lease.id, reason, site)
        await self._broker.end_all_of(node, reason)

    def sites(self) -> None:
        """End what is lent to sites that the registry names no longer; returns at once."""
        membership = self._trust.membership
        if membership is None:
            return
        members = {self._donor.site, *(one.site for one in membership.sites)}
        for lease in self._donor.state.book.leases.values():
            borrower = lease.request.borrower_site
            if borrower not in members:
                reason = f"{borrower} has left the consortium"
                task = asyncio.create_task(self._end(lease.id, reason, borrower))
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    async def _end(self, lease_id: str, reason: str, site: str) -> None:
        # It has ended meanwhile, or will by its time.
        with contextlib.suppress(UnknownLeaseError, StateError):
            await self._donor.release(lease_id, reason, site)
