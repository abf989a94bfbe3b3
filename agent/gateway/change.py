"""One step of a donor's book in the making: copies of the book's parts to change, and the effects so far.

What every rule needs is here: saving before acting, ending a lease once, refusing whoever is not its holder.
A change is made, filled and read within one step; the books before and after it never change.
"""

from __future__ import annotations

from dataclasses import replace

from agent.gateway.book import Book, Lease, LeaseState, Stopping
from agent.gateway.events import Effect, Ended, Refuse, Save, Stop
from agent.gateway.fleet import Fleet
from agent.gateway.request import Refused
from agent.limits import LEASE_REPORT_GRACE_S, MAX_ENDED_KEPT


class Change:
    """What a step has made of a book and a fleet.

    Args:
        book: the book before the step; it stays as it is.
        fleet: the fleet before the step.
        now_s: the time of the step.
    """

    def __init__(self, book: Book, fleet: Fleet, now_s: float) -> None:
        self.now_s = now_s
        self.fleet = fleet
        self.lease_ttl_s = book.lease_ttl_s
        self.node_lost_s = book.node_lost_s
        self.offers = dict(book.offers)
        self.leases = dict(book.leases)
        self.stopping = dict(book.stopping)
        self.ended = dict(book.ended)
        self.effects: list[Effect] = []

    def book(self) -> Book:
        """Return the book as it is by now."""
        return Book(self.lease_ttl_s, self.offers, self.leases, self.stopping, self.ended)

    def surely_later(self, moment_s: float) -> bool:
        """Whether a report that comes now was made after the moment."""
        return self.now_s >= moment_s + LEASE_REPORT_GRACE_S

    def put(self, lease: Lease) -> None:
        """Write down a lease that has not ended."""
        self.leases[lease.id] = lease
        self.effects.append(Save(lease))

    def end(self, lease: Lease, reason: str, *, left_over: bool) -> None:
        """End a lease; ``left_over``: something of it may be on its node yet, and keeps the device taken."""
        self.leases.pop(lease.id, None)
        over = replace(lease, state=LeaseState.ENDED, reason=reason)
        self.ended[lease.id] = over
        while len(self.ended) > MAX_ENDED_KEPT:
            del self.ended[next(iter(self.ended))]
        self.effects.append(Save(over))
        if left_over:
            self.stopping[lease.id] = Stopping(lease.devices, self.now_s)
            self.effects.append(Stop(lease.device.node, lease.id, reason))
        self.effects.append(Ended(over, reason))

    def held_by(self, lease_id: str, site: str) -> Lease | None:
        """Return a lease that the site holds; refuse otherwise."""
        lease = self.leases.get(lease_id) or self.ended.get(lease_id)
        if lease is None:
            self.refuse("unknown-lease", f"this site knows no lease {lease_id}.", "ask for a new one")
        elif lease.request.borrower_site != site:
            self.refuse("not-yours", f"the lease {lease_id} is another site's.", "name a lease of your own")
        elif lease.state is LeaseState.ENDED:
            self.refuse(
                "lease-ended", f"the lease {lease_id} has ended: {lease.reason}.", "ask for a new one"
            )
        else:
            return lease
        return None

    def refuse(self, code: str, sentence: str, fix: str) -> None:
        """Refuse for good."""
        self.effects.append(Refuse(Refused(code, sentence, fix, terminal=True)))
