"""A donor under a policy against borrowers, owners and operators that do anything in any order.

The model knows what the rules cannot: what really runs on each device, and since when. Time passes in steps
of two seconds, in which nodes report, kill what is overdue and stop what they are told to, and faithful
borrowers ask and renew. Everything is kept, and at the end of a run played again from its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from trials import explain, outcome_of

from agent.gateway.core import nodes
from agent.gateway.core.admission import denied
from agent.gateway.core.book import Cause, Lease, LeaseState, Offer
from agent.gateway.core.change import Change
from agent.gateway.core.events import (
    Effect,
    Ended,
    Event,
    Granted,
    NodeHeard,
    Notice,
    OfferAsked,
    OfferCommitted,
    Offered,
    PolicyChanged,
    Queued,
    Receipted,
    Released,
    Renewed,
    RunnerEnded,
    StandingChanged,
    Start,
    Started,
    Stop,
    Tick,
    Withdrawn,
)
from agent.gateway.core.fleet import Device, DeviceRef, NodeReport
from agent.gateway.core.journal import effect_bytes, event_bytes, event_of
from agent.gateway.core.law import Law
from agent.gateway.core.leases import State, long_step, step
from agent.gateway.core.request import LeaseRequest, account_of
from agent.gateway.core.supply import Supply
from agent.limits import KILL_SLACK_S
from federation.fairshare.caps import UNHEARD_S, over_cap
from federation.fairshare.decay import SCALE_BITS
from federation.fairshare.standing import Standing, holdings_of
from federation.fairshare.usage import by_node
from federation.policy.policy import AccountRule, Caps, ClassRule, Lend, Policy, PurposeRule

STEP_S = 2.0
GRACE_S, INSTANT_GRACE_S, MIN_RUNTIME_S = 10, 4, 30
DEVICES = {"n1": ("g0", "g1", "g2"), "n2": ("g0",)}
SITES = ("uni-b", "uni-c", "uni-d")


def _account(path: str, *classes: str) -> AccountRule:
    return AccountRule(
        path, 1, classes, (path.split("/")[1],), dict.fromkeys(classes, "consortium"), open=True
    )


POLICY = Policy(
    name="c",
    version=1,
    effective_at_s=0,
    digest="d",
    accounts={
        "/uni-b": _account("/uni-b"),
        "/uni-b/class": _account("/uni-b/class", "student"),
        "/uni-c": _account("/uni-c"),
        "/uni-d": _account("/uni-d"),
    },
    classes={"student": ClassRule("student", 250, ("consortium",))},
    purposes={"teaching": PurposeRule("teaching", 1000, ("*",))},
    device_classes={"gpu": 1000},
    caps=Caps(over_share_permille=2000, wide_hold_s=30, preempt_every_s=60, max_requests=4),
    lend=Lend(GRACE_S, GRACE_S, INSTANT_GRACE_S, MIN_RUNTIME_S, 600),
)
ACCOUNTS = ("/uni-b", "/uni-b/class", "/uni-c", "/uni-d")
usages = st.fixed_dictionaries({one: st.sampled_from([0, 1, 5, 50]) for one in ACCOUNTS})

crowds = st.lists(
    st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from([False, False, True])), min_size=4, max_size=6
)
"""Who has devices at first, and whether for an instant."""


@dataclass(slots=True)
class Held:
    """One device in the hands of one lease, from when until when."""

    device: DeviceRef
    lease_id: str
    from_s: float
    until_s: float | None = None


@dataclass(slots=True)
class Claim:
    """An owner wants a device by a moment; the node does not say when it has killed if it is ``mute``."""

    deadline_s: float
    mute: bool
    owned: bool = False


@dataclass(slots=True)
class Node:
    """What is really the case on a node."""

    running: dict[str, tuple[DeviceRef, ...]] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    stops: dict[str, float] = field(default_factory=dict)
    """By lease, when the runner that was told to stop is gone."""


class Site(RuleBasedStateMachine):
    """One donor with four devices, three borrowing institutions, one class with a reserve of one device."""

    def __init__(self) -> None:
        super().__init__()
        self.first = State(law=Law(site="uni-a"))
        self.state = self.first
        self.now_s = 1000.0
        self.made = 0
        self.events: list[tuple[bytes, list[bytes]]] = []
        self.nodes = {name: Node() for name in DEVICES}
        self.history: list[Held] = []
        self.granted: dict[str, tuple[str, str]] = {}
        self.waited_reserved: dict[str, float] = {}
        self.undisturbed = True
        """No owner or operator has interfered yet: what is reserved is covered."""

    # --- the shell ----------------------------------------------------------------------------------------

    def do(self, event: Event) -> list[Effect]:
        """Take a step, hold its effects against the laws, carry them out."""
        before = self.state
        self.state, effects = step(before, event)
        self.events.append((event_bytes(event), [effect_bytes(one) for one in effects]))
        for effect in effects:
            self.check(effect, event, before)
            self.carry_out(effect)
        return list(effects)

    def check(self, effect: Effect, event: Event, before: State) -> None:
        match effect:
            case Notice(lease, deadline_s, _) if lease.notice_cause is Cause.PREEMPTED:
                assert isinstance(event, OfferCommitted), "evicted for a request that has not committed"
                ran_s = event.now_s - lease.granted_at_s
                assert lease.terms.instant or ran_s >= lease.terms.min_runtime_s, (
                    "before its minimum time (I8)"
                )
                assert deadline_s >= event.now_s + lease.terms.grace_s
            case Notice(_, deadline_s, reason):
                assert deadline_s >= event.now_s
                assert reason
            case Offered(offer):
                self.check_offer(offer)
            case Granted(lease):
                key = lease.request.key
                assert self.granted.setdefault(lease.id, key) == key
                open_ones = [one for one in self.state.book.leases.values() if one.request.key == key]
                assert len(open_ones) == 1, "two leases for one request (I12)"
            case Ended(lease, _) if lease.cause is Cause.PREEMPTED:
                assert lease.notice_deadline_s is not None
                assert event.now_s >= lease.notice_deadline_s or isinstance(event, RunnerEnded | NodeHeard)
            case Queued(place):
                assert 1 <= place.position <= place.waiting
            case _:
                pass

    def check_offer(self, offer: Offer) -> None:
        node = self.nodes[offer.device.node]
        assert len({one.node for one in offer.devices}) == 1
        assert len(set(offer.devices)) == offer.request.devices
        for device in offer.devices:
            assert device.device not in node.claims, "offered while its owner wants it (I9)"
        if offer.victims:
            book = self.state.book
            going = [book.leases[one] for one in offer.victims]
            offered = set(offer.devices)
            for one in going:
                rest = {device for other in going if other is not one for device in other.devices}
                spare = offered - {device for lease in going for device in lease.devices}
                assert len(rest) + len(spare) < offer.request.devices, "a victim more than needed (I7)"

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Start(lease):
                node = self.nodes[lease.device.node]
                for device in lease.devices:
                    assert device.device not in node.claims, "started while its owner wants the device (I9)"
                    for held in self.history:
                        assert held.device != device or held.until_s is not None, (
                            "one device, two leases (I11)"
                        )
                    self.history.append(Held(device, lease.id, self.now_s))
                node.running[lease.id] = lease.devices
                since_s = self.waited_reserved.pop(lease.id, None)
                if since_s is not None:
                    late_s = self.now_s - since_s
                    assert late_s <= INSTANT_GRACE_S + KILL_SLACK_S + 2 * STEP_S, "a reserve that waits (I10)"
            case Stop(name, lease_id, _):
                slow_s = (0.0, KILL_SLACK_S)[len(self.nodes[name].stops) % 2]
                self.nodes[name].stops.setdefault(lease_id, self.now_s + slow_s)
            case Ended(lease, _):
                self.waited_reserved.pop(lease.id, None)
            case _:
                pass

    def drop(self, name: str, lease_id: str, *, told: bool) -> None:
        """A runner is gone; the gateway hears of it, or has to find out."""
        node = self.nodes[name]
        node.stops.pop(lease_id, None)
        if node.running.pop(lease_id, None) is not None:
            for held in self.history:
                if held.lease_id == lease_id and held.until_s is None:
                    held.until_s = self.now_s
        if told:
            self.do(RunnerEnded(lease_id, "it is gone", self.now_s))

    def report(self, name: str) -> None:
        node = self.nodes[name]
        devices = []
        for one in DEVICES[name]:
            claim = node.claims.get(one)
            if claim is None:
                devices.append(Device(one, "gpu", 80, "gpu"))
            else:
                left_s = max(0.0, claim.deadline_s - self.now_s)
                devices.append(
                    Device(one, "gpu", 80, "gpu", "owned" if claim.owned else "reclaiming", left_s)
                )
        said = NodeReport(name, name, tuple(devices), (), tuple(node.running), 0, True, 0.0)
        self.do(NodeHeard(said, self.now_s))

    def fresh(self, prefix: str) -> str:
        self.made += 1
        return f"{prefix}{self.made}"

    # --- time ---------------------------------------------------------------------------------------------

    @initialize(used=usages, guests=st.just([]) | crowds)
    def begins(self, used: dict[str, int], guests: list[tuple[str, bool]]) -> None:
        """A policy, books, nodes that have reported, and mostly guests on them."""
        self.do(PolicyChanged(POLICY, self.now_s))
        self.stands(used)
        for name in DEVICES:
            self.report(name)
        for account, instant in guests:
            self.asks(account, 1, instant, 0, None, takes=True)

    @rule(more_s=st.sampled_from([2, 4, 10, 20, 40]), faithful=st.booleans())
    def time_passes(self, more_s: int, faithful: bool) -> None:
        """Nodes do their duty meanwhile; borrowers do if they are faithful."""
        for _ in range(int(more_s / STEP_S)):
            self.now_s += STEP_S
            for name, node in self.nodes.items():
                for lease_id, due_s in list(node.stops.items()):
                    if self.now_s >= due_s:
                        self.drop(name, lease_id, told=True)
                self.owners_take(name, node)
                self.report(name)
            self.do(Tick(self.now_s))
            if faithful and self.now_s % 20 == 0:
                self.all_ask()
        if faithful:
            for lease in list(self.state.book.leases.values()):
                self.do(Renewed(lease.id, lease.request.borrower_site, self.now_s))

    def owners_take(self, name: str, node: Node) -> None:
        for device, claim in node.claims.items():
            if self.now_s < claim.deadline_s or claim.owned:
                continue
            claim.owned = True
            for lease_id, devices in list(node.running.items()):
                if DeviceRef(name, device) in devices:
                    self.drop(name, lease_id, told=not claim.mute)

    def all_ask(self) -> None:
        for waiting in list(self.state.queue.line):
            self.do(OfferAsked(waiting.wish.request, self.fresh("o"), self.now_s))

    # --- borrowers ----------------------------------------------------------------------------------------

    @rule(
        account=st.sampled_from(ACCOUNTS),
        devices=st.sampled_from([1, 1, 1, 2, 3]),
        instant=st.booleans(),
        duration_s=st.sampled_from([0, 0, 20, 300]),
        node=st.sampled_from([None, None, None, "n1", "n2"]),
        takes=st.booleans(),
    )
    def asks(
        self, account: str, devices: int, instant: bool, duration_s: int, node: str | None, takes: bool
    ) -> None:
        """Somebody wants devices; one that is offered some may take them at once."""
        request = LeaseRequest(
            id=self.fresh("r"),
            borrower_site=account.split("/")[1],
            borrower_node="laptop",
            model="m",
            image_id="a" * 64,
            total_bytes=80,
            devices=devices,
            node=node,
            account=account,
            purpose="teaching",
            instant=instant,
            duration_s=duration_s,
        )
        due = self.is_due(request)
        effects = self.do(OfferAsked(request, self.fresh("o"), self.now_s))
        offers = [
            one.offer for one in effects if isinstance(one, Offered) and one.offer.request.key == request.key
        ]
        assert offers or not due, "a request within its reserve has to wait (I10)"
        if offers and takes:
            self.commit(offers[0])

    def is_due(self, request: LeaseRequest) -> bool:
        """Whether a request is within a reserve that nothing has disturbed."""
        supply = Supply(Change(self.state, Tick(self.now_s)))
        return (
            self.undisturbed
            and request.account == "/uni-b/class"
            and request.devices == 1
            and request.node is None
            and not request.instant
            and supply.deficits.get("student", 0) >= 1
            and supply.reserve.covered
            and not len(self.state.queue.line.of_account(request.account))
        )

    def commit(self, offer: Offer) -> None:
        reserved = offer.request.account == "/uni-b/class" and bool(offer.victims) and self.undisturbed
        effects = self.do(OfferCommitted(offer.id, offer.request.borrower_site, self.now_s))
        for one in effects:
            if isinstance(one, Granted):
                lease = one.lease
                if reserved and lease.state is LeaseState.WAITING:
                    self.waited_reserved[lease.id] = self.now_s
                again = self.do(OfferCommitted(offer.id, offer.request.borrower_site, self.now_s))
                assert [one.lease.id for one in again if isinstance(one, Granted)] == [lease.id]
        for one in effects:
            if isinstance(one, Start):
                self.do(Started(one.lease.id, self.now_s))

    @precondition(lambda self: self.state.book.offers)
    @rule(data=st.data())
    def commits(self, data: st.DataObject) -> None:
        """Somebody takes an offer."""
        self.commit(self.state.book.offers[data.draw(st.sampled_from(sorted(self.state.book.offers)))])

    @precondition(lambda self: self.state.book.leases)
    @rule(data=st.data(), charge=st.sampled_from([None, 1000, 10**9]))
    def ends_or_is_receipted(self, data: st.DataObject, charge: int | None) -> None:
        """A borrower is done, or a receipt is written."""
        lease = self.state.book.leases[data.draw(st.sampled_from(sorted(self.state.book.leases)))]
        if charge is None:
            self.do(Released(lease.id, lease.request.borrower_site, "done", self.now_s))
        else:
            self.do(Receipted(lease.id, charge, self.now_s))

    @precondition(lambda self: len(self.state.queue))
    @rule(data=st.data())
    def gives_its_place_up(self, data: st.DataObject) -> None:
        """A borrower waits no more."""
        site, request_id = data.draw(st.sampled_from(sorted(one.key for one in self.state.queue.line)))
        self.do(Withdrawn(request_id, site, self.now_s))

    # --- owners, operators, books -------------------------------------------------------------------------

    @rule(name=st.sampled_from(sorted(DEVICES)), at=st.integers(0, 2), mute=st.booleans())
    def an_owner_wants_a_device(self, name: str, at: int, mute: bool) -> None:
        """The node gives the leases there their grace, and reports at once."""
        device = DEVICES[name][at % len(DEVICES[name])]
        if device in self.nodes[name].claims:
            return
        self.undisturbed = False
        there = [
            one.terms.grace_s
            for one in self.state.book.leases.values()
            if DeviceRef(name, device) in one.devices
        ]
        self.nodes[name].claims[device] = Claim(self.now_s + max(there, default=0.0), mute)
        self.report(name)

    @precondition(lambda self: any(node.claims for node in self.nodes.values()))
    @rule(data=st.data())
    def an_owner_is_done(self, data: st.DataObject) -> None:
        """The device is lent again."""
        name = data.draw(st.sampled_from(sorted(name for name, node in self.nodes.items() if node.claims)))
        del self.nodes[name].claims[data.draw(st.sampled_from(sorted(self.nodes[name].claims)))]
        self.report(name)

    @rule(used=usages)
    def stands(self, used: dict[str, int]) -> None:
        """The ledger says something else."""
        standing = Standing(
            epoch=int(self.now_s) // 600,
            policy=POLICY,
            usage=by_node({one: hours * 3_600_000 << SCALE_BITS for one, hours in used.items()}),
            donated={"gpu": 8},
            ledger_digest=self.fresh("l"),
        )
        self.do(StandingChanged(standing, self.now_s))

    # --- laws ---------------------------------------------------------------------------------------------

    @invariant()
    def a_device_has_one_holder_and_one_heir(self) -> None:
        """What the index says follows from the parts, and nobody holds what is not there (I11)."""
        book = self.state.book
        fresh = replace(book, known_index=None).index
        assert (dict(book.index.taken), dict(book.index.awaited)) == (dict(fresh.taken), dict(fresh.awaited))
        assert (dict(book.index.requests), dict(book.index.held)) == (dict(fresh.requests), dict(fresh.held))
        for lease in book.leases.values():
            if lease.state is not LeaseState.WAITING:
                assert all(book.index.taken[one] == lease.id for one in lease.devices)

    @invariant()
    def what_was_found_before_is_what_is_found_now(self) -> None:
        """Free devices and the policy's answers that a state has kept are those that it would find anew."""
        kept = Change(self.state, Tick(self.now_s))
        book = replace(self.state.book, known_index=None)
        anew = Change(replace(self.state, book=book, law=replace(self.state.law)), Tick(self.now_s))
        assert Supply(kept).shelves == Supply(anew).shelves
        standing, supply = kept.law.standing, Supply(kept)
        for one in self.state.queue.line:
            alike = (one.account, one.devices)
            plainly = None if standing is None else over_cap(standing, *alike, kept.held, *lately(kept))
            assert supply.over_cap(one) == plainly
        for one in self.state.queue.line:
            request = one.wish.request
            answers = [denied(request, of.law, self.now_s, "gpu") for of in (kept, anew)]
            assert answers[0] == answers[1]

    @invariant()
    def a_short_cut_leads_to_the_same_place(self) -> None:
        """A receipt while nothing is due makes the state that a step without short cuts makes."""
        for lease_id in (*self.state.debts, "none"):
            event = Receipted(lease_id, 777, self.now_s)
            assert step(self.state, event) == long_step(self.state, event)

    @invariant()
    def what_is_reserved_is_covered(self) -> None:
        """As many devices are free, or lent for an instant, as the class lacks; but for owners' claims."""
        if not self.undisturbed:
            return
        change = Change(self.state, Tick(self.now_s))
        reserve = Supply(change).reserve
        leaving = [one for one in change.leases.values() if one.terms.instant and one.notice_deadline_s]
        coming = {device for one in (*change.stopping.values(), *leaving) for device in one.devices}
        soon = len(coming - set(change.awaited))
        assert reserve.free + reserve.instant + soon >= sum(reserve.deficits.values())

    @invariant()
    def no_lease_outlives_its_notice(self) -> None:
        """Whatever nodes say: past a notice's end and the time for a kill, the lease is over (I9)."""
        for lease in self.state.book.leases.values():
            if lease.notice_deadline_s is not None:
                assert self.now_s <= lease.notice_deadline_s + KILL_SLACK_S + STEP_S
            assert lease.deadline_s >= self.now_s - STEP_S, "a lease outlives its time (I12)"

    @invariant()
    def charges_follow_from_the_book(self) -> None:
        """Each offer and lease is charged once, and nothing else is but what has ended and has no receipt."""
        book = self.state.book
        assert set(book.offers) | set(book.leases) <= set(self.state.debts)
        assert set(self.state.debts) <= set(book.offers) | set(book.leases) | set(book.ended)
        assert self.state.queue.ranked is not None
        assert dict(self.state.queue.ranked.own.by_node) == dict(self.state.charges.by_node)

    @precondition(lambda self: len(self.state.queue) and self.made % 3 == 0)
    @rule(data=st.data())
    def somebody_asks_why(self, data: st.DataObject) -> None:
        """The first reason is true: it stands in the way whatever the others do (I15)."""
        key = data.draw(st.sampled_from(sorted(one.key for one in self.state.queue.line)))
        self.do(Tick(self.now_s))
        if not self.state.waits(key) or key not in self.state.queue.line:
            return
        if outcome_of(self.state, key, self.now_s) == "offered":
            return  # it has an offer by now, had it asked again
        explained = explain(self.state, key, self.now_s)
        assert explained[0].decides, explained

    def teardown(self) -> None:
        """The devices were in one hand at a time, and the same events give the same effects again (I14)."""
        for device in {one.device for one in self.history}:
            spans = sorted(
                (one.from_s, one.until_s or self.now_s) for one in self.history if one.device == device
            )
            assert all(before[1] <= after[0] for before, after in pairwise(spans))
        state = self.first
        for body, effects in self.events:
            state, again = step(state, event_of(body))
            assert [effect_bytes(one) for one in again] == effects, "a replay decides otherwise (I14)"


