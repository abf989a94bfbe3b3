"""One step of a donor's state in the making: copies of the parts that change, and the effects so far.

What every rule needs is here: who has a device, saving before acting, ending a lease once, notices, refusing
whoever is not its holder, records of decisions. A change is made, filled and read within one step; the states
before and after it never change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from agent.gateway.core.book import Book, Cause, Index, Lease, LeaseState, Offer, Stopping, due_s, nonce_after
from agent.gateway.core.events import (
    Decision,
    DecisionKind,
    Effect,
    Ended,
    Event,
    Notice,
    Offered,
    Record,
    Refuse,
    Reprieve,
    Save,
    Start,
    Stop,
)
from agent.gateway.core.fleet import DeviceRef, NodeReport
from agent.gateway.core.past import past_of
from agent.gateway.core.queue import waiting_of
from agent.gateway.core.request import LeaseRequest, Refused, RequestKey, account_of
from agent.gateway.core.state import Debt, State, charges_of
from agent.gateway.core.values import altered
from agent.limits import LEASE_REPORT_GRACE_S, MAX_DURATIONS_KEPT, MAX_ENDED_KEPT
from federation.fairshare.accounts import ancestors
from federation.fairshare.charging import Charges, expected_msgs
from federation.fairshare.reasons import Reason
from federation.policy.policy import Policy


class Change:
    """What a step has made of a state.

    Args:
        state: the state before the step; it stays as it is.
        event: what is decided on.
    """

    __slots__ = (
        "_before",
        "_book_is_own",
        "_debts_are_own",
        "awaited",
        "compare_s",
        "debts",
        "due_gone",
        "due_s",
        "durations",
        "effects",
        "ended",
        "event",
        "fleet",
        "held",
        "hold",
        "law",
        "lease_ttl_s",
        "leases",
        "look",
        "now_s",
        "offers",
        "queue",
        "requests",
        "shelved",
        "stopping",
        "taken",
    )

    def __init__(self, state: State, event: Event) -> None:
        self.event = event
        self.now_s = event.now_s
        self.fleet = state.fleet
        self.queue = state.queue
        self.law = state.law
        self.hold = state.hold
        self.durations = state.durations
        self.compare_s = state.compare_s
        self.lease_ttl_s = state.book.lease_ttl_s
        self.effects: list[Effect] = []
        self.look = False
        """Whether somebody in the queue may be served now who could not be before."""
        self.due_s = state.due_s
        self.due_gone = False
        """Whether that for which something is due has ended."""
        book = state.book
        index = book.index
        # Only read until ``_own_book`` has copied them: many events change nothing of the book.
        self.offers = cast("dict[str, Offer]", book.offers)
        self.leases = cast("dict[str, Lease]", book.leases)
        self.stopping = cast("dict[str, Stopping]", book.stopping)
        self.ended = book.ended
        self.debts = state.debts
        self.taken = cast("dict[DeviceRef, str]", index.taken)
        self.awaited = cast("dict[DeviceRef, str]", index.awaited)
        self.requests = cast("dict[RequestKey, str]", index.requests)
        self.held = cast("dict[str, int]", index.held)
        self.shelved: list[object] | None = index.shelved
        """What the book leaves free, as ``agent.gateway.core.supply`` found before; ``None``: it changed."""
        self._before = book
        self._book_is_own = self._debts_are_own = False

    @property
    def node_lost_s(self) -> float:
        """How long a node may be silent before its leases end."""
        return self._before.node_lost_s

    def book(self) -> Book:
        """Return the book as it is by now."""
        if not self._book_is_own:
            return self._before
        index = Index(self.taken, self.awaited, self.requests, self.held)
        return Book(self.lease_ttl_s, self.offers, self.leases, self.stopping, self.ended, index)

    def state(self) -> State:
        """Return the state as it is by now."""
        return State(
            self.book(),
            self.fleet,
            self.queue,
            self.law,
            self.debts,
            self.hold,
            self.durations,
            self.due_s,
            self.compare_s,
        )

    def strays(self, report: NodeReport) -> tuple[str, ...]:
        """Return the leases that a node has taken on and should not have: ended, unknown or elsewhere."""
        leases = self.leases
        return tuple(
            one for one in report.leases if one not in leases or leases[one].device.node != report.node
        )

    def surely_later(self, moment_s: float) -> bool:
        """Whether a report that comes now was made after the moment."""
        return self.now_s >= moment_s + LEASE_REPORT_GRACE_S

    def due(self, moment_s: float) -> None:
        """See to it that something is looked at again at a moment."""
        if moment_s < self.due_s:
            self.due_s = moment_s

    def _own_book(self) -> None:
        """Copy the parts of the book, once, before the first of them changes."""
        if not self._book_is_own:
            self._book_is_own = True
            self.shelved = None
            self.offers, self.leases = dict(self.offers), dict(self.leases)
            self.stopping = dict(self.stopping)
            self.taken, self.awaited = dict(self.taken), dict(self.awaited)
            self.requests, self.held = dict(self.requests), dict(self.held)

    # --- devices ------------------------------------------------------------------------------------------

    def take(self, holder: str, devices: Iterable[DeviceRef], *, before: str = "") -> bool:
        """Give devices to an offer or a lease, or the right to be next; whether it has them all now.

        Args:
            holder: its id.
            devices: which are free, awaited by nobody, or ``before``'s.
            before: the offer that becomes the lease.
        """
        self._own_book()
        whole = True
        for device in devices:
            if self.taken.get(device, before) == before:
                self.taken[device] = holder
            else:
                self.awaited[device] = holder
                whole = False
        return whole

    def let_go(self, holder: str, devices: Iterable[DeviceRef]) -> None:
        """Take devices back from an offer or a lease; whoever awaits one has it then."""
        self._own_book()
        for device in devices:
            if self.awaited.get(device) == holder:
                del self.awaited[device]
            if self.taken.get(device) == holder:
                del self.taken[device]
                heir = self.awaited.pop(device, None)
                if heir is not None:
                    self.taken[device] = heir
                    self._begin(heir)
        self.look = True

    def _begin(self, lease_id: str) -> None:
        """Start a lease that waited for its devices, if it has them all."""
        lease = self.leases.get(lease_id)
        if lease is None or any(self.taken.get(one) != lease_id for one in lease.devices):
            return
        deadline_s = min(lease.deadline_s, self.now_s + lease.terms.max_duration_s)
        lease = altered(lease, state=LeaseState.COMMITTED, granted_at_s=self.now_s, deadline_s=deadline_s)
        self.put(lease)
        self.effects.append(Start(lease))

    def _count(self, request: LeaseRequest, devices: int) -> None:
        self._own_book()
        for path in ancestors(account_of(request)):
            left = self.held.get(path, 0) + devices
            if left:
                self.held[path] = left
            else:
                del self.held[path]

    # --- offers -------------------------------------------------------------------------------------------

    def offer(self, offer: Offer, device_class: str) -> None:
        """Hold devices for a request, whether it stood in line or not, and charge its account for that."""
        self._own_book()
        self.offers[offer.id] = offer
        self.requests[offer.request.key] = offer.id
        self.take(offer.id, offer.devices)
        self._count(offer.request, len(offer.devices))
        self._charge(offer, device_class)
        self.effects.append(Offered(offer))

    def commit(self, offer: Offer, lease: Lease) -> bool:
        """Make an offer a lease; whether it has its devices now."""
        self._own_book()
        del self.offers[offer.id]
        whole = self.take(lease.id, offer.devices, before=offer.id)
        debt = self.debts.get(offer.id)
        if debt is not None:
            debts = self._own_debts()
            debts[lease.id] = debts.pop(offer.id)
        return whole

    def drop(self, offer: Offer) -> None:
        """Forget an open offer; its devices are free."""
        self._own_book()
        del self.offers[offer.id]
        if self.requests.get(offer.request.key) == offer.id:
            del self.requests[offer.request.key]
        self._count(offer.request, -len(offer.devices))
        self._owe(offer.id, None)
        self.let_go(offer.id, offer.devices)

    def void(self, offer: Offer) -> None:
        """Take an offer back that cannot be kept; the request has its place in the queue again."""
        self.drop(offer)
        waiting = waiting_of(
            offer.request,
            since_s=offer.since_s,
            since_unix_s=self.law.unix(offer.since_s),
            claims=self.queue.ranked is not None,
        )
        self.queue = self.queue.entered(waiting, nonce_after(offer.id), self.now_s)

    # --- leases -------------------------------------------------------------------------------------------

    def put(self, lease: Lease) -> None:
        """Write down a lease that has not ended."""
        self._own_book()
        self.leases[lease.id] = lease
        self.requests[lease.request.key] = lease.id
        self.due(due_s(lease))
        self.effects.append(Save(lease))

    def restore(self, lease: Lease) -> None:
        """Take over a lease that is on disk, and what its account is charged for it."""
        self._own_book()
        lease = altered(lease, state=LeaseState.RESTORED)
        self.leases[lease.id] = lease
        self.requests[lease.request.key] = lease.id
        self.take(lease.id, lease.devices)
        self._count(lease.request, len(lease.devices))
        if lease.charge_msgs is not None:
            self._owe(lease.id, Debt(account_of(lease.request), lease.charge_msgs))
        self.due(self.now_s)

    def end(self, lease: Lease, cause: Cause, reason: str, *, left_over: bool) -> None:
        """End a lease; ``left_over``: something of it may be on its node yet, and keeps the devices taken."""
        self._own_book()
        self.leases.pop(lease.id, None)
        if self.requests.get(lease.request.key) == lease.id:
            del self.requests[lease.request.key]
        self._count(lease.request, -len(lease.devices))
        self.due_gone = self.due_gone or due_s(lease) == self.due_s
        ran_s = self.now_s - lease.granted_at_s
        waited = lease.state is LeaseState.WAITING
        refunded = cause is Cause.RECLAIMED and not waited and ran_s < lease.terms.min_runtime_s
        over = altered(lease, state=LeaseState.ENDED, cause=cause, reason=reason, refunded=refunded)
        self._remember(over)
        self.effects.append(Save(over))
        if left_over and not waited:
            self.stopping[lease.id] = Stopping(lease.devices, self.now_s)
            self.effects.append(Stop(lease.device.node, lease.id, reason))
        else:
            self.let_go(lease.id, lease.devices)
        self.effects.append(Ended(over, reason))
        if waited:
            self._spare(lease.devices)
        self._settle(over, 0.0 if waited or refunded else ran_s)
        if lease.watched_from_s is not None:
            self.durations = (*self.durations, ran_s)[-MAX_DURATIONS_KEPT:]
        self.record("end", lease.request, lease_id=lease.id, devices=lease.devices, code=cause)

    def gone(self, lease_id: str) -> None:
        """Note that nothing of an ended lease is left."""
        left = self.stopping.get(lease_id)
        if left is not None:
            self._own_book()
            del self.stopping[lease_id]
            self.let_go(lease_id, left.devices)

    def notice(self, lease: Lease, deadline_s: float, cause: Cause, reason: str) -> None:
        """Tell a lease's borrower once when it must be over; an earlier deadline that it knows stays."""
        known_s = lease.notice_deadline_s
        if known_s is not None and known_s <= deadline_s + 1.0:
            return
        if lease.state is LeaseState.WAITING:
            self.end(lease, cause, reason, left_over=False)
            return
        lease = altered(lease, notice_deadline_s=deadline_s, notice_cause=cause, notice_reason=reason)
        self.put(lease)
        self.effects.append(Notice(lease, deadline_s, reason))

    def unnotice(self, lease: Lease) -> None:
        """Let a lease go on after all, unless another guest is to have its devices next."""
        lease = altered(lease, notice_deadline_s=None, notice_cause=None, notice_reason="")
        self.put(lease)
        heirs = [self.awaited.get(one, "") for one in lease.devices]
        heir = next((self.leases[one] for one in heirs if one in self.leases), None)
        if heir is not None:
            self.make_room(lease, heir)
        else:
            self.effects.append(Reprieve(lease))

    def _spare(self, devices: Iterable[DeviceRef]) -> None:
        """Let guests go on that were to make room for somebody who does not come."""
        for holder in dict.fromkeys(self.taken.get(one, "") for one in devices):
            guest = self.leases.get(holder)
            if guest is None or guest.notice_cause is not Cause.PREEMPTED:
                continue
            node = self.fleet.nodes.get(guest.device.node)
            lent = () if node is None else [one.ref for one in node.lent]  # else it is their owner's to say
            if all(one in lent and one not in self.awaited for one in guest.devices):
                self.unnotice(guest)

    def make_room(self, victim: Lease, heir: Lease) -> None:
        """Give a lease notice whose devices another guest's is to have next."""
        reason = f"{heir.request.borrower_site} goes first by the policy"
        self.notice(victim, self.now_s + victim.terms.grace_s, Cause.PREEMPTED, reason)
        self.record("preemption", victim.request, lease_id=victim.id, devices=victim.devices, code=heir.id)

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

    def _remember(self, over: Lease) -> None:
        self.ended, forgotten = past_of(self.ended).with_ended(over, MAX_ENDED_KEPT)
        for lease_id in forgotten:
            self._owe(lease_id, None)

    # --- charges ------------------------------------------------------------------------------------------

    def _charge(self, offer: Offer, device_class: str) -> None:
        policy = self.law.policy
        msgs = 0 if policy is None else expected_of(policy, offer.request, device_class)
        if policy is not None:
            self._own_debts()[offer.id] = Debt(account_of(offer.request), msgs)
        if offer.request.key in self.queue.line:
            self.queue = self.queue.served(offer.request.key, msgs)
        elif msgs:
            self.queue = self.queue.charged(account_of(offer.request), msgs)

    def charges(self) -> Charges:
        """Return what no receipt speaks of yet."""
        return charges_of(self.debts)

    def receipted(self, lease_id: str, charge_msgs: int) -> None:
        """Note how much of a lease's charge receipts speak of."""
        debt = self.debts.get(lease_id)
        if debt is not None:
            open_yet = lease_id in self.leases
            self._owe(lease_id, altered(debt, receipted_msgs=charge_msgs) if open_yet else None)

    def _settle(self, over: Lease, ran_s: float) -> None:
        """Charge a lease that has ended for the time that it ran, until its last receipt."""
        debt = self.debts.get(over.id)
        if debt is None:
            return
        planned_s = over.terms.max_duration_s if over.request.duration_s else 0
        share = min(1.0, ran_s / planned_s) if planned_s else None
        ran_msgs = debt.expected_msgs if share is None else int(debt.expected_msgs * share)
        self._owe(over.id, altered(debt, expected_msgs=ran_msgs if ran_s > 0 else 0))

    def _owe(self, lease_id: str, debt: Debt | None) -> None:
        before = self.debts.get(lease_id)
        if before is debt:
            return
        debts = self._own_debts()
        if debt is None:
            del debts[lease_id]
        else:
            debts[lease_id] = debt
        known = before or debt
        assert known is not None
        more = (debt.open_msgs if debt else 0) - (before.open_msgs if before else 0)
        if more:
            self.queue = self.queue.charged(known.account, more)

    def _own_debts(self) -> dict[str, Debt]:
        if not self._debts_are_own:
            self.debts, self._debts_are_own = dict(self.debts), True
        assert isinstance(self.debts, dict)
        return self.debts

    # --- answers and records ------------------------------------------------------------------------------

    def refuse(self, code: str, sentence: str, fix: str) -> None:
        """Refuse for good."""
        self.effects.append(Refuse(Refused(code, sentence, fix, terminal=True)))

    def record(
        self,
        kind: DecisionKind,
        request: LeaseRequest,
        *,
        lease_id: str = "",
        devices: tuple[DeviceRef, ...] = (),
        reasons: tuple[Reason, ...] = (),
        code: str = "",
    ) -> None:
        """Keep a decision."""
        law = self.law
        decision = Decision(
            kind=kind,
            event=self.event,
            unix_s=law.unix(self.now_s),
            request_id=request.id,
            borrower_site=request.borrower_site,
            account=account_of(request),
            lease_id=lease_id,
            devices=tuple(str(one) for one in devices),
            reasons=reasons,
            code=code,
            policy="" if law.policy is None else law.policy.digest,
            ledger="" if law.standing is None else law.standing.ledger_digest,
        )
        self.effects.append(Record(decision))


def expected_of(policy: Policy, request: LeaseRequest, device_class: str) -> int:
    """Return what a request is charged at its admission, on devices of a class."""
    return expected_msgs(
        policy,
        device_class=device_class,
        purpose=request.purpose,
        devices=request.devices,
        duration_s=request.duration_s,
    )
