"""Stories of a donor's book as text: events in, what it orders out.

A line that begins with a time is an event; the lines with an arrow below it are the effects, in order. The
folder ``gateway`` is to be read as documentation. Each file must be what the rules make of it, to the letter.

::

    TIME heard NODE DEVICE:GB... [image=A] [leases=L1,L2] [spares=N] [donating=no]
    TIME ask OFFER REQUEST SITE [size=GB] [image=A] [node=NODE] [devices=N]
    TIME commit OFFER LEASE SITE      TIME renew LEASE SITE      TIME release LEASE SITE WHY
    TIME started LEASE      TIME failed LEASE WHY      TIME gone LEASE WHY
    TIME reclaim NODE[/DEVICE] WHY      TIME tick      TIME restart
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.gateway.book import Lease, LeaseState
from agent.gateway.events import (
    Effect,
    Ended,
    Event,
    Granted,
    NodeHeard,
    OfferAsked,
    OfferCommitted,
    Offered,
    Reclaimed,
    Refuse,
    Released,
    Renewed,
    Restored,
    RunnerEnded,
    Save,
    Start,
    Started,
    StartFailed,
    Stop,
    Tick,
)
from agent.gateway.fleet import Device, NodeReport, Replica
from agent.gateway.leases import State, step
from agent.gateway.request import LeaseRequest

FOLDER = Path(__file__).parent / "gateway"
GB = 10**9


def event_of(verb: str, words: list[str], now_s: float, disk: dict[str, Lease]) -> Event:
    """The event that a line names."""
    options = dict(word.split("=", 1) for word in words if "=" in word)
    names = [word for word in words if "=" not in word]
    match verb:
        case "heard":
            node, *devices = names
            report = NodeReport(
                node=node,
                address=f"{node}:7400",
                devices=tuple(
                    Device(name, "gpu", int(size) * GB) for name, size in (one.split(":") for one in devices)
                ),
                replicas=(Replica(options["image"] * 64, whole=True),) if "image" in options else (),
                leases=tuple(options["leases"].split(",")) if "leases" in options else (),
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
                account=f"/{site}",
                purpose="teaching",
            )
            return OfferAsked(request, offer_id, now_s)
        case "commit":
            return OfferCommitted(*names, now_s)
        case "renew":
            return Renewed(*names, now_s)
        case "release":
            return Released(names[0], names[1], " ".join(names[2:]), now_s)
        case "started":
            return Started(*names, now_s)
        case "failed":
            return StartFailed(names[0], " ".join(names[1:]), now_s)
        case "gone":
            return RunnerEnded(names[0], " ".join(names[1:]), now_s)
        case "reclaim":
            node, _, device = names[0].partition("/")
            return Reclaimed(node, device or None, " ".join(names[1:]), now_s)
        case "tick":
            return Tick(now_s)
        case "restart":
            return Restored(tuple(one for one in disk.values() if one.state is not LeaseState.ENDED), now_s)
    raise AssertionError(f"no event is called {verb!r}")


def line_of(effect: Effect) -> str:
    """An effect as people read it."""
    match effect:
        case Offered(offer):
            warm = "warm" if offer.warm else "cold"
            return f"offer {offer.id}: {offer.device}, {warm}, until {offer.expires_at_s:g}"
        case Refuse(refused):
            return (
                f"refuse {'for good' if refused.terminal else 'for now'}, {refused.code}: {refused.sentence}"
            )
        case Granted(lease):
            return f"grant {lease.id} until {lease.deadline_s:g}"
        case Save(lease):
            return f"save {lease.id}, {lease.state}"
        case Start(lease):
            return f"start {lease.id} on {lease.device}"
        case Stop(node, lease_id, reason):
            return f"stop {lease_id} on {node}: {reason}"
        case Ended(lease, reason):
            return f"end {lease.id}: {reason}"


def play(text: str) -> Iterator[str]:
    """The lines of a story, with the effects that the rules give now."""
    state, disk = State(), dict[str, Lease]()
    for line in text.splitlines():
        if line.lstrip().startswith("->"):
            continue
        yield line
        if not line or line.startswith("#"):
            continue
        time_s, verb, *words = line.split()
        if verb == "restart":
            state = State()
        state, effects = step(state, event_of(verb, words, float(time_s), disk))
        for effect in effects:
            if isinstance(effect, Save):
                disk[effect.lease.id] = effect.lease
            yield f"         -> {line_of(effect)}"
        if not effects:
            yield "         -> nothing"


@pytest.mark.parametrize("story", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_the_story_is_what_the_rules_make_of_it(story: Path) -> None:
    """Every effect of every event is in the file, and nothing else."""
    text = story.read_text()
    assert list(play(text)) == text.splitlines()


def test_there_are_stories() -> None:
    """A folder that has moved would make the test above empty."""
    assert len(list(FOLDER.glob("*.txt"))) >= 8
