"""Stories of a donor's book as text: events in, what it orders out.

A line that begins with a time is an event; the lines with an arrow below it are the effects, in order. The
folder ``gateway`` is to be read as documentation. Each file must be what the rules make of it, to the letter.

::

    TIME heard NODE DEVICE:GB[:STATE[:LEFT]]... [image=A] [leases=L1,L2] [spares=N] [donating=no] [class=C]
    TIME ask OFFER REQUEST SITE [size=GB] [image=A] [node=NODE] [devices=N] [account=/A] [instant=yes]
                                [duration=S] [purpose=P]
    TIME commit OFFER LEASE SITE      TIME renew LEASE SITE      TIME release LEASE SITE WHY
    TIME withdraw REQUEST SITE
    TIME started LEASE      TIME failed LEASE WHY      TIME gone LEASE WHY
    TIME reclaim NODE[/DEVICE] WHY      TIME tick      TIME restart
    TIME policy NAME        TIME standing [used=/A:HOURS,/B:HOURS] [held=/A:N,...] [donated=N] [age=S]
    TIME clock UNIX         TIME egress GB             TIME why REQUEST SITE

``policy`` takes one of the policies below. ``TIME why ...`` is no event: it shows what a waiting request is
told. ``TIME pass`` is many: until then nodes report each 5 s that what was started there runs, and end what
they are told to; whoever waits asks again each 20 s, whoever has a lease renews it each 2 minutes. What else
comes of it is shown with its time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.gateway.core.book import Lease, LeaseState, lease_id_of
from agent.gateway.core.events import (
    ClockRead,
    Effect,
    EgressCounted,
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
    Reclaimed,
    Record,
    Refuse,
    Released,
    Renewed,
    Reprieve,
    Restored,
    RunnerEnded,
    Save,
    StandingChanged,
    Start,
    Started,
    StartFailed,
    Stop,
    Tick,
    Withdrawn,
)
from agent.gateway.core.fleet import Device, NodeReport, Replica
from agent.gateway.core.law import Law
from agent.gateway.core.leases import State, step
from agent.gateway.core.request import LeaseRequest
from federation.fairshare.decay import SCALE_BITS
from federation.fairshare.freshness import Split
from federation.fairshare.standing import Standing
from federation.fairshare.usage import by_node
from federation.policy.policy import AccountRule, Caps, ClassRule, Data, Lend, Policy, PurposeRule

FOLDER = Path(__file__).parent / "gateway"
GB = 10**9
SITES = ("uni-a", "uni-b", "uni-c", "uni-d")


def account(path: str, *classes: str) -> AccountRule:
    """An account of weight 1, of its own site, open below."""
    site = path.split("/")[1]
    attested = dict.fromkeys(classes, "consortium")
    return AccountRule(path, 1, classes, (site,), attested, open=True)


EQUAL = Policy(
    name="story",
    version=1,
    effective_at_s=0,
    digest="equal",
    accounts={f"/{site}": account(f"/{site}") for site in SITES},
    classes={},
    purposes={"teaching": PurposeRule("teaching", 1000, ("*",)), "audit": PurposeRule("audit", 500, ("*",))},
    device_classes={"gpu": 1000},
    caps=Caps(wide_hold_s=900),
    lend=Lend(grace_s=10, instant_grace_s=5, min_runtime_s=900, max_duration_s=7200),
    data=Data(egress_bytes_per_day=100 * GB),
)
STUDENTS = replace(
    EQUAL,
    digest="students",
    classes={"student": ClassRule("student", 250, ("consortium",))},
    accounts={**EQUAL.accounts, "/uni-b": account("/uni-b", "student")},
)
POLICIES: dict[str, Policy | None] = {
    "none": None,
    "equal": EQUAL,
    "students": STUDENTS,
    "narrow": replace(EQUAL, digest="narrow", lend=replace(EQUAL.lend, to=("/uni-b",))),
    "long-notice": replace(EQUAL, digest="long-notice", lend=replace(EQUAL.lend, grace_s=120)),
}


def device_of(word: str, kind: str) -> Device:
    """A device as a report names it."""
    name, size, *rest = word.split(":")
    state = rest[0] if rest else "lent"
    assert state in ("lent", "reclaiming", "owned")
    left_s = float(rest[1]) if len(rest) > 1 else 0.0
    return Device(name, "gpu", int(size) * GB, kind, state, left_s)  # type: ignore[arg-type]


def table_of(text: str) -> dict[str, int]:
    """Figures by account."""
    return {name: int(figure) for name, figure in (one.split(":") for one in text.split(",") if one)}


def event_of(verb: str, words: list[str], now_s: float, story: Story) -> Event:
    """The event that a line names."""
    options = dict(word.split("=", 1) for word in words if "=" in word)
    names = [word for word in words if "=" not in word]
    match verb:
        case "heard":
            node, *devices = names
            leases = options.get("leases", "")
            report = NodeReport(
                node=node,
                address=f"{node}:7400",
                devices=tuple(device_of(one, options.get("class", "gpu")) for one in devices),
                replicas=(Replica(options["image"] * 64, whole=True),) if "image" in options else (),
                leases=tuple(story.id_of(one) for one in leases.split(",")) if leases else (),
                spares_ready=int(options.get("spares", "0")),
                donating=options.get("donating") != "no",
                transfer_bytes_per_s=0.0,
            )
            return NodeHeard(report, now_s)
        case "ask":
            offer_id, request_id, site = names
            request = LeaseRequest(
                id=request_id,
                borrower_site=site,
                borrower_node="laptop",
                model="llama",
                image_id=options.get("image", "a") * 64,
                total_bytes=int(options.get("size", "16")) * GB,
                devices=int(options.get("devices", "1")),
                node=options.get("node"),
                account=options.get("account", f"/{site}"),
                purpose=options.get("purpose", "teaching"),
                instant=options.get("instant") == "yes",
                duration_s=int(options.get("duration", "0")),
            )
            return OfferAsked(request, offer_id, now_s)
        case "commit":
            offer_id, lease, site = names
            story.name(offer_id, lease)
            return OfferCommitted(offer_id, site, now_s)
        case "withdraw":
            return Withdrawn(names[0], names[1], now_s)
        case "renew":
            return Renewed(story.id_of(names[0]), names[1], now_s)
        case "release":
            return Released(story.id_of(names[0]), names[1], " ".join(names[2:]), now_s)
        case "started":
            return Started(story.id_of(names[0]), now_s)
        case "failed":
            return StartFailed(story.id_of(names[0]), " ".join(names[1:]), now_s)
        case "gone":
            return RunnerEnded(story.id_of(names[0]), " ".join(names[1:]), now_s)
        case "reclaim":
            node, _, device = names[0].partition("/")
            return Reclaimed(node, device or None, " ".join(names[1:]), now_s)
        case "policy":
            return PolicyChanged(POLICIES[names[0]], now_s)
        case "standing":
            used = table_of(options.get("used", ""))
            policy = story.state.law.policy
            assert policy is not None
            age_s = int(options.get("age", "0"))
            usage = by_node({one: hours * 3_600_000 << SCALE_BITS for one, hours in used.items()})
            standing = Standing(
                epoch=int(now_s) // 600,
                policy=policy,
                usage=usage,
                holdings=table_of(options.get("held", "")),
                donated={"gpu": int(options["donated"])} if "donated" in options else {},
                oldest_head_age_s=age_s,
                split=Split(0) if age_s > 900 else None,
                ledger_digest="books",
            )
            return StandingChanged(standing, now_s)
        case "clock":
            return ClockRead(int(names[0]), 0, now_s)
        case "egress":
            return EgressCounted(int(names[0]) * GB, 3600.0, now_s)
        case "tick":
            return Tick(now_s)
        case "restart":
            open_ones = (one for one in story.disk.values() if one.state is not LeaseState.ENDED)
            return Restored(tuple(open_ones), now_s)
    raise AssertionError(f"no event is called {verb!r}")


@dataclass(slots=True)
class Story:
    """What is known while a story is played; its names of leases stand for their ids."""

    state: State = field(default_factory=lambda: State(law=Law(site="uni-a")))
    disk: dict[str, Lease] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def name(self, offer_id: str, lease: str) -> None:
        """Take a name for the lease that an open offer becomes."""
        offer = self.state.book.offers.get(offer_id)
        if offer is not None:
            self.ids[lease] = lease_id_of(offer)

    def id_of(self, lease: str) -> str:
        """Return a lease's id; a name that the story gave to none is its own."""
        return self.ids.get(lease, lease)

    def named(self, line: str) -> str:
        """Return a line with names in place of ids."""
        for lease, lease_id in self.ids.items():
            line = line.replace(lease_id, lease)
        return line

    def line_of(self, effect: Effect) -> str:
        """An effect as people read it."""
        match effect:
            case Offered(offer):
                warm = "warm" if offer.warm else "cold"
                devices = " ".join(str(one) for one in offer.devices)
                text = f"offer {offer.id}: {devices}, {warm}, until {offer.expires_at_s:g}"
                if offer.victims:
                    text += f", once {' '.join(offer.victims)} has made room"
                return text
            case Queued(place):
                why = ", ".join(one.code for one in place.reasons)
                return f"place {place.position} of {place.waiting}: {why}"
            case Refuse(refused):
                final = "for good" if refused.terminal else "for now"
                return f"refuse {final}, {refused.code}: {refused.sentence}"
            case Granted(lease):
                waits = ", when its devices are free" if lease.state is LeaseState.WAITING else ""
                return f"grant {lease.id} until {lease.deadline_s:g}{waits}"
            case Save(lease):
                return f"save {lease.id}, {lease.state}{', not charged' if lease.refunded else ''}"
            case Start(lease):
                return f"start {lease.id} on {' '.join(str(one) for one in lease.devices)}"
            case Stop(node, lease_id, reason):
                return f"stop {lease_id} on {node}: {reason}"
            case Notice(lease, deadline_s, reason):
                return f"notice {lease.id}, over at {deadline_s:g}: {reason}"
            case Reprieve(lease):
                return f"reprieve {lease.id}"
            case Record(decision):
                return f"record {decision.kind} {decision.request_id}"
            case Ended(lease, reason):
                return f"end {lease.id}: {reason}"

    def why(self, request_id: str, site: str) -> Iterator[str]:
        """What a waiting request is told."""
        waiting = self.state.queue.get((site, request_id))
        assert waiting is not None, f"{request_id} of {site} does not wait"
        _, effects = step(self.state, OfferAsked(waiting.wish.request, "?", self.now_s))
        (queued,) = [one for one in effects if isinstance(one, Queued)]
        for reason in queued.place.reasons:
            yield f"         -- {reason.sentence()} To change it: {reason.change}."

    now_s: float = 0.0

    def play(self, text: str) -> Iterator[str]:
        """The lines of a story, with the effects that the rules give now."""
        for line in text.splitlines():
            if line.lstrip().startswith(("->", "--")):
                continue
            yield line
            if not line or line.startswith("#"):
                continue
            time_s, verb, *words = line.split()
            before_s, self.now_s = self.now_s, float(time_s)
            if verb == "why":
                yield from self.why(*words)
                continue
            if verb == "pass":
                yield from self.passing(before_s, self.now_s)
                continue
            if verb == "restart":
                self.state = State(law=Law(site="uni-a"))
            shown = self.do(event_of(verb, words, self.now_s, self))
            yield from (self.named(f"         -> {self.line_of(one)}") for one in shown)
            if not shown:
                yield "         -> nothing"

    def do(self, event: Event) -> list[Effect]:
        """Take a step; return its effects but for records of decisions."""
        self.state, effects = step(self.state, event)
        for effect in effects:
            if isinstance(effect, Save):
                self.disk[effect.lease.id] = effect.lease
        return [one for one in effects if not isinstance(one, Record)]

    def passing(self, from_s: float, to_s: float) -> Iterator[str]:
        """What happens while everybody goes on as before."""
        nothing = True
        for now_s in range(int(from_s) // 5 * 5 + 5, int(to_s) + 1, 5):
            for event in self.as_before(now_s):
                for one in self.do(event):
                    if isinstance(event, Renewed) or isinstance(one, Queued):
                        continue
                    nothing = False
                    yield self.named(f"         -> {now_s}: {self.line_of(one)}")
        if nothing:
            yield "         -> nothing"

    def as_before(self, now_s: int) -> Iterator[Event]:
        """What everybody does at a moment."""
        yield Tick(now_s)
        for lease_id in list(self.state.book.stopping):
            yield RunnerEnded(lease_id, "it was told to", now_s)
        for heard in list(self.state.fleet.nodes.values()):
            leases = self.state.book.leases.values()
            there = (one for one in leases if one.device.node == heard.report.node)
            running = tuple(one.id for one in there if one.state is not LeaseState.WAITING)
            yield NodeHeard(replace(heard.report, leases=running), now_s)
        if now_s % 20 == 0:
            for waiting in sorted(self.state.queue.line, key=lambda one: one.key):
                yield OfferAsked(waiting.wish.request, f"{waiting.id}-{now_s}", now_s)
        if now_s % 120 == 0:
            for lease in list(self.state.book.leases.values()):
                yield Renewed(lease.id, lease.request.borrower_site, now_s)


@pytest.mark.parametrize("story", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_the_story_is_what_the_rules_make_of_it(story: Path) -> None:
    """Every effect of every event is in the file, and nothing else."""
    text = story.read_text()
    assert list(Story().play(text)) == text.splitlines()


def test_there_are_stories() -> None:
    """A folder that has moved would make the test above empty."""
    assert len(list(FOLDER.glob("*.txt"))) >= 21
