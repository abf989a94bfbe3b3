"""``decision``: what it takes to decide who is next with 10,000 requests of 1,000 accounts in the queue.

It drives the gateway's own ``step``. ``decision_ms`` is from nothing: another epoch has begun, nothing of the
order before it holds. ``decision_event_ms`` is after one event: a request is asked, one is withdrawn, a lease
ends and its device is offered to the next, or one lease after the other does; the value is the median of the
slowest kind. The references are the limits. ``order_ms`` and ``order_event_ms`` are the same for the order
alone, from nothing down to the last of the line, and for its head after a request, a departure and a charge.

Each is measured with accounts that are all institutions, and with a tree of three levels; the value is that
of the slower one. A class of accounts has a reserve, so that its order is kept up as well. Times are of the
processor: nothing here waits for anything.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from random import Random

from agent.gateway.core.events import (
    ClockRead,
    Event,
    NodeHeard,
    OfferAsked,
    OfferCommitted,
    Offered,
    PolicyChanged,
    RunnerEnded,
    StandingChanged,
    Withdrawn,
)
from agent.gateway.core.fleet import Device, NodeReport
from agent.gateway.core.leases import State, step
from agent.gateway.core.request import LeaseRequest
from benchmarks.report import Figure, spread
from federation.fairshare.accounts import ancestors
from federation.fairshare.line import Line, Waiting
from federation.fairshare.order import Order
from federation.fairshare.standing import Standing, standing_of
from federation.fairshare.usage import Usage
from federation.policy.policy import ANY, AccountRule, ClassRule, Policy, PurposeRule

EPOCH = 3_000_000
NOW_S = EPOCH * 600
LIMIT_MS = 10.0
EVENT_LIMIT_MS = 0.2
EVENTS = ("step: asked", "step: withdrawn", "step: lease ended", "step: leases ended in turn")
DEVICES = 64


@dataclass(frozen=True, slots=True)
class Setting:
    """A policy, where its accounts stand, and who waits."""

    policy: Policy
    standing: Standing
    requests: tuple[LeaseRequest, ...]


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks decision")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args(arguments)
    shapes = {"flat": _flat(options.accounts), "three_levels": _three_levels(options.accounts)}
    settings = {name: _setting(paths, options.requests) for name, paths in shapes.items()}
    whole: dict[str, dict[str, list[float]]] = {}
    for name, setting in settings.items():
        whole[name] = _order(setting, options.runs) | _step(setting, options.runs)
    size = {"requests": options.requests, "accounts": options.accounts}
    for figure, kinds, limit in (
        ("decision_ms", ("step: another epoch",), LIMIT_MS),
        ("decision_event_ms", EVENTS, EVENT_LIMIT_MS),
        ("order_ms", ("order: to the last",), LIMIT_MS),
        ("order_event_ms", ("order: added", "order: removed", "order: charged"), EVENT_LIMIT_MS),
    ):
        timed = {f"{name} {kind}": whole[name][kind] for name in settings for kind in kinds}
        value = max(statistics.median(one) for one in timed.values())
        detail = size | {kind: spread(one) for kind, one in timed.items()}
        Figure(figure, value, "ms", limit, "the limit", value / limit, detail).emit()


def _flat(count: int) -> tuple[str, ...]:
    return tuple(f"/uni-{at}" for at in range(count))


def _three_levels(count: int) -> tuple[str, ...]:
    return tuple(f"/uni-{at % 20}/group-{at // 20 % 10}/project-{at // 200}" for at in range(count))


def _setting(accounts: tuple[str, ...], requests: int) -> Setting:
    chance = Random(1)
    paths = sorted({path for account in accounts for path in ancestors(account)})
    rules = {
        path: AccountRule(
            path, chance.randint(1, 100), ("student",) if chance.random() < 0.2 else (), ("uni-b",), {}, False
        )
        for path in paths
    }
    policy = Policy(
        name="lab",
        version=1,
        effective_at_s=0,
        digest="0" * 64,
        accounts=rules,
        classes={"student": ClassRule("student", 100, ())},
        purposes={"research": PurposeRule("research", 1000, (ANY,))},
        device_classes={"cpu": 1000},
    )
    usage = Usage().add_all(
        (account, EPOCH - chance.randint(0, 5000), chance.randint(1, 10**9))
        for account in accounts
        for _ in range(20)
    )
    asked = tuple(
        _request(f"r{at}", accounts[at % len(accounts)], NOW_S - chance.randint(0, 3600))
        for at in range(requests)
    )
    return Setting(policy, standing_of(policy, EPOCH, usage=usage, donated={"cpu": 10_000}), asked)


def _request(name: str, account: str, asked_at_s: int = NOW_S) -> LeaseRequest:
    return LeaseRequest(
        id=name,
        borrower_site="uni-b",
        borrower_node="n1",
        model="m",
        image_id="0" * 64,
        total_bytes=1,
        account=account,
        purpose="research",
        duration_s=3600,
        asked_at_s=asked_at_s,
    )


def _order(setting: Setting, runs: int) -> dict[str, list[float]]:
    line = Line.of(
        Waiting(one.id, one.account, one.borrower_site, one.asked_at_s, 1, one) for one in setting.requests
    )
    order = Order.of(line, setting.standing)
    account = setting.requests[len(setting.requests) // 2].account
    new = Waiting("new", account, "uni-b", NOW_S, 1, setting.requests[0])
    lacking: Mapping[str, int] = {"student": 3}

    def head(after: Callable[[], Order[LeaseRequest]]) -> None:
        list(islice(after().walk(lacking), 4))

    return {
        "order: to the last": _timed(lambda: sum(1 for _ in Order.of(line, setting.standing).walk()), runs),
        "order: added": _timed(lambda: head(lambda: order.added(new)), runs),
        "order: removed": _timed(lambda: head(lambda: order.removed("uni-b", "r77")), runs),
        "order: charged": _timed(lambda: head(lambda: order.charged(account, 10**6)), runs),
    }


def _step(setting: Setting, runs: int) -> dict[str, list[float]]:
    """Time the gateway's own steps on a site whose devices are all in use, and whose queue is long."""
    state, now_s = _full_site(setting)
    standings = [replace(setting.standing, epoch=EPOCH + 1 + at) for at in range(runs + 1)]
    epochs = iter([StandingChanged(one, now_s) for one in standings])
    leases = tuple(state.book.leases)
    account = setting.requests[len(setting.requests) // 2].account
    asked = OfferAsked(_request("new", account), "offer-new", now_s)
    gone = Withdrawn(setting.requests[-1].id, "uni-b", now_s)
    ended = [RunnerEnded(one, "it is done", now_s) for one in leases[: runs + 1]]
    return {
        "step: another epoch": _timed(lambda: step(state, next(epochs)), runs),
        "step: asked": _timed(partial(step, state, asked), runs),
        "step: withdrawn": _timed(partial(step, state, gone), runs),
        "step: lease ended": _timed(partial(step, state, ended[0]), runs),
        "step: leases ended in turn": _in_turn(state, ended),
    }


def _full_site(setting: Setting) -> tuple[State, float]:
    now_s = 1000.0
    state, _ = step(State(), ClockRead(NOW_S, 0, now_s))
    state, _ = step(state, PolicyChanged(setting.policy, now_s))
    state, _ = step(state, StandingChanged(setting.standing, now_s))
    for at in range(DEVICES // 8):
        devices = tuple(Device(f"cpu{one}", "cpu", 1 << 40) for one in range(8))
        report = NodeReport(f"n{at}", f"10.0.0.{at}:1", devices, (), (), 1, True, 0.0)
        state, _ = step(state, NodeHeard(report, now_s))
    for at, request in enumerate(setting.requests):
        state, effects = step(state, OfferAsked(request, f"offer-{at}", now_s))
        for one in effects:
            if isinstance(one, Offered):
                state, _ = step(state, OfferCommitted(one.offer.id, "uni-b", now_s))
    return state, now_s + 1.0


def _in_turn(state: State, events: Sequence[Event]) -> list[float]:
    """Time each event but the first on the state that the one before it left."""
    times = []
    gc.collect()
    gc.disable()
    for event in events:
        started_s = time.process_time()
        state, _ = step(state, event)
        times.append((time.process_time() - started_s) * 1e3)
    gc.enable()
    return times[1:]


def _timed(what: Callable[[], object], runs: int) -> list[float]:
    what()
    times = []
    gc.collect()
    gc.disable()  # as timeit has it: what others left behind is not this one's
    for _ in range(runs):
        started_s = time.process_time()
        what()
        times.append((time.process_time() - started_s) * 1e3)
    gc.enable()
    return times
