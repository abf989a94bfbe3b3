"""One donor in a replay: its nodes and devices as their owner leaves them, its own jobs, its decision core.

The owner's side is here as the node's would be: it needs nobody to take a device back. Free devices go over
at once; guests are given notice, and their devices change hands when nothing of them is left. The core hears
of it by the reports of the nodes, in the same form as from real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from agent.gateway.core.asked import has_place
from agent.gateway.core.book import Lease
from agent.gateway.core.events import Effect, Event, NodeHeard, RunnerEnded
from agent.gateway.core.fleet import Device, DeviceRef, Fleet, Heard, NodeReport
from agent.gateway.core.leases import next_deadline_s, step
from agent.gateway.core.queue import Queue
from agent.gateway.core.state import State
from agent.gateway.core.values import altered
from agent.replay.agenda import Agenda
from agent.replay.outcome import GuestJob, OwnJobs
from agent.replay.owner import OwnQueue
from agent.replay.trace import Job
from agent.replay.world import DEVICE_CLASS, DonorSpec, World
from federation.fairshare.victims import Candidate, victims_for

MEMORY_BYTES: Final = 80_000_000_000
IMAGE_BYTES: Final = 16_000_000_000
_FOREVER: Final = float("inf")
_TAKEN_BACK: Final = "its owner took the device back"

Hand = Literal["lent", "reclaiming", "owned"]


@dataclass(slots=True)
class Run:
    """A lease on this donor, from its grant until its devices are free.

    Args:
        lease: as the core last said.
        guest: the job's row in the outcome.
        granted_s: when it got its devices; until then, when it was committed.
        idle_before_s: how long the federation had had idle devices by then, in all.
        starting: whether its node has been told to start it.
        serving_s: when it serves, or will; ``None``: its devices are not free yet.
        stopped_s: when its work stopped; ``None``: it goes on.
        settled: whether its work has been counted.
        useful_s, lost_s: the work, once it is.
        evicted: whether the donor ended it.
    """

    lease: Lease
    guest: GuestJob
    granted_s: float
    idle_before_s: float
    starting: bool = False
    serving_s: float | None = None
    stopped_s: float | None = None
    settled: bool = False
    useful_s: float = 0.0
    lost_s: float = 0.0
    evicted: bool = False


class DonorSite:
    """A site that lends, and its own people.

    Args:
        spec: its devices.
        world: times of the owner's side.
        state: of its core, without nodes.
        agenda: virtual time.
        own: where its own jobs' figures go.
        feed: gives this donor's core an event, or a node's report by the node's name.
        span_s: what lies beyond is not counted.
    """

    def __init__(
        self,
        spec: DonorSpec,
        world: World,
        state: State,
        agenda: Agenda,
        *,
        own: OwnJobs,
        feed: Callable[[DonorSite, Event | str], None],
        span_s: float,
    ) -> None:
        self.site = spec.site
        self.state = state
        self.runs: dict[str, Run] = {}
        self.steps = 0
        self._world = world
        self._agenda = agenda
        self._own = own
        self._feed = feed
        self._span_s = span_s
        self._queue = OwnQueue(spec.devices)
        self._hands: dict[DeviceRef, Hand] = {}
        self._nodes: dict[str, list[DeviceRef]] = {}
        self._wanted_since: dict[DeviceRef, float] = {}
        self._kills: dict[str, float] = {}
        self._lent_free: int | None = None
        self._moved = False
        """Whether a device changed hands since the last decision."""
        for at, devices in enumerate(spec.nodes()):
            node = f"{spec.site}-{at + 1:03}"
            refs = [DeviceRef(node, f"gpu{one:02}") for one in range(devices)]
            self._nodes[node] = refs
            self._hands.update(dict.fromkeys(refs, "lent"))
        self._lent = len(self._hands)
        self._devices: dict[tuple[DeviceRef, Hand], Device] = {}
        """As reports name them, but those that are being taken back."""

    # --- the core -----------------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of its nodes."""
        return tuple(self._nodes)

    def decide(self, event: Event) -> tuple[Effect, ...]:
        """Give the core an event; return what it wants done."""
        self.steps += 1
        before = self.state
        state, effects = step(before, event)
        fleet, queue = state.fleet, state.queue
        if type(event) is NodeHeard:
            # No node is lost in a replay: reports that would only say that one is still there are left out.
            fleet = Fleet({name: _always(one) for name, one in fleet.nodes.items()})
        if queue.due.front is not None:
            # Borrowers ask again for the places that they have; that changes nothing and is left out too.
            queue = Queue(queue.ranked, queue.arrived, queue.seen)
        if fleet is not state.fleet or queue is not state.queue:
            state = altered(state, fleet=fleet, queue=queue)
        if self._moved or state.book is not before.book:
            self._lent_free, self._moved = None, False
        self.state = state
        return effects

    def due_s(self) -> float | None:
        """Return when the core wants to look again."""
        return next_deadline_s(self.state)

    def lent_free(self) -> int:
        """Return how many devices are lent and promised to nobody."""
        if self._lent_free is None:
            index, hands = self.state.book.index, self._hands
            promised = index.taken.keys() | index.awaited.keys()
            self._lent_free = self._lent - list(map(hands.get, promised)).count("lent")
        return self._lent_free

    def has_place(self, account: str) -> bool:
        """Whether an account has fewer requests in the queue here than it may have."""
        return has_place(self.state.queue, self.state.law, account)

    def report(self, node: str) -> NodeHeard:
        """Return what a node would report now."""
        now_s = self._agenda.now_s
        leases = sorted(
            name for name, run in self.runs.items() if run.starting and run.lease.device.node == node
        )
        report = NodeReport(
            node=node,
            address="",
            devices=tuple(self._device(ref, now_s) for ref in self._nodes[node]),
            replicas=(),
            leases=tuple(leases),
            spares_ready=0,
            donating=True,
            transfer_bytes_per_s=0.0,
        )
        return NodeHeard(report, now_s)

    def _device(self, ref: DeviceRef, now_s: float) -> Device:
        hand = self._hands[ref]
        if hand == "reclaiming":
            left_s = max((self._left_s(run, now_s) for run in self._runs_on(ref)), default=0.0)
            return Device(ref.device, "gpu", MEMORY_BYTES, DEVICE_CLASS, hand, left_s)
        known = self._devices.get((ref, hand))
        if known is None:
            known = Device(ref.device, "gpu", MEMORY_BYTES, DEVICE_CLASS, hand)
            self._devices[(ref, hand)] = known
        return known

    def _left_s(self, run: Run, now_s: float) -> float:
        return max(0.0, self._kills.get(run.lease.id, now_s) - now_s)

    def _runs_on(self, ref: DeviceRef) -> Iterable[Run]:
        return (run for run in self.runs.values() if ref in run.lease.devices)

    # --- the owner ----------------------------------------------------------------------------------------

    def submit_own(self, job: Job) -> None:
        """Take in a job of the owner's; its node sees it a moment later."""
        if self._queue.submit(job):
            self._agenda.at(self._agenda.now_s + self._world.detect_s, self.balance)
            self._begin_own()
        else:
            self._own.too_wide += 1

    def balance(self) -> None:
        """Take back what the owner's jobs need, give back what they leave, start those that can."""
        missing = self._queue.wanted - (len(self._hands) - self._lent)
        touched: set[str] = set()
        if missing > 0:
            touched = self._take(missing)
        elif missing < 0:
            touched = self._give_back(-missing)
        self._begin_own()
        for node in sorted(touched):
            self._feed(self, node)

    def gone(self, run: Run) -> None:
        """Note that nothing of a lease is left on its node: the owner gets what it asked for of it."""
        now_s = self._agenda.now_s
        del self.runs[run.lease.id]
        self._kills.pop(run.lease.id, None)
        still = self._occupied()
        taken = False
        for ref in run.lease.devices:
            if self._hands[ref] == "reclaiming" and ref not in still:
                self._hand_over(ref, "owned")
                self._queue.in_hand += 1
                self._own.reclaims_s.append(now_s - self._wanted_since.pop(ref))
                taken = True
        if taken:
            self._feed(self, run.lease.device.node)
            self.balance()

    def _hand_over(self, ref: DeviceRef, hand: Hand) -> None:
        self._lent += (hand == "lent") - (self._hands[ref] == "lent")
        self._hands[ref] = hand
        self._moved = True

    def _occupied(self) -> set[DeviceRef]:
        """Return the devices on which something of a lease runs."""
        return {ref for run in self.runs.values() if run.starting for ref in run.lease.devices}

    def _take(self, missing: int) -> set[str]:
        """Take so many devices: free ones, those that guests are leaving anyway, then guests'."""
        now_s = self._agenda.now_s
        touched = set()
        occupied = self._occupied()
        for ref, hand in self._hands.items():
            if missing > 0 and hand == "lent" and ref not in occupied:
                self._hand_over(ref, "owned")
                self._queue.in_hand += 1
                touched.add(ref.node)
                missing -= 1
        if missing > 0:
            for ref in self._guests_leave(missing):
                self._hand_over(ref, "reclaiming")
                self._wanted_since[ref] = now_s - self._world.detect_s
                touched.add(ref.node)
        return touched

    def _guests_leave(self, missing: int) -> list[DeviceRef]:
        """Return so many devices that guests leave: leaving ones' first, then theirs who lose least by it."""
        now_s = self._agenda.now_s
        staying, found = [], []
        for run in self.runs.values():
            if not run.starting:
                continue  # it waits for devices that others are leaving; its donor ends it
            lent = [ref for ref in run.lease.devices if self._hands[ref] == "lent"]
            if run.stopped_s is not None or run.lease.id in self._kills:
                found += lent
            elif lent:
                devices = frozenset(str(ref) for ref in lent)
                staying.append(Candidate(run.lease.id, devices, self._lost_msgs(run, now_s)))
        found = list(dict.fromkeys(found))
        if len(found) < missing:
            room = sum(len(one.devices) for one in staying)
            chosen = victims_for(staying, count=min(room, missing - len(found)))
            for name in chosen.ended if chosen is not None else ():
                run = self.runs[name]
                self._kills[name] = now_s + run.lease.terms.grace_s
                self._agenda.at(self._kills[name], self._kill, run)
                found += [ref for ref in run.lease.devices if self._hands[ref] == "lent"]
        return list(dict.fromkeys(found))[:missing]

    def _lost_msgs(self, run: Run, now_s: float) -> int:
        """Return the work that would be lost: what came after its last checkpoint."""
        if run.serving_s is None or now_s <= run.serving_s:
            return 0
        since_s = (now_s - run.serving_s) % self._world.checkpoint_s
        return int(since_s * 1000) * len(run.lease.devices)

    def _give_back(self, spare: int) -> set[str]:
        touched = set()
        idle = min(spare, self._queue.in_hand - self._queue.running)
        for ref in reversed(self._hands):
            if idle > 0 and self._hands[ref] == "owned":
                self._hand_over(ref, "lent")
                self._queue.in_hand -= 1
                touched.add(ref.node)
                idle -= 1
        return touched

    def _kill(self, run: Run) -> None:
        """Stop a guest whose grace is over; its devices are free when their memory is."""
        if run.lease.id in self.runs and run.stopped_s is None:
            run.stopped_s = self._agenda.now_s
            run.evicted = True
            self._agenda.at(self._agenda.now_s + self._world.hand_over_s, self._killed, run)

    def _killed(self, run: Run) -> None:
        if run.lease.id in self.runs:
            self._feed(self, RunnerEnded(run.lease.id, _TAKEN_BACK, self._agenda.now_s))

    def _begin_own(self) -> None:
        now_s = self._agenda.now_s
        for job in self._queue.begin():
            self._own.waits_s.append(now_s - job.submit_s)
            self._own.busy_s += job.devices * max(0.0, min(job.duration_s, self._span_s - now_s))
            self._agenda.at(now_s + job.duration_s, self._end_own, job)

    def _end_own(self, job: Job) -> None:
        self._queue.end(job)
        self.balance()


def _always(one: Heard) -> Heard:
    """Return a node as heard of for ever, without strays."""
    known = one.heard_at_s == _FOREVER and not one.strays
    return one if known else Heard(one.report, _FOREVER)
