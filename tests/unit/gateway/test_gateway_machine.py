"""A donor's book against nodes, borrowers and a network that may do anything in any order.

The model knows what the book cannot: what each node has really taken on. Orders and reports are under way for
a while or get lost, runners die with and without a word, the gateway starts again from what it has saved.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.gateway.core.book import Book, Lease, LeaseState, lease_id_of
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
    Queued,
    Reclaimed,
    Record,
    Refuse,
    Released,
    Renewed,
    Reprieve,
    Restored,
    RunnerEnded,
    Save,
    Start,
    Started,
    StartFailed,
    Stop,
    Tick,
    Withdrawn,
)
from agent.gateway.core.fleet import Device, NodeReport
from agent.gateway.core.leases import State, step
from agent.gateway.core.request import LeaseRequest
from agent.limits import LEASE_REPORT_GRACE_S, NODE_FORGOTTEN_S, OFFER_TTL_S

TTL_S = 60.0
DEVICES = {"n1": ("gpu0", "gpu1"), "n2": ("gpu0",)}
SITES = ("uni-b", "uni-c")
nodes = st.sampled_from(sorted(DEVICES))
sites = st.sampled_from(SITES)
moments = [0.5, 3.0, 5.0, 9.0, LEASE_REPORT_GRACE_S]
seconds = st.sampled_from(moments * 4 + [OFFER_TTL_S, OFFER_TTL_S + 1, TTL_S, NODE_FORGOTTEN_S + 1])
seldom = st.sampled_from([False, False, False, True])


@dataclass(slots=True)
class Node:
    """What is really the case on a node."""

    taken_on: dict[str, str] = field(default_factory=dict)
    """Lease -> the device that it has, starting or running."""
    running: set[str] = field(default_factory=set)
    reports: list[tuple[float, NodeReport]] = field(default_factory=list)
    """Under way, with when they were made."""

    def drop(self, lease_id: str) -> None:
        self.taken_on.pop(lease_id, None)
        self.running.discard(lease_id)


class Donor(RuleBasedStateMachine):
    """One gateway, three devices on two nodes, two borrowing sites."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State(Book(TTL_S))
        self.now_s = 1000.0
        self.made = 0
        self.nodes = {name: Node() for name in DEVICES}
        self.starts: dict[str, tuple[float, Lease]] = {}
        self.stops: list[Stop] = []
        self.disk: dict[str, Lease] = {}
        self.offers: dict[str, str] = {}
        self.promised_s: dict[str, float] = {}
        self.started: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    # --- the shell ----------------------------------------------------------------------------------------

    def do(self, event: Event) -> list[Effect]:
        """Take a step, hold its effects against the laws, carry them out."""
        before = self.state.book.stopping
        self.state, effects = step(self.state, event)
        over = [one for one in self.state.book.leases.values() if one.deadline_s <= event.now_s]
        assert not over, "a lease outlives its time"
        for lease_id in set(before) - set(self.state.book.stopping):
            forgotten = before[lease_id].device.node not in self.state.fleet.nodes
            assert forgotten or not self.is_there(lease_id), (
                "a device is free, and its last lease still there"
            )
        for at, effect in enumerate(effects):
            self.check(effect, stopped=any(isinstance(one, Stop) for one in effects[:at]))
            self.carry_out(effect)
        return list(effects)

    def check(self, effect: Effect, *, stopped: bool) -> None:
        match effect:
            case Save(lease) | Granted(lease) | Start(lease):
                assert not self.ended[lease.id], "something is done for a lease that has ended"
                if not isinstance(effect, Save):
                    saved = self.disk.get(lease.id)
                    assert saved is not None, "acted on before it was saved"
                    assert (saved.device, saved.deadline_s) == (lease.device, lease.deadline_s)
            case Ended(lease, reason):
                assert not self.ended[lease.id], "a lease ends twice"
                assert reason
                assert self.disk[lease.id].state is LeaseState.ENDED
                if "renew" in reason:
                    assert self.now_s >= self.promised_s[lease.id] + TTL_S, "ended before its time"
                if not stopped:
                    assert not self.is_there(lease.id), "an end that leaves its runner running"
            case Refuse(refused):
                assert refused.code
                assert refused.sentence.endswith(".")
                assert refused.fix
            case Queued(place):
                assert place.position <= place.waiting
                assert place.reasons
            case Offered() | Stop() | Notice() | Reprieve() | Record():
                pass

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Offered(offer):
                self.offers[offer.id] = offer.request.borrower_site
            case Save(lease):
                self.disk[lease.id] = lease
            case Start(lease):
                self.started[lease.id] += 1
                self.starts[lease.id] = (self.now_s, lease)
            case Stop(node, lease_id, _):
                self.starts.pop(lease_id, None)
                self.stops.append(Stop(node, lease_id, ""))
            case Ended(lease, _):
                self.ended[lease.id] += 1
            case Granted() | Refuse() | Queued() | Notice() | Reprieve() | Record():
                pass

    def is_there(self, lease_id: str) -> bool:
        return lease_id in self.starts or any(lease_id in node.taken_on for node in self.nodes.values())

    def fresh(self, prefix: str) -> str:
        self.made += 1
        return f"{prefix}{self.made}"

    # --- time ---------------------------------------------------------------------------------------------

    @rule(more_s=seconds, ticks=st.booleans(), unheard=st.booleans())
    def time_passes(self, more_s: float, ticks: bool, unheard: bool) -> None:
        """What has been under way for too long is lost; the gateway may look at its clock, or be late.

        A start that nobody answers never came, or it did (``unheard``) and only the answer is lost.
        """
        self.now_s += more_s
        for node in self.nodes.values():
            node.reports = [one for one in node.reports if self.now_s - one[0] < LEASE_REPORT_GRACE_S]
        for lease_id, (sent_s, _) in list(self.starts.items()):
            if lease_id in self.starts and self.now_s - sent_s >= LEASE_REPORT_GRACE_S:
                if unheard:
                    self.take_on(lease_id)
                self.starts.pop(lease_id, None)
                self.do(StartFailed(lease_id, "its node does not answer", self.now_s))
        if ticks:
            self.do(Tick(self.now_s))

    # --- borrowers ----------------------------------------------------------------------------------------

    def ask(self, site: str, number: int, size: int, node: str | None) -> str | None:
        """Ask for an offer; return its id if there is one."""
        request = LeaseRequest(
            id=f"{site}-{number}",
            borrower_site=site,
            borrower_node="b1",
            model="m",
            image_id="a" * 64,
            total_bytes=size,
            node=node,
            account="",
            purpose="",
        )
        effects = self.do(OfferAsked(request, self.fresh("o"), self.now_s))
        answers = [
            one
            for one in effects
            if isinstance(one, Queued | Refuse)
            or (isinstance(one, Offered) and one.offer.request.key == request.key)
        ]
        (answer,) = answers
        return answer.offer.id if isinstance(answer, Offered) else None

    def commit(self, offer_id: str, site: str) -> str | None:
        """Take an offer; return the lease that there is then."""
        held = self.state.book.offers.get(offer_id)
        lease_id = lease_id_of(held) if held is not None else ""
        effects = self.do(OfferCommitted(offer_id, site, self.now_s))
        (answer,) = [one for one in effects if isinstance(one, Granted | Refuse)]
        if isinstance(answer, Refuse):
            return None
        assert (answer.lease.request.borrower_site, answer.lease.offer_id) == (site, offer_id)
        if held is not None:
            assert answer.lease.id == lease_id
            assert self.now_s < held.expires_at_s
            self.promised_s[lease_id] = self.now_s
        return answer.lease.id

    @rule(site=sites, number=st.integers(0, 3), size=st.sampled_from([1, 9]), node=st.none() | nodes)
    def asks(self, site: str, number: int, size: int, node: str | None) -> None:
        """A few requests, so that some come twice."""
        self.ask(site, number, size, node)

    @precondition(lambda self: self.offers)
    @rule(data=st.data(), wrong_site=seldom)
    def commits(self, data: st.DataObject, wrong_site: bool) -> None:
        """Any offer that ever was, mostly an open one; another site is refused."""
        open_ones = sorted(self.state.book.offers)
        offer_id = data.draw(st.sampled_from(open_ones * 4 + sorted(self.offers)))
        site = next(one for one in SITES if (one == self.offers[offer_id]) != wrong_site)
        assert self.commit(offer_id, site) is None or not wrong_site

    @rule(
        site=sites,
        number=st.integers(0, 3),
        node=nodes,
        far=st.sampled_from(["offered", "sent", "taken on", "running", "running"]),
        late_report=seldom,
    )
    def borrows(self, site: str, number: int, node: str, far: str, late_report: bool) -> None:
        """The way that most go: a node that was heard of, an offer, a commit, an order that arrives.

        A report that the node made before may come after all that.
        """
        if all(one.node != node for one in self.state.fleet.present(self.now_s)):
            self.reports(node, donating=True, arrives=True)
        if late_report:
            self.reports(node, donating=True, arrives=False)
        offer_id = self.ask(site, number, 1, node)
        if offer_id is None or far == "offered":
            return
        lease_id = self.commit(offer_id, site)
        if lease_id in self.starts and far != "sent":
            self.take_on(lease_id)
        if lease_id in self.nodes[node].taken_on and far == "running":
            self.nodes[node].running.add(lease_id)
            self.do(Started(lease_id, self.now_s))

    def any_lease(self, data: st.DataObject, *, wrong_site: bool) -> tuple[str, str]:
        """Return one that ever was, mostly an open one, and its site or the other one."""
        open_ones = sorted(self.state.book.leases)
        lease_id = data.draw(st.sampled_from(open_ones * 4 + sorted(self.disk)))
        holder = self.disk[lease_id].request.borrower_site
        return lease_id, next(one for one in SITES if (one == holder) != wrong_site)

    @precondition(lambda self: self.disk)
    @rule(data=st.data(), wrong_site=seldom)
    def renews(self, data: st.DataObject, wrong_site: bool) -> None:
        """Its borrower has it for longer; another site is refused."""
        lease_id, site = self.any_lease(data, wrong_site=wrong_site)
        if any(isinstance(one, Granted) for one in self.do(Renewed(lease_id, site, self.now_s))):
            assert not wrong_site
            self.promised_s[lease_id] = self.now_s

    @precondition(lambda self: self.disk)
    @rule(data=st.data(), wrong_site=seldom)
    def releases(self, data: st.DataObject, wrong_site: bool) -> None:
        """Its borrower ends it; another site is refused."""
        lease_id, site = self.any_lease(data, wrong_site=wrong_site)
        effects = self.do(Released(lease_id, site, "given back", self.now_s))
        if any(isinstance(one, Ended) and one.reason == "given back" for one in effects):
            assert not wrong_site

    # --- nodes --------------------------------------------------------------------------------------------

    @rule(name=nodes, donating=st.sampled_from([True, True, True, False]), arrives=st.booleans())
    def reports(self, name: str, donating: bool, arrives: bool) -> None:
        """A node says what is the case; its word is under way, or comes at once after those before it."""
        devices = tuple(Device(one, "gpu", 9) for one in DEVICES[name])
        taken_on = tuple(self.nodes[name].taken_on)
        report = NodeReport(name, f"{name}:7400", devices, (), taken_on, 0, donating, 0.0)
        self.nodes[name].reports.append((self.now_s, report))
        while arrives and self.nodes[name].reports:
            self.do(NodeHeard(self.nodes[name].reports.pop(0)[1], self.now_s))

    @precondition(lambda self: any(node.reports for node in self.nodes.values()))
    @rule(data=st.data())
    def a_report_arrives(self, data: st.DataObject) -> None:
        """The oldest that is under way from a node."""
        name = data.draw(st.sampled_from([name for name, node in self.nodes.items() if node.reports]))
        self.do(NodeHeard(self.nodes[name].reports.pop(0)[1], self.now_s))

    @precondition(lambda self: self.starts)
    @rule(data=st.data())
    def a_start_arrives(self, data: st.DataObject) -> None:
        """The node takes the lease on. Its device must have nothing else, for real."""
        self.take_on(data.draw(st.sampled_from(sorted(self.starts))))

    def take_on(self, lease_id: str) -> None:
        _, lease = self.starts.pop(lease_id)
        node = self.nodes[lease.device.node]
        assert lease.device.device not in node.taken_on.values(), "one device for two leases"
        node.taken_on[lease_id] = lease.device.device

    @precondition(lambda self: any(set(node.taken_on) - node.running for node in self.nodes.values()))
    @rule(data=st.data(), works=st.booleans())
    def a_start_ends(self, data: st.DataObject, works: bool) -> None:
        """The runner answers, or the node gives up."""
        node, lease_id = data.draw(
            st.sampled_from(
                [
                    (node, one)
                    for node in self.nodes.values()
                    for one in node.taken_on
                    if one not in node.running
                ]
            )
        )
        if works:
            node.running.add(lease_id)
            self.do(Started(lease_id, self.now_s))
        else:
            node.drop(lease_id)
            self.do(StartFailed(lease_id, "it does not bind", self.now_s))

    @precondition(lambda self: any(node.running for node in self.nodes.values()))
    @rule(data=st.data(), told=st.booleans())
    def a_runner_dies(self, data: st.DataObject, told: bool) -> None:
        """With a word to the gateway, or without one."""
        node, lease_id = data.draw(
            st.sampled_from([(node, one) for node in self.nodes.values() for one in sorted(node.running)])
        )
        node.drop(lease_id)
        if told:
            self.do(RunnerEnded(lease_id, "killed by signal 9", self.now_s))

    @precondition(lambda self: self.stops)
    @rule(fate=st.sampled_from(["answered", "unanswered", "lost"]))
    def a_stop_arrives(self, fate: str) -> None:
        """The node ends the lease and says so, or its answer is lost, or the order is."""
        order = self.stops.pop(0)
        if fate != "lost":
            self.nodes[order.node].drop(order.lease_id)
        if fate == "answered":
            self.do(RunnerEnded(order.lease_id, "it was told to", self.now_s))

    @precondition(lambda self: self.made % 4 == 3)
    @rule(name=nodes, whole=st.booleans())
    def an_owner_reclaims(self, name: str, whole: bool) -> None:
        """A device or a whole node goes back."""
        device = None if whole else DEVICES[name][0]
        self.do(Reclaimed(name, device, "its owner needs it", self.now_s))
        for lease in self.state.book.leases.values():
            assert lease.device.node != name or device not in (None, lease.device.device)

    # --- the gateway itself -------------------------------------------------------------------------------

    @precondition(lambda self: self.made % 4 == 3)
    @rule(away_s=seconds)
    def the_gateway_starts_again(self, away_s: float) -> None:
        """Only the disk is left; what was under way to it or from it is not."""
        self.now_s += away_s
        self.starts.clear()
        self.stops.clear()
        for node in self.nodes.values():
            node.reports.clear()
        self.state = State(Book(TTL_S))
        open_ones = tuple(one for one in self.disk.values() if one.state is not LeaseState.ENDED)
        self.do(Restored(open_ones, self.now_s))

    # --- laws ---------------------------------------------------------------------------------------------

    @invariant()
    def no_device_is_promised_twice(self) -> None:
        """Offers, leases and rests of leases are all on different devices."""
        book = self.state.book
        held = [one.device for part in (book.offers, book.leases, book.stopping) for one in part.values()]
        assert len(held) == len(set(held))

    @invariant()
    def no_lease_is_promised_for_longer_than_it_was_renewed(self) -> None:
        """Its deadline is one time to live past its commit or last renewal."""
        for lease in self.state.book.leases.values():
            assert lease.deadline_s == self.promised_s[lease.id] + TTL_S

    @invariant()
    def the_disk_knows_every_lease(self) -> None:
        """A start of the gateway at this moment would lose no lease and bring none back."""
        open_ones = {one.id for one in self.disk.values() if one.state is not LeaseState.ENDED}
        assert open_ones == set(self.state.book.leases)

    def teardown(self) -> None:
        """In the end every lease that was started has ended, once, in its time, and every device is free."""
        for key in list(self.state.queue.seen):
            self.do(Withdrawn(key[1], key[0], self.now_s))
        ends_s = {*(one + TTL_S for one in self.promised_s.values()), self.now_s + OFFER_TTL_S}
        for self.now_s in sorted(one for one in ends_s if one >= self.now_s):
            self.do(Tick(self.now_s))
        assert not self.state.book.leases, "a lease outlives its time"
        for _ in range(2):
            for name, node in self.nodes.items():
                node.reports.clear()
                self.reports(name, donating=True, arrives=True)
            while self.stops:
                self.a_stop_arrives("unanswered")
            self.now_s += LEASE_REPORT_GRACE_S
        for name, node in self.nodes.items():
            self.reports(name, donating=True, arrives=True)
            assert node.taken_on == {}
        assert self.state.book.taken() == frozenset()
        assert all(count == 1 for count in self.started.values()), "a lease is started twice"
        assert all(self.ended[lease_id] == 1 for lease_id in self.started)


TestDonor = Donor.TestCase
TestDonor.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
