"""What crosses between agents: every value arrives, and what is hostile is refused or cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from agent.daemon.faces import LeaseOffer, OfferRequest, Order, Refusal, Wish
from agent.daemon.reports import (
    ClassCount,
    LeaseEnd,
    LeaseUse,
    Report,
    ReportedDevice,
    ReportedImage,
    SiteSummary,
)
from agent.errors import PeerNodeError
from agent.limits import (
    MAX_DEVICE_BYTES,
    MAX_DEVICES,
    MAX_ERROR_TEXT_BYTES,
    MAX_EVENT_PARTS,
    MAX_ID_CHARS,
    MAX_LEASE_TTL_S,
    MAX_NAME_CHARS,
    MAX_REASON_BYTES,
    MAX_REPORTED_IMAGES,
    MAX_REPORTED_NAMES,
)
from agent.local import federation_views, views
from agent.rpc import convert, convert_federation, convert_site
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.node import wish_from
from agent.rpc.peer_events import event_of_peer
from federation.errors import FederationError, FederationInputError
from federation.limits import MAX_IMAGE_BYTES
from pyrdma.errors import Error
from pyrdma.image.manifest import ImageId

IMAGE = ImageId(b"\xab" * 32)
ESCAPE = "\x1b[2J\r\n"
ORDER = Order("l1", "uni-b/m", IMAGE, 600.0, "uni-b/gpu01", ("cpu0", "cpu1"), 7.0, 11)
OFFER_REQUEST = OfferRequest(
    "r1",
    "m",
    IMAGE,
    7,
    1,
    "gpu01",
    "gpu02",
    account="/uni-b/lab",
    purpose="safety",
    instant=True,
    duration_s=60,
    asked_at_s=1_700_000_000,
    nonce="0a" * 16,
    signature=b"\x01" * 64,
)
OFFER = LeaseOffer("o1", 30.0, "gpu01", True, 10.0, 900.0, 3600.0, True, 12.5)
PLACE = views.PlaceView(2, 7, (views.ReasonView("lower-than", "others go first.", "wait"),), (1.5, 2.5))
REPORT = Report(
    "gpu01.uni-a.example:7443",
    (ReportedDevice("cpu0", "cpu", 5), ReportedDevice("cpu1", "cpu", 6)),
    (ReportedImage(IMAGE, 7, True, ("m", "uni-a/m")),),
    ("l1", "l2"),
    2,
    1.5,
    True,
    (LeaseEnd("l3", "why"), LeaseEnd("l4", "its owner needs it", for_owner=True)),
    (LeaseUse("l1", 5, 6),),
)
SUMMARY = SiteSummary("uni-b", "0.1.0", 4, 3, 2, 1, 1.5, (ClassCount("h100", 4, 3),), 700, 2.5e9, 6)
REGISTRY = federation_views.RegistryView("lab", "fresh", "all is well", 3, 1.5, 2.5)
FEDERATION = federation_views.FederationView(
    site="uni-a",
    trust_domain="uni-a.example",
    node="gpu01",
    role="node",
    gateway="gw",
    certificate_expires_at=9.5,
    registry=REGISTRY,
    sites=(
        federation_views.SiteView(
            name="uni-b",
            trust_domain="uni-b.example",
            local=True,
            state="ready",
            fault="none",
            age_s=0.5,
            address="gate.uni-b.example:7443",
            devices=4,
            leased=1,
            idle=3,
            nodes=2,
            images=5,
            transfer_bytes_per_s=1.5,
            egress_left_permille=700,
            carbon_g_per_kwh=312,
        ),
    ),
    nodes=(
        federation_views.NodeView(
            name="gpu01",
            address="10.0.0.1:7443",
            role="node",
            state="ready",
            age_s=0.25,
            devices=(federation_views.DeviceView("cpu0", "cpu", 5, "leased", "l1", "uni-b/gpu01"),),
            images=5,
            transfer_bytes_per_s=1.5,
        ),
    ),
    policy=federation_views.PolicyView(3, "ab12", 2, "it opted out", ((4, 5), (6, 7)), ("one", "two")),
)


def nothing_of(value: Any) -> list[str]:
    """Return the fields that have a default's value: one that is forgotten would not show."""
    return [one.name for one in fields(value) if getattr(value, one.name) in ("", 0, None, (), False)]


