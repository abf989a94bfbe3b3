"""First come, first served: what is given, each refusal by itself, in its order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.gateway.core.book import Book, Offer, Stopping
from agent.gateway.core.events import NodeHeard, OfferAsked, Offered, Queued, Refuse
from agent.gateway.core.fleet import Device, DeviceRef, NodeReport, Replica
from agent.gateway.core.leases import State, step
from agent.gateway.core.request import LeaseRequest
from agent.limits import NODE_SILENCE_S

IMAGE = "a" * 64
GB = 10**9
REQUEST = LeaseRequest(
    id="r1",
    borrower_site="uni-b",
    borrower_node="b1",
    model="uni-a/llama",
    image_id=IMAGE,
    total_bytes=16 * GB,
    account="/uni-b/nlp",
    purpose="teaching",
)
N1 = NodeReport(
    node="n1",
    address="n1:7400",
    devices=(Device("gpu0", "gpu", 80 * GB), Device("gpu1", "gpu", 40 * GB)),
    replicas=(Replica(IMAGE, whole=True),),
    leases=(),
    spares_ready=0,
    donating=True,
    transfer_bytes_per_s=0.0,
)
N2 = replace(N1, node="n2", address="n2:7400", replicas=(), devices=(Device("gpu0", "gpu", 24 * GB),))
GPU0 = DeviceRef("n1", "gpu0")


def ask(request: LeaseRequest, *reports: NodeReport, book: Book | None = None, now_s: float = 0.0) -> object:
    """The answer: device and whether warm, reasons of a place, or a refusal's code and whether for good."""
    state = State(book or Book())
    for report in reports:
        state, _ = step(state, NodeHeard(report, 0.0))
    _, effects = step(state, OfferAsked(request, "o9", now_s))
    (answer,) = [one for one in effects if isinstance(one, Offered | Queued | Refuse)]
    match answer:
        case Offered(offer):
            return offer.device, offer.warm
        case Queued(place):
            return tuple(one.code for one in place.reasons)
        case Refuse(refused):
            assert refused.sentence.endswith(".")
            assert refused.fix
            return refused.code, refused.terminal


IN_USE = ("waiting-for-capacity",)


def test_the_best_free_device_is_given() -> None:
    """The one whose node has the image, and says so; without it another one, cold."""
    assert ask(REQUEST, N2, N1) == (GPU0, True)
    assert ask(REQUEST, N2, replace(N1, replicas=())) == (GPU0, False)


@pytest.mark.parametrize("kind", ["offer", "stopping"])
def test_a_taken_device_is_not_given(kind: str) -> None:
    """What is offered, or not free of its last lease yet, is passed over for the next best."""
    book = Book(offers={"o1": Offer("o1", replace(REQUEST, id="r0"), (GPU0,), True, 30.0)})
    if kind == "stopping":
        book = Book(stopping={"l1": Stopping((GPU0,), 0.0)})
    assert ask(REQUEST, N1, book=book) == (DeviceRef("n1", "gpu1"), True)


def test_a_pinned_node_is_the_only_one_looked_at() -> None:
    """The request goes there though another one has the image, or is refused though another one is free."""
    pinned = replace(REQUEST, node="n2")
    assert ask(pinned, N1, N2) == (DeviceRef("n2", "gpu0"), False)
    assert ask(pinned, N1, replace(N2, donating=False)) == ("not-donating", False)
    assert ask(pinned, N1, replace(N2, devices=())) == ("no-device", False)


def test_a_node_that_nobody_knows_is_refused_for_good_and_a_silent_one_for_now() -> None:
    """A name that is wrong stays wrong; a node that is silent may come back."""
    pinned = replace(REQUEST, node="n9")
    assert ask(pinned, N1) == ("unknown-node", True)
    assert ask(replace(REQUEST, node="n1"), N1, now_s=NODE_SILENCE_S + 1) == ("unknown-node", False)


def test_silent_nodes_have_nothing_to_give() -> None:
    """A site whose nodes are all lost has no device, for now."""
    assert ask(REQUEST, N1, now_s=NODE_SILENCE_S + 1) == ("no-device", False)
    assert ask(REQUEST) == ("no-device", False)


def test_a_lease_has_the_devices_of_one_node() -> None:
    """No device is no lease; more than any node has are refused for good; else all are of one node."""
    assert ask(replace(REQUEST, devices=0), N1) == ("misconfigured", True)
    assert ask(replace(REQUEST, devices=3), N1, N2) == ("no-device", True)
    assert ask(replace(REQUEST, devices=2), N2, N1) == (GPU0, True)


def test_an_image_is_spread_over_the_devices_of_a_lease() -> None:
    """Each has its part of it: two of 40 GB hold 80 GB, and not more."""
    two = replace(N1, devices=tuple(Device(f"gpu{at}", "gpu", 40 * GB) for at in (0, 1)))
    assert ask(replace(REQUEST, devices=2, total_bytes=80 * GB), two) == (GPU0, True)
    assert ask(replace(REQUEST, devices=2, total_bytes=80 * GB + 1), two) == ("no-device", True)


def test_what_is_not_donated_is_not_given() -> None:
    """A node that does not donate keeps its devices, however free they are."""
    assert ask(REQUEST, replace(N1, donating=False)) == ("not-donating", False)
    assert ask(REQUEST, replace(N1, donating=False), N2) == (DeviceRef("n2", "gpu0"), False)


def test_an_image_that_fits_nowhere_is_refused_for_good() -> None:
    """The memory of each donated device is smaller, even of one that is taken."""
    assert ask(replace(REQUEST, total_bytes=80 * GB), N1) == (GPU0, True)
    assert ask(replace(REQUEST, total_bytes=80 * GB + 1), N1, N2) == ("too-large", True)


def test_all_in_use_passes() -> None:
    """A device that fits is there, but taken: the request has a place."""
    book = Book(stopping={"l1": Stopping((GPU0,), 0.0)})
    assert ask(replace(REQUEST, total_bytes=50 * GB), N1, N2, book=book) == IN_USE


def test_a_node_that_runs_something_unknown_is_left_alone() -> None:
    """Nobody here knows on which device it runs, so none is given; a known rest blocks only its own."""
    assert ask(REQUEST, replace(N1, leases=("l7",))) == IN_USE
    book = Book(stopping={"l7": Stopping((GPU0,), 0.0)})
    second = (DeviceRef("n1", "gpu1"), True)
    assert ask(REQUEST, replace(N1, leases=("l7",)), book=book) == second
