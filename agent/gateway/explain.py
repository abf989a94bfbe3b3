"""Why a request waits, proven: each reason is taken away in a copy, and the same rules asked again.

Rules: nothing here changes what is; a trial runs the code that decides. What becomes of a request is one of
``offered`` (it is served now), ``next`` (the next device that would do is its), ``waits`` and ``refused``. A
reason *decides* if taking it away makes the outcome better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from agent.gateway.admission import fits, refuses
from agent.gateway.change import Change
from agent.gateway.eta import eta_of
from agent.gateway.events import Tick
from agent.gateway.fleet import Device, NodeReport, heard
from agent.gateway.places import place_of
from agent.gateway.queue import Queue, Wish
from agent.gateway.request import Place, RequestKey
from agent.gateway.serving import serve
from agent.gateway.state import State
from agent.gateway.supply import Supply
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
"""The name of the node that stands for one device more; no node's name has this form."""
_MORE_DEVICES: Final = 16
"""So many devices more are tried, one after the other; reserves and headroom may take some of them."""
_NO_CAP: Final = 10**6


@dataclass(frozen=True, slots=True)
class Explained:
    """One reason why a request waits, and what becomes of the request without it."""

    reason: Reason
    outcome: Outcome
    decides: bool


def place_now(state: State, key: RequestKey, now_s: float) -> Place | None:
    """Return a waiting request's place with its reasons and an estimate; ``None``: it does not wait."""
    waiting = state.queue.get(key)
    if waiting is None:
        return None
    change = Change(state, Tick(now_s))
    supply = Supply(change)
    place = place_of(change, waiting, supply)
    return replace(place, eta_s=eta_of(change, supply, waiting, place.ahead))


def explain(state: State, key: RequestKey, now_s: float) -> tuple[Explained, ...]:
    """Return why a request waits, the deciding reason first, each with what would be without it."""
    place = place_now(state, key, now_s)
    if place is None:
        return ()
    as_it_is = OUTCOMES.index(outcome_of(state, key, now_s))
    found = []
    for reason in place.reasons:
        without = outcome_of(without_reason(state, key, reason, now_s), key, now_s)
        found.append(Explained(reason, without, OUTCOMES.index(without) > as_it_is))
    return tuple(found)


def outcome_of(state: State, key: RequestKey, now_s: float) -> Outcome:
    """Return what the rules make of a waiting request at this moment."""
    waiting = state.queue.get(key)
    if waiting is None:
        return "refused"
    if refuses(waiting.wish.request, state.law, state.fleet, now_s) is not None:
        return "refused"
    if key in _served(state, now_s):
        return "offered"
    for more in range(waiting.devices, waiting.devices + _MORE_DEVICES):
        served = _served(with_devices(state, waiting, more, now_s), now_s)
        if served:
            return "next" if key in served else "waits"
    return "waits"


def without_reason(state: State, key: RequestKey, reason: Reason, now_s: float) -> State:
    """Return a copy of the state in which a reason for a request's waiting does not hold."""
    waiting = state.queue.get(key)
    assert waiting is not None, "only who waits has reasons"
    match reason:
        case DonorPaused():
            return _unpaused(state)
        case EgressExhausted():
            return replace(state, law=replace(state.law, egress=None))
        case OverShareCap():
            return _uncapped(state)
        case Reserved():
            return _instant(state, waiting, now_s)
        case LowerThan():
            return _first(state, waiting)
        case WaitingForReclaim() | WaitingForCapacity():
            return _roomy(_first(state, waiting), waiting, now_s)
        case LedgerStale():
            return _fresh(state)
        case _:
            return state  # refusals; whoever waits has none of these


def with_devices(state: State, waiting: Waiting[Wish], more: int, now_s: float) -> State:
    """Return the state with more devices that would do for a request: of its node, or of one of their own."""
    request = waiting.wish.request
    known = None if request.node is None else state.fleet.nodes.get(request.node)
    size = -(-request.total_bytes // request.devices)
    lent = [one for heard in state.fleet.nodes.values() for one in heard.lent if fits(request, one.device)]
    device_class = lent[0].device.device_class if lent else "gpu"
    devices = tuple(Device(f"{_MORE}{at}", "gpu", size, device_class) for at in range(more))
    if known is None:
        report = NodeReport(_MORE, "", devices, (), (), 0, True, 0.0)
    else:
        report = replace(known.report, devices=(*known.report.devices, *devices), donating=True)
    return replace(state, fleet=heard(state.fleet, report, now_s))


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
    return replace(state, law=replace(state.law, policy=policy, drains={}, egress=None))


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


def _instant(state: State, waiting: Waiting[Wish], now_s: float) -> State:
    request = replace(waiting.wish.request, instant=True)
    wish = replace(waiting.wish, request=request)
    queue = state.queue.entered(replace(waiting, wish=wish), state.queue.offer_id(waiting.key), now_s)
    return replace(state, queue=queue)


def _first(state: State, waiting: Waiting[Wish]) -> State:
    """Return the state with nobody else in line."""
    queue = Queue(seen=state.queue.seen).ruled(state.law.standing, state.charges)
    return replace(state, queue=queue.entered(waiting, state.queue.offer_id(waiting.key), 0.0), hold=None)


def _roomy(state: State, waiting: Waiting[Wish], now_s: float) -> State:
    """Return the state with as many devices more as let the request be served."""
    roomier = state
    for more in range(waiting.devices, waiting.devices + _MORE_DEVICES):
        roomier = with_devices(state, waiting, more, now_s)
        if waiting.key in _served(roomier, now_s):
            break
    return roomier
