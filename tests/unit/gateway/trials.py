"""A place's reasons put to the test: taken away in copies of the state, and the same rules asked again.

Rules: nothing here changes what is; a trial runs the code that decides. What becomes of a request is one of
``offered`` (it is served now), ``next`` (the next devices that would do are its), ``waits`` and ``refused``.
A reason *decides* if the request is not served with all its other reasons gone, and is with this one gone
too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, Literal

from agent.gateway.core.admission import fits, paused, refuses
from agent.gateway.core.book import Book
from agent.gateway.core.change import Change
from agent.gateway.core.events import Tick
from agent.gateway.core.fleet import NodeReport, heard
from agent.gateway.core.places import place_now
from agent.gateway.core.queue import Wish
from agent.gateway.core.request import RequestKey
from agent.gateway.core.serving import serve
from agent.gateway.core.state import State
from agent.gateway.core.supply import Supply
from federation.fairshare.line import Waiting
from federation.fairshare.reasons import (
    DonorPaused,
    EgressExhausted,
    LedgerStale,
    LowerThan,
    OverShareCap,
    Reason,
    Reserved,
    WaitingForCapacity,
    WaitingForReclaim,
)
from federation.fairshare.standing import Standing

Outcome = Literal["refused", "waits", "next", "offered"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("refused", "waits", "next", "offered")
"""From the worst to the best."""
_MORE: Final = "+"
"""The name of the node of further devices, and the first letter of theirs; no name begins like this."""
_MORE_DEVICES: Final = 24
"""So many further devices are tried, one after the other; reserves and headroom may take some of them."""
_NO_CAP: Final = 10**6


@dataclass(frozen=True, slots=True)
class Explained:
    """One reason why a request waits.

    Args:
        reason: with its sentence, and what would change it.
        alone: what becomes of the request if only this one is gone.
        decides: whether it stands in the way whatever the others do.
    """

    reason: Reason
    alone: Outcome
    decides: bool


def explain(state: State, key: RequestKey, now_s: float) -> tuple[Explained, ...]:
    """Return why a request waits, what decides first, each with what would be without it.

    A place's reasons are judged at a glance; here each has been tried.
    """
    place = place_now(state, key, now_s)
    if place is None:
        return ()
    free = key in _served(without(state, key, place.reasons, now_s, room_for_all=True), now_s)
    found = []
    for reason in place.reasons:
        others = tuple(one for one in place.reasons if one is not reason)
        kept = key in _served(without(state, key, others, now_s), now_s)
        alone = outcome_of(without(state, key, (reason,), now_s), key, now_s)
        found.append(Explained(reason, alone, free and not kept))
    return tuple(sorted(found, key=lambda one: not one.decides))


def outcome_of(state: State, key: RequestKey, now_s: float) -> Outcome:
    """Return what the rules make of a waiting request at this moment."""
    waiting = state.queue.get(key)
    if waiting is None:
        return "refused"
    if refuses(waiting.wish.request, state.law, state.fleet, now_s) is not None:
        return "refused"
    if key in _served(state, now_s):
        return "offered"
    for more in roomier(state, waiting, now_s):
        served = _served(more, now_s)
        if served:
            return "next" if key in served else "waits"
    return "waits"


def without(
    state: State, key: RequestKey, reasons: Iterable[Reason], now_s: float, *, room_for_all: bool = False
) -> State:
    """Return a copy of the state in which some reasons for a request's waiting do not hold.

    Args:
        state: as it is.
        key: whose request.
        reasons: of those that it was told.
        now_s: the moment.
        room_for_all: want of devices is answered with enough of them for it, not for the first in line alone.
    """
    waiting = state.queue.get(key)
    assert waiting is not None, "only who waits has reasons"
    roomy = False
    for reason in reasons:
        match reason:
            case DonorPaused():
                state = _unpaused(state)
            case EgressExhausted():
                state = replace(state, law=replace(state.law, egress=None))
            case OverShareCap():
                state = _uncapped(state)
            case Reserved():
                state = _instant(state, key, now_s)
            case LowerThan():
                state = _first(state, key, now_s)
            case WaitingForReclaim() | WaitingForCapacity():
                roomy = True
            case LedgerStale():
                state = _fresh(state)
            case _:
                pass  # refusals; whoever waits has none of these
    return _roomy(state, key, now_s, for_all=room_for_all) if roomy else state


def roomier(state: State, waiting: Waiting[Wish], now_s: float) -> Iterator[State]:
    """Yield the state with ever more devices that would do for a request.

    First leases and offers end, one after the other, those first that stand on nobody's reserve; then owners
    give back what they have; in the end there are further devices.
    """
    request = waiting.wish.request
    supply = Supply(Change(state, Tick(now_s)))
    holders: list[tuple[int, str, int, str]] = []
    for shelf in supply.shelves_for(request):
        useful = [one.ref for one in shelf.lent if fits(request, one.device)]
        missing = max(0, waiting.devices - sum(fits(request, one.device) for one in shelf.free))
        if len(useful) >= waiting.devices:
            ids = {state.book.index.taken[one] for one in useful if one in state.book.index.taken}
            holders += [(missing, shelf.node, _reserved(supply, state, one), one) for one in ids]
    for _, _, _, one in sorted(holders):
        state = replace(state, book=_without_holder(state.book, one))
        yield state
    for name, known in state.fleet.nodes.items():
        if request.node in (None, name):
            devices = tuple(replace(one, state="lent") for one in known.report.devices)
            report = replace(known.report, devices=devices, donating=True)
            state = replace(state, fleet=heard(state.fleet, report, now_s))
            yield state
    lent = [one.device for known in state.fleet.nodes.values() for one in known.lent]
    like = next((one for one in lent if fits(request, one)), None)
    if like is None or paused(state.law, now_s) is not None:
        return  # a further node would lend nothing either
    for more in range(waiting.devices, waiting.devices + _MORE_DEVICES):
        devices = tuple(replace(like, id=f"{_MORE}{at}") for at in range(more))
        report = NodeReport(_MORE, "", devices, (), (), 0, True, 0.0)
        if request.node is not None:
            own = state.fleet.nodes[request.node].report
            rest = tuple(one for one in own.devices if not one.id.startswith(_MORE))
            report = replace(own, devices=(*rest, *devices), donating=True)
        yield replace(state, fleet=heard(state.fleet, report, now_s))


def _reserved(supply: Supply, state: State, holder: str) -> int:
    """Return 0 for who stands on nobody's reserve, 1 for an instant lease, 2 for a class's own."""
    held = state.book.leases.get(holder) or state.book.offers.get(holder)
    if held is None:
        return 0
    return 2 if supply.drawing_on(held.request) is not None else int(held.terms.instant)


def _without_holder(book: Book, holder: str) -> Book:
    return Book(
        book.lease_ttl_s,
        {key: one for key, one in book.offers.items() if key != holder},
        {key: one for key, one in book.leases.items() if key != holder},
        {key: one for key, one in book.stopping.items() if key != holder},
        book.ended,
    )


def _served(state: State, now_s: float) -> set[RequestKey]:
    """Return whose requests the rules would serve at this moment."""
    change = Change(state, Tick(now_s))
    serve(change)
    return {one.request.key for one in change.offers.values() if one.id not in state.book.offers}


def _unpaused(state: State) -> State:
    policy = state.law.policy
    if policy is not None:
        deny = tuple(one for one in policy.deny if not one.match.hours)
        policy = replace(policy, lend=replace(policy.lend, hours=()), deny=deny)
    return replace(state, law=replace(state.law, policy=policy, egress=None))


def _uncapped(state: State) -> State:
    standing = state.law.standing
    if standing is None:
        return state
    caps = replace(standing.policy.caps, over_share_permille=_NO_CAP)
    return _ranked(state, replace(standing, policy=replace(standing.policy, caps=caps)))


def _fresh(state: State) -> State:
    standing = state.law.standing
    return state if standing is None else _ranked(state, replace(standing, split=None, oldest_head_age_s=0))


def _ranked(state: State, standing: Standing) -> State:
    queue = state.queue.ruled(standing, state.charges)
    return replace(state, law=replace(state.law, standing=standing), queue=queue)


def _instant(state: State, key: RequestKey, now_s: float) -> State:
    waiting = state.queue.get(key)
    assert waiting is not None
    wish = replace(waiting.wish, request=replace(waiting.wish.request, instant=True))
    queue = state.queue.entered(replace(waiting, wish=wish), state.queue.offer_id(key), now_s)
    return replace(state, queue=queue)


def _first(state: State, key: RequestKey, now_s: float) -> State:
    """Return the state without those who go first."""
    queue = state.queue
    for one in state.queue.walk(Supply(Change(state, Tick(now_s))).deficits):
        if one.key == key:
            break
        queue = queue.left(one.key)
    return replace(state, queue=queue, hold=None)


def _roomy(state: State, key: RequestKey, now_s: float, *, for_all: bool) -> State:
    """Return the state with as much more room as lets somebody be served, or the request."""
    waiting = state.queue.get(key)
    assert waiting is not None
    for more in chain((state,), roomier(state, waiting, now_s)):
        served = _served(more, now_s)
        if key in served or (served and not for_all):
            return more
    return state
