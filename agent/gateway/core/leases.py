"""A donor's leases from request to end: ``step(state, event)`` returns the next state and what is to be done.

The rules, whatever the policy says:

1. A device has one offer or one lease, and is free again only when its node has nothing of the lease left. At
   most one offer or lease waits for it meanwhile, to which its guest makes room.
2. An offer lasts ``OFFER_TTL_S`` and is committed once, by the site that asked. Committing it again gives the
   same lease, asking again with the same request the same offer.
3. A request that could be served, and is not now, has a place in the queue: "full now" is no refusal. It
   gives the place up by not asking again for ``PLACE_TTL_S``.
4. A lease ends when it was not renewed for the book's time, given back, reclaimed or not started, when its
   longest time or its notice is over, its runner is gone, or its node no longer runs it. It ends once;
   afterwards nothing is done for it but to stop what its node still runs.
5. A node's silence ends a lease only after the book's ``node_lost_s``; its device stays taken until the node
   speaks. Before that, the lease's time ends it, or the node's next report.
6. Only the site that holds a lease renews it or gives it back; an open offer is given back in the same way.
7. What a node has taken on and should not have is stopped at each of its reports.
8. After a start of the gateway, leases from disk keep their devices until their nodes have spoken of them.
9. A lease is saved before anything is done or answered for it.
10. No guest hears of another's need before that one has committed itself.

Whatever is over by ``now_s`` ends before the event itself is looked at, so a late tick changes no answer.
Nothing here reads a clock, makes an id or talks to anyone.
"""

from __future__ import annotations

import math
from typing import Final, assert_never

from agent.errors import InternalError
from agent.gateway.core.asked import ask, withdraw_request
from agent.gateway.core.book import Cause, Lease, LeaseState, due_s, lease_id_of, offers_due_s, over_s
from agent.gateway.core.change import Change
from agent.gateway.core.events import (
    ClockRead,
    Effect,
    EgressCounted,
    Event,
    Granted,
    NodeHeard,
    OfferAsked,
    OfferCommitted,
    PolicyChanged,
    Receipted,
    Reclaimed,
    Released,
    Renewed,
    Restored,
    RunnerEnded,
    StandingChanged,
    Start,
    Started,
    StartFailed,
    Tick,
    Withdrawn,
)
from agent.gateway.core.nodes import end_on_lost, failed_or_gone, forget_silent, hear, restore, started
from agent.gateway.core.receipts import decides_nothing, receipted
from agent.gateway.core.reclaim import end_noticed, take_back
from agent.gateway.core.ruling import count_egress, read_clock, rule_by, stand
from agent.gateway.core.serving import serve
from agent.gateway.core.state import State
from agent.gateway.core.values import altered
from agent.limits import OFFER_TTL_S

__all__ = ["State", "long_step", "next_deadline_s", "step"]

_LASTED: Final = "it has lasted as long as its terms allow"


def step(state: State, event: Event) -> tuple[State, tuple[Effect, ...]]:
    """Return the state after an event, and what is to be done, in this order.

    Raises:
        InternalError: an id was used before.
    """
    if type(event) is Receipted and decides_nothing(state, event):
        return receipted(state, event), ()
    return long_step(state, event)


def long_step(state: State, event: Event) -> tuple[State, tuple[Effect, ...]]:
    """Return the same, without short cuts."""
    change = Change(state, event)
    if change.now_s >= min(change.due_s, offers_due_s(change.offers)):
        _expire(change)
        if len(change.queue):
            change.look = True
    _left_places(change)
    match event:
        case OfferAsked():
            ask(change, event)
        case OfferCommitted():
            _commit(change, event)
        case Withdrawn():
            withdraw_request(change, event)
        case Started():
            started(change, event)
        case StartFailed() | RunnerEnded():
            failed_or_gone(change, event)
        case Renewed():
            _renew(change, event)
        case Released():
            _release(change, event)
        case NodeHeard():
            hear(change, event)
        case Reclaimed():
            take_back(change, event)
        case PolicyChanged():
            rule_by(change, event)
        case StandingChanged():
            stand(change, event)
        case Receipted():
            change.receipted(event.lease_id, event.charge_msgs)
        case ClockRead():
            read_clock(change, event)
        case EgressCounted():
            count_egress(change, event)
        case Restored():
            restore(change, event)
        case Tick():
            end_on_lost(change)
            forget_silent(change)
        case _:
            assert_never(event)
    if change.due_gone:
        _expire(change)
    if change.look:
        serve(change)
    return change.state(), tuple(change.effects)