@pytest.mark.parametrize(
    ("value", "there", "back"),
    [
        (ORDER, convert_site.order_to, convert_site.order_from),
        (OFFER_REQUEST, lambda one: convert_site.offer_request_to(one, 5.0), convert_site.offer_request_from),
        (OFFER, convert_site.offer_reply_to, convert_site.offer_reply_from),
        (PLACE, convert_site.offer_reply_to, convert_site.offer_reply_from),
        (
            Refusal("busy", "no device.", "wait", True),
            convert_site.offer_reply_to,
            convert_site.offer_reply_from,
        ),
        (REPORT, convert_site.report_to, convert_site.report_from),
        (SUMMARY, convert_site.summary_to, convert_site.summary_from),
        (FEDERATION, convert_federation.federation_to, convert_federation.federation_from),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "__slots__") else "",
)
def test_a_value_between_agents_survives_the_wire(
    value: Any, there: Callable[[Any], Message], back: Callable[[Any], Any]
) -> None:
    """Every field arrives, through bytes."""
    assert nothing_of(value) == []
    message = there(value)
    assert back(type(message).FromString(message.SerializeToString())) == value


def test_what_is_absent_between_agents_stays_absent() -> None:
    """Never heard is not heard just now, and no time is not 1970."""
    site = replace(FEDERATION.sites[0], age_s=None)
    node = replace(FEDERATION.nodes[0], age_s=None)
    registry = replace(REGISTRY, refreshed_at=None, expires_at=None)
    view = replace(FEDERATION, certificate_expires_at=None, registry=registry, sites=(site,), nodes=(node,))
    assert convert_federation.federation_from(convert_federation.federation_to(view)) == view
    for left in (None, 0):
        said = replace(SUMMARY, egress_left_permille=left)
        assert convert_site.summary_from(convert_site.summary_to(said)) == said
    anywhere = replace(OFFER_REQUEST, node="")
    assert convert_site.offer_request_from(convert_site.offer_request_to(anywhere, 0.0)) == anywhere


def test_a_wish_is_checked_where_it_arrives() -> None:
    """A model's reference, and labels of a site and a node or nothing."""
    model = f"uni-b/m@{'ab' * 32}"
    asked = pb.RunRequest(model=model, site="uni-b", node="gpu01")
    assert wish_from(asked) == Wish(model, "uni-b", "gpu01")
    assert wish_from(pb.RunRequest(model="m")) == Wish("m")


BAD_IDS = ["", "a" * (MAX_ID_CHARS + 1), "a b", "../x", "l1\n", "ä", "²", ESCAPE]
BAD_NAMES = ["", "/m", "m/", "a/b/c", "-m", "m" * (MAX_NAME_CHARS + 1), "m" + ESCAPE, "ä", "m@x"]
BAD_LABELS = ["-a", "A", "a.b", "a" * 64, "a" + ESCAPE, "ä", "a/b"]
BAD_IMAGES = [b"", b"x" * 31, b"x" * 33]
BAD_TIMES = [math.nan, math.inf, -math.inf, -1.0, MAX_LEASE_TTL_S + 1]
BAD_ADDRESSES = ["", "gpu01", "gpu01:0", "unix:/run/x", "dns:///x:1", "a b:7443", "0.0.0.0:1", f"a{ESCAPE}:1"]


def messages(good: Message, **bad: list[Any]) -> list[Message]:
    """Return the message with one bad value at a time."""
    found = []
    for name, values in bad.items():
        for value in values:
            message = type(good)()
            message.CopyFrom(good)
            message.ClearField(name)
            if isinstance(value, (list, tuple)):
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)
            found.append(message)
    return found


