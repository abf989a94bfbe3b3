"""A donor's leases from offer to end: ``step(state, event)`` returns the next state and what is to be done.

The rules, whatever the policy says:

1. A device has one offer or one lease, and is free again only when its node has nothing of the lease left.
2. An offer lasts ``OFFER_TTL_S`` and is committed once, by the site that asked. Committing it again gives the
   same lease, asking again with the same request the same offer.
3. A lease ends when it was not renewed for the book's time, given back, reclaimed or not started, when its
   runner is gone, or when its node no longer runs it. It ends once; afterwards nothing is done for it but to
   stop what its node still runs.
4. A node's silence ends a lease only after the book's ``node_lost_s``; its device stays taken until the node
   speaks. Before that, the lease's time ends it, or the node's next report.
5. Only the site that holds a lease renews it or gives it back; an open offer is given back in the same way.
6. What a node has taken on and should not have is stopped at each of its reports.
7. After a start of the gateway, leases from disk keep their devices until their nodes have spoken of them.
8. A lease is saved before anything is done or answered for it.

Whatever is over by ``now_s`` ends before the event itself is looked at, so a late tick changes no answer.
Nothing here reads a clock, makes an id or talks to anyone. The guest's grace is kept before ``Reclaimed``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import assert_never

from agent.errors import InternalError
from agent.gateway.book import Book, Lease, LeaseState, Offer, lease_id_of
from agent.gateway.change import Change
from agent.gateway.events import (
    ClockRead,
    DrainSet,
    Effect,
    EgressCounted,
    Event,
    Granted,
    NodeHeard,
    OfferAsked,
    OfferCommitted,
    Offered,
    PolicyChanged,
    Receipted,
    Reclaimed,
    Refuse,
    Released,
    Renewed,
    Restored,
    RunnerEnded,
    StandingChanged,
    Start,
    Started,
    StartFailed,
    Stop,
    Tick,
    Withdrawn,
)
from agent.gateway.fleet import Fleet, dropped, forget, heard, withdraw
from agent.gateway.request import Refused
from agent.gateway.rule import FirstCome, Rule
from agent.limits import MAX_NODES, MAX_OFFERS, MAX_SITE_LEASES, NODE_FORGOTTEN_S, OFFER_TTL_S


@dataclass(frozen=True, slots=True)
class State:
    """All that a donor decides from."""

    book: Book = field(default_factory=Book)
    fleet: Fleet = field(default_factory=Fleet)
    rule: Rule = field(default_factory=FirstCome)


def step(state: State, event: Event) -> tuple[State, tuple[Effect, ...]]:
    """Return the state after an event, and what is to be done, in this order.

    Raises:
        InternalError: an id was used before, or the rule gave away a device that is taken.
    """
    change = Change(state.book, state.fleet, event.now_s)
    _expire(change)
    match event:
        case OfferAsked():
            _ask(change, event, state.rule)
        case OfferCommitted():
            _commit(change, event)
        case Started():
            _started(change, event)
        case StartFailed() | RunnerEnded():
            _failed_or_gone(change, event)
        case Renewed():
            _renew(change, event)
        case Released():
            _release(change, event)
        case NodeHeard():
            _heard(change, event)
        case Reclaimed():
            _reclaim(change, event)
        case Restored():
            _restore(change, event)
        case Tick():
            _end_on_lost_nodes(change)
            _forget_silent_nodes(change)
        case (
            Withdrawn()
            | DrainSet()
            | PolicyChanged()
            | StandingChanged()
            | Receipted()
            | ClockRead()
            | EgressCounted()
        ):
            pass
        case _:
            assert_never(event)
    return replace(state, book=change.book(), fleet=change.fleet), tuple(change.effects)


def next_deadline_s(state: State) -> float | None:
    """Return when ``Tick`` will next end an offer or a lease."""
    offers = (one.expires_at_s for one in state.book.offers.values())
    leases = (one.deadline_s for one in state.book.leases.values())
    return min((*offers, *leases), default=None)


def _expire(change: Change) -> None:
    change.offers = {key: one for key, one in change.offers.items() if change.now_s < one.expires_at_s}
    for lease in [one for one in change.leases.values() if change.now_s >= one.deadline_s]:
        change.end(lease, "its borrower did not renew it in time", left_over=True)


# --- borrowers --------------------------------------------------------------------------------------------


def _ask(change: Change, event: OfferAsked, rule: Rule) -> None:
    request = event.request
    same = next((one for one in change.offers.values() if one.request == request), None)
    if same is not None:
        change.effects.append(Offered(same))
        return
    book = change.book()
    answer = _bound(book, event) or rule.admit(request, book, change.fleet, change.now_s)
    if isinstance(answer, Refused):
        change.effects.append(Refuse(answer))
        return
    if answer.device in book.taken() or event.offer_id in change.offers:
        raise InternalError(f"the device {answer.device} or the offer {event.offer_id} was given before.")
    offer = Offer(event.offer_id, request, (answer.device,), answer.warm, change.now_s + OFFER_TTL_S)
    change.offers[offer.id] = offer
    change.effects.append(Offered(offer))


def _bound(book: Book, event: OfferAsked) -> Refused | None:
    """Return why the book takes no further offer."""
    held = next((one for one in book.leases.values() if one.request == event.request), None)
    if held is not None:
        return Refused(
            "granted-already",
            f"this request has the lease {held.id} here.",
            "use that lease, or ask under a new id",
            terminal=True,
        )
    if len(book.offers) >= MAX_OFFERS or len(book.offers) + len(book.leases) >= MAX_SITE_LEASES:
        return Refused(
            "full",
            f"this site has {len(book.leases)} leases and {len(book.offers)} open offers, and takes no more.",
            "ask again later, or ask another site",
            terminal=False,
        )
    return None


def _commit(change: Change, event: OfferCommitted) -> None:
    known = change.book().lease_of(event.offer_id)
    if known is not None:
        lease = change.held_by(known.id, event.borrower_site)
        if lease is not None:
            change.effects.append(Granted(lease))
        return
    offer = change.offers.get(event.offer_id)
    if offer is None:
        change.refuse(
            "offer-expired",
            f"the offer {event.offer_id} is not open here: offers last {OFFER_TTL_S:g} s, less when the "
            "owner takes the device back.",
            "ask for another offer",
        )
        return
    if offer.request.borrower_site != event.borrower_site:
        change.refuse("not-yours", f"the offer {offer.id} is another site's.", "commit an offer of your own")
        return
    lease_id = lease_id_of(offer)
    if lease_id in change.leases or lease_id in change.ended:
        raise InternalError(f"the lease id {lease_id} was used before.")
    del change.offers[offer.id]
    deadline_s = change.now_s + change.lease_ttl_s
    lease = Lease(lease_id, offer.id, offer.request, offer.devices, LeaseState.COMMITTED, deadline_s)
    change.put(lease)
    change.effects += [Granted(lease), Start(lease)]


def _renew(change: Change, event: Renewed) -> None:
    lease = change.held_by(event.lease_id, event.borrower_site)
    if lease is not None:
        lease = replace(lease, deadline_s=change.now_s + change.lease_ttl_s)
        change.put(lease)
        change.effects.append(Granted(lease))


def _release(change: Change, event: Released) -> None:
    offer = change.offers.get(event.lease_id)
    if offer is not None and offer.request.borrower_site == event.borrower_site:
        del change.offers[offer.id]
        return
    lease = change.held_by(event.lease_id, event.borrower_site)
    if lease is not None:
        change.end(lease, event.reason, left_over=True)


# --- nodes ------------------------------------------------------------------------------------------------


def _started(change: Change, event: Started) -> None:
    lease = change.leases.get(event.lease_id)
    left = change.stopping.get(event.lease_id)
    if lease is not None and lease.state is LeaseState.COMMITTED:
        change.put(replace(lease, state=LeaseState.ACTIVE, watched_from_s=change.now_s))
    elif left is not None:
        change.effects.append(Stop(left.device.node, event.lease_id, "its lease has ended"))


def _failed_or_gone(change: Change, event: StartFailed | RunnerEnded) -> None:
    gone = isinstance(event, RunnerEnded)
    lease = change.leases.get(event.lease_id)
    held = lease or change.stopping.get(event.lease_id)
    if held is not None and gone:
        change.stopping.pop(event.lease_id, None)
        change.fleet = dropped(change.fleet, held.device.node, event.lease_id)
    if lease is not None:
        # A start that nobody answers may still go on over there.
        change.end(lease, event.reason, left_over=not gone)


def _heard(change: Change, event: NodeHeard) -> None:
    report = event.report
    if report.node not in change.fleet.nodes and len(change.fleet.nodes) >= MAX_NODES:
        change.refuse("full", f"this site has {MAX_NODES} nodes already.", "let nodes leave that are gone")
        return
    change.fleet = heard(change.fleet, report, change.now_s)
    for lease in [one for one in change.leases.values() if one.device.node == report.node]:
        if lease.id in report.leases:
            if lease.state is LeaseState.RESTORED:
                change.put(replace(lease, state=LeaseState.ACTIVE))
        elif lease.watched_from_s is not None and change.surely_later(lease.watched_from_s):
            change.end(lease, "its node no longer runs it", left_over=False)
    change.stopping = {
        lease_id: one
        for lease_id, one in change.stopping.items()
        if one.device.node != report.node or lease_id in report.leases or not change.surely_later(one.since_s)
    }
    for lease_id in change.book().strays(report):
        change.effects.append(Stop(report.node, lease_id, "its site has no such lease on this node"))


def _reclaim(change: Change, event: Reclaimed) -> None:
    def meant(one: Offer | Lease) -> bool:
        return one.device.node == event.node and event.device in (None, one.device.device)

    change.fleet = withdraw(change.fleet, event.node, event.device)
    change.offers = {key: one for key, one in change.offers.items() if not meant(one)}
    for lease in [one for one in change.leases.values() if meant(one)]:
        change.end(lease, event.reason, left_over=True)


def _restore(change: Change, event: Restored) -> None:
    for lease in event.leases:
        if change.now_s >= lease.deadline_s:
            change.end(lease, "its borrower did not renew it in time", left_over=True)
        elif lease.device in {one.device for one in change.leases.values()}:
            change.end(lease, "another lease has its device", left_over=True)
        else:
            change.leases[lease.id] = replace(lease, state=LeaseState.RESTORED, watched_from_s=change.now_s)


def _end_on_lost_nodes(change: Change) -> None:
    for lease in list(change.leases.values()):
        node = lease.device.node
        known = change.fleet.nodes.get(node)
        since_s = known.heard_at_s if known is not None else lease.watched_from_s
        if since_s is not None and change.now_s - since_s > change.node_lost_s:
            reason = f"its node {node} has not been heard of for {change.node_lost_s:g} s"
            change.end(lease, reason, left_over=True)


def _forget_silent_nodes(change: Change) -> None:
    for name, one in change.fleet.nodes.items():
        if change.now_s - one.heard_at_s > NODE_FORGOTTEN_S:
            change.fleet = forget(change.fleet, name)
            change.stopping = {
                lease_id: left for lease_id, left in change.stopping.items() if left.device.node != name
            }