def next_deadline_s(state: State) -> float | None:
    """Return a moment before which ``Tick`` ends nothing and looks at nothing; ``None``: nothing is due."""
    first = state.queue.due.first
    places_s = math.inf if first is None else first[0]
    soonest_s = min(state.due_s, offers_due_s(state.book.offers), places_s)
    return soonest_s if math.isfinite(soonest_s) else None


def _expire(change: Change) -> None:
    """End what is over, and find out when something will be over next."""
    change.due_s, change.due_gone = math.inf, False
    for offer in list(change.offers.values()):
        if change.now_s >= offer.expires_at_s:
            change.drop(offer)
    for lease_id in list(change.leases):
        lease = change.leases.get(lease_id)
        if lease is None:
            continue  # it ended with another one
        if lease.notice_cause is not None and end_noticed(change, lease):
            continue
        if change.now_s < lease.deadline_s:
            if change.now_s < due_s(lease):
                change.due(due_s(lease))
            else:
                change.notice(lease, over_s(lease), Cause.DURATION, _LASTED)
        elif change.now_s >= over_s(lease):
            change.end(lease, Cause.DURATION, _LASTED, left_over=True)
        else:
            change.end(lease, Cause.EXPIRED, "its borrower did not renew it in time", left_over=True)
    if len(change.queue):
        for moment_s in (change.compare_s, 0.0 if change.hold is None else change.hold.hold.over_s):
            if moment_s > change.now_s:
                change.due(moment_s)


def _left_places(change: Change) -> None:
    """Forget those in line that have not asked again."""
    change.queue, gone = change.queue.overdue(change.now_s)
    if gone:
        change.look = True


def _commit(change: Change, event: OfferCommitted) -> None:
    offer = change.offers.get(event.offer_id)
    if offer is None:
        _committed_before(change, event)
        return
    if offer.request.borrower_site != event.borrower_site:
        change.refuse("not-yours", f"the offer {offer.id} is another site's.", "commit an offer of your own")
        return
    lease_id = lease_id_of(offer)
    if lease_id in change.leases or lease_id in change.ended:
        raise InternalError(f"the lease id {lease_id} was used before.")
    debt = change.debts.get(offer.id)
    lease = Lease(
        id=lease_id,
        offer_id=offer.id,
        request=offer.request,
        devices=offer.devices,
        state=LeaseState.COMMITTED,
        deadline_s=change.now_s + min(change.lease_ttl_s, offer.terms.max_duration_s),
        terms=offer.terms,
        granted_at_s=change.now_s,
        charge_msgs=None if debt is None else debt.expected_msgs,
    )
    if not change.commit(offer, lease):
        lease = altered(lease, state=LeaseState.WAITING)
    change.put(lease)
    change.effects.append(Granted(lease))
    change.record("grant", lease.request, lease_id=lease.id, devices=lease.devices, code=offer.id)
    if lease.state is LeaseState.COMMITTED:
        change.effects.append(Start(lease))
    for victim in [change.leases[one] for one in offer.victims if one in change.leases]:
        change.make_room(victim, lease)


def _committed_before(change: Change, event: OfferCommitted) -> None:
    known = change.book().lease_of(event.offer_id)
    if known is None:
        change.refuse(
            "offer-expired",
            f"the offer {event.offer_id} is not open here: offers last {OFFER_TTL_S:g} s, less when the "
            "owner takes the device back.",
            "ask for another offer",
        )
        return
    lease = change.held_by(known.id, event.borrower_site)
    if lease is not None:
        change.effects.append(Granted(lease))


def _renew(change: Change, event: Renewed) -> None:
    lease = change.held_by(event.lease_id, event.borrower_site)
    if lease is None:
        return
    until_s = change.now_s + change.lease_ttl_s
    if lease.state is not LeaseState.WAITING:
        until_s = min(until_s, over_s(lease))
    lease = altered(lease, deadline_s=until_s)
    change.put(lease)
    change.effects.append(Granted(lease))


def _release(change: Change, event: Released) -> None:
    offer = change.offers.get(event.lease_id)
    if offer is not None and offer.request.borrower_site == event.borrower_site:
        change.drop(offer)
        return
    lease = change.held_by(event.lease_id, event.borrower_site)
    if lease is not None:
        change.end(lease, Cause.RELEASED, event.reason, left_over=True)
