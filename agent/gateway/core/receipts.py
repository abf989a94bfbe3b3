"""A receipt that comes while nothing is due: most events of a donor that lends much.

It ends nothing and serves nobody; only what is owed changes, and with it the order. What the step makes of
such an event the long way is the same, to the last field.
"""

from __future__ import annotations

from agent.gateway.core.book import offers_due_s
from agent.gateway.core.events import Receipted
from agent.gateway.core.state import Debt, State


def decides_nothing(state: State, event: Receipted) -> bool:
    """Whether nothing is over, and nobody's place is given up, by the time of a receipt."""
    first = state.queue.due.first
    soonest_s = min(state.due_s, offers_due_s(state.book.offers))
    return event.now_s < soonest_s and (first is None or event.now_s < first[0])


def receipted(state: State, event: Receipted) -> State:
    """Return the state after such a receipt."""
    before = state.debts.get(event.lease_id)
    if before is None:
        return state
    debts = dict(state.debts)
    left_msgs = 0
    if event.lease_id in state.book.leases:
        after = debts[event.lease_id] = Debt(before.account, before.expected_msgs, event.charge_msgs)
        left_msgs = after.open_msgs
    else:
        del debts[event.lease_id]
    more_msgs = left_msgs - before.open_msgs
    return State(
        state.book,
        state.fleet,
        state.queue.charged(before.account, more_msgs) if more_msgs else state.queue,
        state.law,
        debts,
        state.hold,
        state.durations,
        state.due_s,
        state.compare_s,
    )