@pytest.mark.parametrize(
    ("parse", "message"),
    [
        *(
            (convert_site.order_from, one)
            for one in messages(
                convert_site.order_to(ORDER),
                lease_id=BAD_IDS,
                model=BAD_NAMES,
                image_id=BAD_IMAGES,
                ttl_s=BAD_TIMES,
            )
        ),
        *(
            (convert_site.offer_request_from, one)
            for one in messages(
                convert_site.offer_request_to(OFFER_REQUEST, 0.0),
                request_id=BAD_IDS,
                model=BAD_NAMES,
                image_id=BAD_IMAGES,
                node=BAD_LABELS,
                borrower_node=["", *BAD_LABELS],
                total_bytes=[MAX_IMAGE_BYTES + 1, (1 << 64) - 1],
            )
        ),
        *(
            (convert_site.report_from, one)
            for one in messages(
                convert_site.report_to(REPORT),
                address=BAD_ADDRESSES,
                leases=[[one] for one in BAD_IDS],
                ended=[[pb.EndedLease(lease_id=one, reason="r")] for one in BAD_IDS],
                devices=[[pb.ReportedDevice(id="d")] * (MAX_DEVICES + 1)],
                images=[
                    [pb.ReportedImage(image_id=bytes(IMAGE))] * (MAX_REPORTED_IMAGES + 1),
                    *([pb.ReportedImage(image_id=one)] for one in BAD_IMAGES),
                    *([pb.ReportedImage(image_id=bytes(IMAGE), names=[one])] for one in BAD_NAMES),
                    [pb.ReportedImage(image_id=bytes(IMAGE), total_bytes=MAX_IMAGE_BYTES + 1)],
                ],
            )
        ),
        *(
            (wish_from, one)
            for one in messages(
                pb.RunRequest(model="m", site="uni-b", node="gpu01"),
                model=[*BAD_NAMES, f"m@{'ab' * 31}", f"m@{'zz' * 32}", "m" * 300 + "@" + "ab" * 32],
                site=BAD_LABELS,
                node=BAD_LABELS,
            )
        ),
        *(
            (convert_site.offer_reply_from, pb.OfferReply(offer=one))
            for one in messages(
                pb.LeaseOffer(offer_id="o1", ttl_s=30, node="gpu01"), offer_id=BAD_IDS, ttl_s=BAD_TIMES
            )
        ),
    ],
)
def test_a_hostile_message_is_refused(parse: Callable[[Any], Any], message: Message) -> None:
    """With an error that can be printed: nothing of what was sent moves a cursor."""
    with pytest.raises((Error, FederationError)) as caught:
        parse(message)
    assert isinstance(caught.value, Error | FederationInputError)
    assert caught.value.message.isprintable()


def test_texts_for_people_are_cut_and_escaped() -> None:
    """What a peer says is shown, stored and logged."""
    long = ESCAPE + "x" * (1 << 16)
    refusal = convert_site.offer_reply_from(
        pb.OfferReply(refusal=pb.Refusal(code=long, sentence=long, fix=long))
    )
    assert isinstance(refusal, Refusal)
    summary = convert_site.summary_from(pb.SiteSummary(site=long, version=long))
    order = convert_site.order_from(
        pb.StartRunnerRequest(lease_id="l1", model="m", image_id=bytes(IMAGE), borrower=long)
    )
    report = convert_site.report_from(
        pb.ReportRequest(
            address="a:1",
            devices=[pb.ReportedDevice(id=long, kind=long)],
            ended=[pb.EndedLease(lease_id="l1", reason=long)],
        )
    )
    device = report.devices[0]
    texts = {
        refusal.code: MAX_NAME_CHARS,
        refusal.sentence: MAX_ERROR_TEXT_BYTES,
        summary.site: MAX_NAME_CHARS,
        summary.version: 32,
        order.borrower: MAX_NAME_CHARS,
        device.id: MAX_ID_CHARS,
        device.kind: 16,
        report.ended[0].reason: MAX_REASON_BYTES,
    }
    for text, most in texts.items():
        assert text.isprintable()
        assert len(text.encode()) <= most


