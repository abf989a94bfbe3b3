"""Guests against guests in a donor's own rules: no circles, few victims, after their time (I6, I7, I8, I11).

Borrowers that never give up contend for too few devices while the books stand still. Whoever is preempted
asks again at once. Each run is made of a seed; the planted bugs show that some run would have found them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from agent.gateway.core import preempting
from agent.gateway.core.book import Book, Cause, Lease, LeaseState
from agent.gateway.core.change import Change
from agent.gateway.core.events import (
    Effect,
    Event,
    NodeHeard,
    Notice,
    OfferAsked,
    OfferCommitted,
    Offered,
    PolicyChanged,
    Receipted,
    RunnerEnded,
    StandingChanged,
    Start,
    Started,
    Stop,
    Tick,
)
from agent.gateway.core.fleet import Device, DeviceRef, NodeReport
from agent.gateway.core.law import Law
from agent.gateway.core.leases import State, step
from agent.gateway.core.request import LeaseRequest
from agent.limits import COMPARE_GUESTS_S
from federation.fairshare.charging import Charges
from federation.fairshare.preemption import Running, below_after_move
from federation.fairshare.rank import Ranks
from federation.fairshare.standing import Standing, standing_of
from federation.fairshare.usage import Usage
from federation.fairshare.victims import Candidate, Victims
from federation.policy.policy import AccountRule, Caps, Lend, Policy, PurposeRule

TREES = {
    "flat": ("/uni-b", "/uni-c", "/uni-d", "/uni-e"),
    "hierarchical": ("/uni-b/x", "/uni-b/y/p", "/uni-b/y/q", "/uni-c/x", "/uni-c/y", "/uni-d"),
}
EPOCH = 3_000_000
GRACE_S, MIN_RUNTIME_S = 10, 100
ROUND_S = COMPARE_GUESTS_S + 1.0
SINGLE, MIXED = {"n1": 2, "n2": 1}, {"n1": 3, "n2": 2}


def _policy(chance: Random, accounts: tuple[str, ...]) -> Policy:
    paths = sorted({path[:at] for path in (f"{one}/" for one in accounts) for at in _ends(path)})
    return Policy(
        name="c",
        version=1,
        effective_at_s=0,
        digest="d" * 64,
        accounts={
            one: AccountRule(one, chance.randint(1, 4), (), (one.split("/")[1],), {}, open=True)
            for one in paths
        },
        classes={},
        purposes={"teaching": PurposeRule("teaching", 1000, ("*",))},
        device_classes={"gpu": 1000},
        caps=Caps(over_share_permille=10**6, preempt_every_s=1),
        lend=Lend(GRACE_S, GRACE_S, GRACE_S, MIN_RUNTIME_S, 1_000_000),
    )


def _ends(path: str) -> list[int]:
    return [at for at in range(1, len(path)) if path[at] == "/"]


@dataclass(slots=True)
class Contest:
    """One donor, borrowers that never give up, books that stand still.

    Args:
        seed: what all of it is made of.
        tree: the accounts.
        nodes: devices by node.
        widest: devices that a request wants at most.
    """

    seed: int
    tree: str
    nodes: dict[str, int]
    widest: int
    now_s: float = 1000.0
    state: State = field(default_factory=lambda: State(Book(1e9), law=Law(site="uni-a")))
    running: dict[str, Lease] = field(default_factory=dict)
    preemptions: int = 0

    def play(self, rounds: int) -> None:
        """Have them contend; the laws are held as it goes."""
        chance = Random(self.seed)
        accounts = TREES[self.tree]
        policy = _policy(chance, accounts)
        used = {one: chance.randint(0, 300_000_000) for one in accounts}
        usage = Usage().add_all((one, EPOCH, msgs) for one, msgs in used.items())
        self.do(PolicyChanged(policy, self.now_s))
        self.do(StandingChanged(standing_of(policy, EPOCH, usage=usage, donated={"gpu": 8}), self.now_s))
        self.report()
        jobs = [self.job(at, chance) for at in range(sum(self.nodes.values()) + 4)]
        first = sorted(jobs, key=lambda one: -used[one.account])[: sum(self.nodes.values())]
        seen: set[frozenset[str]] = set()
        for at in range(rounds):
            moved = self.preemptions
            chance.shuffle(jobs)
            for job in jobs if at else first:  # who has used most is there first
                self.do(OfferAsked(job, f"o{at}-{job.id}", self.now_s))
            self.settle()
            hands = frozenset(one.request.id for one in self.running.values())
            assert moved == self.preemptions or hands not in seen, "preemptions in a circle (I6)"
            seen.add(hands)
            self.now_s += ROUND_S
            self.report()

    def settle(self) -> None:
        """Let notices come to their ends, and runners that are told to stop go, a moment later."""
        for _ in range(3):
            if not any(one.notice_deadline_s for one in self.state.book.leases.values()):
                return
            self.now_s += GRACE_S
            self.do(Tick(self.now_s))
            self.report()
            for lease_id in [one for one in self.running if one not in self.state.book.leases]:
                self.now_s += 1.0
                del self.running[lease_id]
                self.do(RunnerEnded(lease_id, "it was told to", self.now_s))
                self.do(Receipted(lease_id, 0, self.now_s))  # time stands still for the books

    def job(self, at: int, chance: Random) -> LeaseRequest:
        account = TREES[self.tree][at % len(TREES[self.tree])]
        return LeaseRequest(
            id=f"r{at}",
            borrower_site=account.split("/")[1],
            borrower_node="laptop",
            model="m",
            image_id="a" * 64,
            total_bytes=1,
            devices=chance.randint(1, self.widest),
            account=account,
            purpose="teaching",
            duration_s=chance.choice([30_000, 60_000, 150_000, 300_000]),
        )

    def report(self) -> None:
        for name, count in self.nodes.items():
            devices = tuple(Device(f"g{at}", "gpu", 80, "gpu") for at in range(count))
            leases = tuple(one.id for one in self.running.values() if one.device.node == name)
            self.do(NodeHeard(NodeReport(name, name, devices, (), leases, 0, True, 0.0), self.now_s))

    def do(self, event: Event) -> None:
        self.state, effects = step(self.state, event)
        for effect in effects:
            self.carry_out(effect)

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Offered(offer):
                needed = offer.request.devices
                spare = set(offer.devices) - {
                    device for one in offer.victims for device in self.state.book.leases[one].devices
                }
                for victim in offer.victims:
                    rest = [self.state.book.leases[one] for one in offer.victims if one != victim]
                    freed = {device for one in rest for device in one.devices}
                    assert len(freed | spare) < needed, "a victim more than needed (I7)"
                self.do(OfferCommitted(offer.id, offer.request.borrower_site, self.now_s))
            case Notice(lease, _, _) if lease.notice_cause is Cause.PREEMPTED:
                self.preemptions += 1
                ran_s = self.now_s - lease.granted_at_s
                assert ran_s >= lease.terms.min_runtime_s, "before its minimum time (I8)"
            case Start(lease):
                held = {device for one in self.running.values() for device in one.devices}
                assert held.isdisjoint(lease.devices), "one device, two leases (I11)"
                self.running[lease.id] = lease
                self.do(Started(lease.id, self.now_s))
            case Stop(_, lease_id, _):
                assert lease_id in self.running
            case _:
                pass


def contests(tree: str, count: int, *, widest: int, rounds: int = 14) -> list[Contest]:
    """So many contests, played."""
    made = [Contest(seed, tree, SINGLE if widest == 1 else MIXED, widest) for seed in range(count)]
    for one in made:
        one.play(rounds)
    return made


@pytest.mark.parametrize("tree", sorted(TREES))
@pytest.mark.parametrize("widest", [1, 3])
def test_guests_that_never_give_up_come_to_rest(tree: str, widest: int) -> None:
    """No circle; and they do preempt each other, or nothing would have been tried."""
    played = contests(tree, 30, widest=widest)
    assert sum(one.preemptions for one in played) > 10


def _before_the_move(
    standing: Standing,
    own: Charges,
    account: str,
    charge_msgs: int,
    victim: Running,
    *,
    ranks: Ranks | None = None,
) -> bool:
    """A planted bug: whoever is below now may preempt, however far above it is then."""
    alike = Running(victim.account, 0, victim.ran_s, victim.min_runtime_s)
    return below_after_move(standing, own, account, 0, alike, ranks=ranks)


def _all_of_them(candidates: list[Candidate], *, count: int) -> Victims | None:
    """A planted bug: every lease that may go has to."""
    if count <= 0:
        return None
    freed = frozenset(device for one in candidates for device in one.devices)
    return Victims(tuple(one.id for one in candidates), (), freed) if len(freed) >= count else None


def _anybody(change: Change, supply: object, waiting: object) -> dict[str, Lease]:
    """A planted bug: every lease may have to go, be it ever so young."""
    return {
        one.id: one
        for one in change.leases.values()
        if one.notice_deadline_s is None and one.state is LeaseState.ACTIVE
    }


def _at_once(self: Change, holder: str, devices: tuple[DeviceRef, ...], *, before: str = "") -> bool:
    """A planted bug: a guest does not wait for the one before it to be gone."""
    self.taken.update(dict.fromkeys(devices, holder))
    return True


def _forgets_the_rest(self: Change, lease: Lease, cause: Cause, reason: str, *, left_over: bool) -> None:
    """A planted bug: devices are free with the lease's end, whatever runs on them yet."""
    _END(self, lease, cause, reason, left_over=False)


_END = Change.end


@pytest.mark.parametrize(
    ("place", "name", "bug", "tree", "widest", "law"),
    [
        (preempting, "may_preempt", _before_the_move, "flat", 1, "I6"),
        (preempting, "may_preempt", _before_the_move, "hierarchical", 1, "I6"),
        (preempting, "victims_for", _all_of_them, "flat", 3, "I7"),
        (preempting, "_going", _anybody, "flat", 3, "I8"),
        (Change, "take", _at_once, "flat", 1, "I11"),
        (Change, "end", _forgets_the_rest, "flat", 1, "I11"),
    ],
    ids=["circle, flat", "circle, in a tree", "too many", "too early", "at once", "not gone yet"],
)
def test_a_planted_bug_is_found(
    place: object,
    name: str,
    bug: Callable[..., object],
    tree: str,
    widest: int,
    law: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each law can fail."""
    monkeypatch.setattr(place, name, bug)
    with pytest.raises(AssertionError, match=law):
        contests(tree, 100, widest=widest)
