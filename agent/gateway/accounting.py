"""What a donor's leases have used, written into the books: at the grant, every interval, at the end.

Rules: the first and the last receipt of a lease are written in the transaction that writes the lease itself;
while the books are locked, leases go on without, and what was not said is said later, with more time on it; a
lease that was granted while no policy was in force has no receipts, whatever comes into force later; one that
waits for its devices has none before it has them. Who has used how much is ``federation.ledger``'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from agent.errors import StateError
from agent.gateway.core.book import Lease, LeaseState
from agent.gateway.core.state import State
from agent.gateway.metering import Meters, Use
from agent.ledger.books import LedgerBooks
from agent.limits import MAX_LATE_RECEIPTS, METER_EVERY_S
from federation.errors import LedgerError, LedgerLockedError
from federation.ledger.form import decode
from federation.ledger.receipt import Receipt
from federation.ledger.writing import Statement
from federation.limits import RECEIPT_INTERVAL_S
from federation.policy.policy import Policy

if TYPE_CHECKING:
    from sqlite_utils import Database

_log = logging.getLogger(__name__)
_NOTHING: Final = Use()
Entry = Callable[["Database"], None]
"""Writes what belongs to a lease's change within its transaction."""


class Accounting:
    """The receipts of one donor.

    Args:
        books: where they are written.
        policy: returns the policy in force, the consortium's own.
        policies: returns all policies by digest, former ones too.
        state: returns what the donor decides from.
        idle: returns the classes of which the federation has an idle device now.
        receipted: told of a lease and what its receipts charge in all, msgs.
        clock: of leases, s.
        unix_s: Unix time.
    """

    def __init__(
        self,
        books: LedgerBooks,
        *,
        policy: Callable[[], Policy | None],
        policies: Callable[[], Mapping[str, Policy]],
        state: Callable[[], State],
        idle: Callable[[], Iterable[str]],
        receipted: Callable[[str, int], object],
        clock: Callable[[], float],
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._books = books
        self._policy = policy
        self._policies = policies
        self._state = state
        self._idle = idle
        self._receipted = receipted
        self._clock = clock
        self._unix_s = unix_s
        self._meters = Meters()
        self._uses: dict[str, Use] = {}
        self._due_s: dict[str, float] = {}
        self._late: dict[str, tuple[Statement, str]] = {}
        """Last receipts that are not known to be written, with the digest of the policy that prices them."""
        self._uncounted: set[str] = set()
        """Leases that were granted while no policy was in force."""
        self._fault = ""
        self._counting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Go on with leases of an agent before this one, and close the receipts of those that are gone."""
        self._meters = self._meters.sampled((), self._clock())
        book = self._state().book
        for line in await self._books.store.open_leases():
            if line.donor != self._books.site:
                continue
            item = await self._books.store.item(line.donor, line.position)
            if item is None:
                continue
            last = decode(item.body)
            if line.lease_id in book.leases:
                self._meters = self._meters.begun(line.lease_id, last.device_class, last.policy, last)
                self._due_s[line.lease_id] = self._clock() + RECEIPT_INTERVAL_S
                self._receipted(line.lease_id, last.charge_msgs)
            else:
                over = book.ended.get(line.lease_id)
                refunded = over is not None and over.refunded
                self._follow(_closing(last, refunded=refunded), last.policy)
        self._counting = asyncio.create_task(self._count(), name="receipts")

    async def close(self) -> None:
        """Count no more."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)

    def measured(self, lease_id: str, use: Use) -> None:
        """Note what a lease's node says that it has used."""
        if lease_id in self._meters.of:
            self._uses[lease_id] = use

    def entry(self, lease: Lease) -> Entry | None:
        """Return what is to be written with a lease that is new, or has ended; in its own transaction."""
        over = lease.state is LeaseState.ENDED
        if lease.id in self._meters.of:
            return self._last(lease) if over else None
        if over:
            self._uncounted.discard(lease.id)
        if lease.state is not LeaseState.COMMITTED or lease.id in self._uncounted:
            return None
        policy = self._policy()
        if policy is None:
            self._uncounted.add(lease.id)
            return None
        self._meters = self._meters.begun(lease.id, self._class_of(lease), policy.digest)
        self._due_s[lease.id] = self._clock()  # until it is known to be written
        return self._writing(self._statement(lease, final=False), policy)

    def entered(self, lease: Lease) -> None:
        """Note that what ``entry`` gave for a lease is on disk."""
        if lease.id in self._due_s:
            self._due_s[lease.id] = self._clock() + RECEIPT_INTERVAL_S
        if self._late.pop(lease.id, None) is not None:
            self._receipted(lease.id, 0)

    # --- within -------------------------------------------------------------------------------------------

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(METER_EVERY_S)
            try:
                self._meters = self._meters.sampled(self._idle(), self._clock())
                await self._write_due()
            except Exception:  # noqa: BLE001 - a donor that counts no more would lend for nothing
                _log.exception("the receipts met a defect; they go on")

    async def _write_due(self) -> None:
        for lease_id, (statement, digest) in list(self._late.items()):
            if await self._append(statement, digest):
                self._late.pop(lease_id, None)
        now_s, leases = self._clock(), self._state().book.leases
        self._uncounted.intersection_update(leases)
        for lease_id, due_s in list(self._due_s.items()):
            lease = leases.get(lease_id)
            if lease is None and now_s >= due_s + RECEIPT_INTERVAL_S:
                self._forget(lease_id)  # it could not be written down, so it was never granted
            if now_s < due_s or lease is None or lease_id not in self._meters.of:
                continue
            statement = self._statement(lease, final=False)
            if await self._append(statement, self._meters.of[lease_id].policy) and lease_id in self._due_s:
                self._due_s[lease_id] = now_s + RECEIPT_INTERVAL_S

    async def _append(self, statement: Statement, digest: str) -> bool:
        """Write a receipt; whether it need not be tried again soon."""
        policy = self._policies().get(digest)
        if policy is None:
            self._note(f"the registry names no policy {digest[:16]} at the moment, which prices it.")
            return False
        try:
            signed = await self._books.append(statement, policy)
        except (LedgerLockedError, StateError) as error:
            self._note(error.message)
            return False
        except LedgerError as error:
            _log.error("no receipt for the lease %s: %s", statement.lease_id, error.message)
            return True
        self._fault = ""
        self._receipted(statement.lease_id, signed.receipt.charge_msgs)
        return True

    def _note(self, fault: str) -> None:
        if fault != self._fault:
            _log.warning("receipts are not written for the moment, and follow: %s", fault)
        self._fault = fault

    def _last(self, lease: Lease) -> Entry | None:
        digest = self._meters.of[lease.id].policy
        statement = self._statement(lease, final=True)
        self._forget(lease.id)
        self._follow(statement, digest)
        policy = self._policies().get(digest)
        return None if policy is None else self._writing(statement, policy)

    def _follow(self, statement: Statement, digest: str) -> None:
        """Have a last receipt written soon, if nothing else writes it."""
        self._late[statement.lease_id] = (statement, digest)
        if len(self._late) > MAX_LATE_RECEIPTS:
            oldest = next(iter(self._late))
            del self._late[oldest]
            _log.error("the lease %s is charged by its last receipt but one: too many wait", oldest)

    def _forget(self, lease_id: str) -> None:
        self._meters = self._meters.ended(lease_id)
        self._due_s.pop(lease_id, None)
        self._uses.pop(lease_id, None)

    def _writing(self, statement: Statement, policy: Policy) -> Entry:
        def write(db: Database) -> None:
            self._books.append_in(db, statement, policy)

        return write

    def _statement(self, lease: Lease, *, final: bool) -> Statement:
        use = self._uses.get(lease.id, _NOTHING)
        return self._meters.statement(
            lease, use, now_s=self._clock(), unix_s=int(self._unix_s()), final=final
        )

    def _class_of(self, lease: Lease) -> str:
        heard = self._state().fleet.nodes.get(lease.device.node)
        devices = heard.report.devices if heard is not None else ()
        return next((one.device_class for one in devices if one.id == lease.device.device), "cpu")


def _closing(last: Receipt, *, refunded: bool) -> Statement:
    """Return the last statement of a lease that ended while nobody counted: no more than before."""
    return Statement(
        lease_id=last.lease_id,
        borrower=last.borrower,
        account=last.account,
        purpose=last.purpose,
        device=tuple(last.device.split(",")),
        device_class=last.device_class,
        from_s=last.from_s,
        to_s=last.to_s,
        busy_ms=last.busy_ms,
        discount_ms=last.discount_ms,
        energy_wh=last.energy_wh,
        egress_bytes=last.egress_bytes,
        final=True,
        refunded=refunded,
    )