def test_lists_in_a_report_are_cut() -> None:
    """More names or leases than a node has say nothing."""
    many = [f"l{at}" for at in range(MAX_REPORTED_IMAGES + 5)]
    message = pb.ReportRequest(
        address="a:1",
        leases=many,
        ended=[pb.EndedLease(lease_id=one) for one in many],
        images=[pb.ReportedImage(image_id=bytes(IMAGE), names=many)],
    )
    report = convert_site.report_from(message)
    counts = len(report.leases), len(report.ended), len(report.images[0].names)
    assert counts == (MAX_REPORTED_IMAGES, MAX_REPORTED_IMAGES, MAX_REPORTED_NAMES)


def test_an_answer_that_says_nothing_is_a_refusal() -> None:
    """A donor of another version cannot be understood as one that offers."""
    refusal = convert_site.offer_reply_from(pb.OfferReply())
    assert refusal == Refusal("unknown", "it gives no reason.", "", False)


@pytest.mark.parametrize("rate", [math.nan, math.inf, -1.0])
def test_a_rate_that_is_no_number_is_none(rate: float) -> None:
    """Tables round it, and to round what is no number fails on every screen."""
    assert convert_site.summary_from(pb.SiteSummary(transfer_bytes_per_s=rate)).transfer_bytes_per_s == 0.0
    message = pb.ReportRequest(address="a:1", transfer_bytes_per_s=rate)
    assert convert_site.report_from(message).transfer_bytes_per_s == 0.0


def test_a_device_s_memory_stays_a_figure() -> None:
    """SQLite keeps no integer above 2^63, and a plan needs none."""
    message = pb.ReportRequest(address="a:1", devices=[pb.ReportedDevice(id="d", memory_bytes=(1 << 64) - 1)])
    assert convert_site.report_from(message).devices[0].memory_bytes == MAX_DEVICE_BYTES


# --- what another agent tells of a start ------------------------------------------------------------------