TestSite = Site.TestCase
TestSite.settings = settings(max_examples=30, stateful_step_count=40, deadline=None, derandomize=True)


def lately(change: Change) -> tuple[dict[str, int], int]:
    """Return what was given in the time in which other donors may not have heard of it, and all devices."""
    since_s = change.now_s - UNHEARD_S
    fresh = [one for one in change.leases.values() if one.granted_at_s > since_s]
    both = [(account_of(one.request), len(one.devices)) for one in (*fresh, *change.offers.values())]
    return holdings_of(both), sum(len(one.lent) for one in Supply(change).shelves.values())


def _no_grace(change: Change, lease: Lease, deadline_s: float, cause: Cause, reason: str) -> None:
    """A planted bug: notice is given, and the devices are not waited for."""
    change.end(lease, cause, reason, left_over=False)


def _anybody(supply: Supply, request: LeaseRequest) -> bool:
    """A planted bug: nothing is kept for a class."""
    return request.devices <= supply.free


def _told_at_offer(self: Change, offer: Offer, device_class: str) -> None:
    """A planted bug: victims hear of an offer that nobody has committed."""
    _OFFER(self, offer, device_class)
    for one in offer.victims:
        self.notice(self.leases[one], self.now_s + 10.0, Cause.PREEMPTED, "somebody may come")


def _charged_twice(self: Change, offer: Offer, device_class: str) -> None:
    """A planted bug: an offer's charge is counted twice in the order."""
    _OFFER(self, offer, device_class)
    self.queue = self.queue.charged("/uni-c", 1000)


def _deaf(change: Change, report: NodeReport) -> None:
    """A planted bug: what a node says of its owner's claims is not heard."""


_OFFER = Change.offer


@pytest.mark.parametrize(
    ("place", "name", "bug"),
    [
        (Supply, "admits", _anybody),
        (Change, "offer", _told_at_offer),
        (Change, "offer", _charged_twice),
        (nodes, "hear_devices", _deaf),
        (Change, "notice", _no_grace),
    ],
    ids=["reserve given away", "told at the offer", "charged twice", "deaf to owners", "no grace"],
)
def test_the_machine_finds_a_planted_bug(
    place: object, name: str, bug: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each law can fail: with the bug in place the machine ends with a broken one."""
    monkeypatch.setattr(place, name, bug)
    quick = settings(
        max_examples=1500,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Site, settings=quick)