SOURCE = views.SourceView("uni-b/gpu01", "tcp", 10, "dropped", "sent a wrong byte")
LEASE = views.LeaseView("l1", "m", IMAGE.hex(), "active", 1.5, None, "r", 4000, 7, "uni-b/n", "uni-a/n")
START = views.StartView("tcp", 20, 0.25, 0.125, 0.5, True, (views.PhaseView("map", 0.25),), (SOURCE,))
EVENTS: list[views.RunEvent] = [
    views.NoteView("n"),
    views.ProgressView(10, 20, "tcp", (SOURCE,)),
    views.PhaseView("map", 0.5),
    views.AcceptedView("l1", 600.0, "uni-b", "gpu01"),
    views.GrantedView(LEASE, "http://e", "key", START),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_honest_event_of_a_peer_arrives_as_it_was(event: views.RunEvent) -> None:
    """The checks change nothing that means something."""
    assert event_of_peer(convert.run_event_to(event), "uni-b") == event


@pytest.mark.parametrize(
    "event",
    [
        pb.RunEvent(accepted=pb.Accepted(lease_id="../l", ttl_s=600)),
        pb.RunEvent(accepted=pb.Accepted(lease_id="l1", ttl_s=math.nan)),
        pb.RunEvent(accepted=pb.Accepted(lease_id="l1", ttl_s=-1)),
        pb.RunEvent(granted=pb.Granted()),
        pb.RunEvent(granted=pb.Granted(lease=pb.Lease(id="l1", image_id=b"short"))),
        pb.RunEvent(granted=pb.Granted(lease=pb.Lease(id=ESCAPE, image_id=bytes(IMAGE)))),
        pb.RunEvent(progress=pb.Progress(total_bytes=(1 << 64) - 1)),
    ],
)
def test_an_event_that_cannot_be_used_is_the_peers_fault(event: pb.RunEvent) -> None:
    """The start fails with a sentence that names the peer."""
    with pytest.raises(PeerNodeError, match="the peer uni-b tells of a start outside the protocol"):
        event_of_peer(event, "uni-b")


def texts_of(value: Any) -> list[str]:
    """Return every text in a value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, tuple):
        return [text for one in value for text in texts_of(one)]
    return (
        [text for one in fields(value) for text in texts_of(getattr(value, one.name))]
        if hasattr(value, "__dataclass_fields__")
        else []
    )


def test_texts_in_a_peer_s_events_are_cut_and_escaped() -> None:
    """A donor writes on the terminal of whoever borrows from it."""
    long = ESCAPE + "x" * (1 << 16)
    source = pb.Source(name=long, lane=long, state=long, reason=long)
    start = pb.Start(lane=long, pull_s=math.nan, phases=[pb.Phase(name=long)] * 1000, sources=[source] * 1000)
    lease = pb.Lease(id="l1", image_id=bytes(IMAGE), model=long, state=long, reason=long, donor=long)
    for message in (
        pb.RunEvent(note=long),
        pb.RunEvent(phase=pb.Phase(name=long, seconds=math.inf)),
        pb.RunEvent(progress=pb.Progress(lane=long, sources=[source] * 1000)),
        pb.RunEvent(accepted=pb.Accepted(lease_id="l1", ttl_s=60, site=long, node=long)),
        pb.RunEvent(granted=pb.Granted(lease=lease, endpoint=long, api_key=long, start=start)),
    ):
        event = event_of_peer(message, "uni-b")
        found = texts_of(event)
        assert 0 < len(found) <= 5 * MAX_EVENT_PARTS + 20
        assert all(text.isprintable() and len(text.encode()) <= MAX_ERROR_TEXT_BYTES for text in found)
        assert "nan" not in repr(event)
        assert "inf" not in repr(event)


def test_a_kind_of_event_from_the_future_is_passed_over() -> None:
    """Sites are upgraded one after the other."""
    assert event_of_peer(pb.RunEvent(), "uni-b") is None


# --- anything at all --------------------------------------------------------------------------------------

PARSERS: dict[type[Message], Callable[[Any], Any]] = {
    pb.StartRunnerRequest: convert_site.order_from,
    pb.AskOfferRequest: convert_site.offer_request_from,
    pb.ReportRequest: convert_site.report_from,
    pb.RunRequest: wish_from,
    pb.OfferReply: convert_site.offer_reply_from,
    pb.SiteSummary: convert_site.summary_from,
    pb.RunEvent: lambda message: event_of_peer(message, "p"),
    pb.Federation: convert_federation.federation_from,
    pb.RenewLeaseRequest: lambda message: convert_site.check_id(message.lease_id),
}
GOOD: dict[type[Message], bytes] = {
    pb.StartRunnerRequest: convert_site.order_to(ORDER).SerializeToString(),
    pb.AskOfferRequest: convert_site.offer_request_to(OFFER_REQUEST, 0.0).SerializeToString(),
    pb.ReportRequest: convert_site.report_to(REPORT).SerializeToString(),
    pb.RunRequest: pb.RunRequest(model="m", site="s", node="n").SerializeToString(),
    pb.OfferReply: convert_site.offer_reply_to(LeaseOffer("o", 3.0, "n", True)).SerializeToString(),
    pb.SiteSummary: convert_site.summary_to(SUMMARY).SerializeToString(),
    pb.RunEvent: convert.run_event_to(EVENTS[-1]).SerializeToString(),
    pb.Federation: convert_federation.federation_to(FEDERATION).SerializeToString(),
    pb.RenewLeaseRequest: pb.RenewLeaseRequest(lease_id="l1").SerializeToString(),
}


@pytest.mark.parametrize("kind", PARSERS, ids=lambda kind: kind.DESCRIPTOR.name)
@given(junk=st.binary(max_size=200), at=st.integers(0, 400), cut=st.integers(0, 40), whole=st.booleans())
def test_any_bytes_are_a_value_or_an_error_of_ours(
    kind: type[Message], junk: bytes, at: int, cut: int, whole: bool
) -> None:
    """Random bytes, and honest messages with a part replaced by them."""
    good = GOOD[kind]
    at %= len(good) + 1
    data = junk if whole else good[:at] + junk + good[at + cut :]
    with suppress(DecodeError, Error, FederationError):
        PARSERS[kind](kind.FromString(data))
