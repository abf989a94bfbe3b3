"""Calls between agents over real mutual TLS on loopback: who gets in, who is refused, what that leaves."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.descriptor import MethodDescriptor
from grpc import aio

from agent.daemon.faces import (
    Emit,
    Heed,
    LeaseOffer,
    OfferRequest,
    Order,
    Refusal,
    Report,
    SiteSummary,
    Wish,
    unheeded,
)
from agent.daemon.lending import NothingLent
from agent.daemon.pipes import Pipe
from agent.errors import PeerNodeError, SocketInUseError, UnknownLeaseError
from agent.limits import MAX_CHANNELS, MAX_GRPC_MESSAGE_BYTES, MAX_START_EVENTS, REFUSALS_LOGGED
from agent.local.people_views import UsageView
from agent.local.queue_views import QueueView, ReclaimsView, TermsView
from agent.local.views import FederationView, GrantedView, LeaseView, PlaceView, RegistryView, StartView
from agent.rpc import convert_site
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import detailed_error
from agent.rpc.identity import IdentityInterceptor
from agent.rpc.leasing import HostClient, SiteClient
from agent.rpc.network import Channels, bind_network, network_server
from agent.rpc.node import NodeService
from agent.rpc.pyrdma_pb2_grpc import (
    NodeStub,
    SiteServicer,
    SiteStub,
    add_NodeServicer_to_server,
    add_SiteServicer_to_server,
)
from agent.rpc.site import SiteService
from agent.site.home import SiteConfig, SiteHome
from agent.site.keyring import Credentials, Keyring
from agent.site.trust import Target, Trust
from federation.errors import IdentityError
from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.keys import key_from_pem, key_to_pem, new_key
from federation.identity.names import NodeIdentity
from federation.identity.shape import LEAF_CONSTRAINTS, LEAF_USAGE, NODE_PURPOSES
from federation.registry.documents import GatewayAddress, SiteDocument
from federation.registry.membership import Membership
from pyrdma.image.manifest import ImageId

pytestmark = pytest.mark.asyncio

IMAGE = ImageId(b"\xab" * 32)
LEASE = LeaseView("l1", "m", IMAGE.hex(), "active", 1.0, None, "", None, None)
GRANTED = GrantedView(LEASE, "", "key", StartView("tcp", 1, 0.1, 0.1, 0.1, True, (), ()))
SERVICES = pb.DESCRIPTOR.services_by_name
METHODS: list[MethodDescriptor] = [method for name in ("Node", "Site") for method in SERVICES[name].methods]
ORDERS = ("StartRunner", "StopRunner", "NoticeRunner", "WithdrawNotice")
SUMMARY = SiteSummary("uni-a", "1", 1, 0, 1, 0, 0.0)


class Face:
    """What a gateway's both faces would do, done at once; notes each call that reached it."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.ends = asyncio.Event()

    def summary(self) -> SiteSummary:
        self.called.append("summary")
        return SUMMARY

    async def ask_offer(
        self, request: OfferRequest, who: NodeIdentity, wait_s: float
    ) -> LeaseOffer | PlaceView | Refusal:
        self.called.append(f"ask_offer by {who.dns}")
        return LeaseOffer("o1", 30.0, "gpu01", True)

    async def commit(self, offer_id: str, who: NodeIdentity, emit: Emit) -> GrantedView:
        self.called.append("commit")
        return GRANTED

    async def renew(self, lease_id: str, who: NodeIdentity) -> float:
        self.called.append("renew")
        return 60.0

    async def release(self, lease_id: str, reason: str, who: NodeIdentity) -> str:
        self.called.append("release")
        return reason

    async def attend(self, lease_id: str, who: NodeIdentity, heed: Heed = unheeded) -> str:
        self.called.append("attend")
        await self.ends.wait()
        return "it is over"

    async def connect(self, lease_id: str, who: NodeIdentity) -> Pipe:
        self.called.append("connect")
        raise UnknownLeaseError("no such lease.")

    async def report(self, report: Report, who: NodeIdentity) -> dict[str, float]:
        self.called.append(f"report by {who.dns}")
        return {}

    async def renew_certificate(self, csr: bytes, who: NodeIdentity) -> bytes:
        self.called.append("renew_certificate")
        return b""

    async def leave(self, who: NodeIdentity) -> None:
        self.called.append("leave")

    async def federation(self) -> FederationView:
        self.called.append("federation")
        registry = RegistryView("", "none", "", 0, None, None)
        return FederationView("uni-a", "uni-a.example", "gw", "gateway", "gw", None, registry, (), ())

    async def queue(self) -> QueueView:
        self.called.append("queue")
        terms = TermsView(10.0, 5.0, 900.0, 86400.0, ("*",), ())
        return QueueView(
            "uni-a", "", 0, "", None, False, (), (), (), (), ReclaimsView(0, None, None), (), terms
        )

    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        self.called.append("usage")
        return UsageView((), "receipts")

    async def borrow(self, wish: Wish, who: NodeIdentity, emit: Emit) -> GrantedView:
        self.called.append("borrow")
        return GRANTED

    async def start_runner(self, order: Order, emit: Emit) -> GrantedView:
        self.called.append("start_runner")
        return GRANTED

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        self.called.append("stop_runner")

    async def notice_runner(self, lease_id: str, left_s: float, reason: str) -> None:
        self.called.append(f"notice {lease_id}: {reason}, in {left_s:g} s")

    async def withdraw_notice(self, lease_id: str) -> None:
        self.called.append(f"no notice {lease_id}")


def entry(authority: SiteAuthority, site: str, gateway: str) -> SiteDocument:
    """Return a site's entry in the registry."""
    key = Ed25519PrivateKey.generate().public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    domain = authority.trust_domain
    gateways = (GatewayAddress(gateway, f"{gateway}.{domain}:7443"),)
    return SiteDocument(site, domain, (authority.certificate_pem.decode(),), gateways, pem, "")


def membership(*sites: SiteDocument) -> Membership:
    """Return a registry with these sites."""
    return Membership("lab", 1, time.time(), time.time() + 3600, sites, {}, {})


@dataclass
class World:
    """The gateway of uni-a with real files, keys and port; uni-b is a member, uni-c is none."""

    folder: Path
    face: Face = field(default_factory=Face)
    members: set[str] = field(default_factory=lambda: {"gpu01"})
    port: int = 0
    opened: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        now_s = time.time()
        config = SiteConfig(
            site="uni-a",
            trust_domain="uni-a.example",
            node="gw",
            role="gateway",
            address="127.0.0.1:7443",
            listen="127.0.0.1:7443",
            gateway_node="gw",
            gateway_address="127.0.0.1:7443",
            join_address="127.0.0.1:7444",
            join_listen="127.0.0.1:7444",
        )
        self.home = SiteHome(self.folder / "site")
        self.home.create_gateway(config, now_s=now_s)
        self.cas = {one: SiteAuthority.create(f"{one}.example", now_s=now_s) for one in ("uni-b", "uni-c")}
        self.cas["uni-a"] = self.home.site_authority()
        self.entries = [entry(self.cas["uni-a"], "uni-a", "gw"), entry(self.cas["uni-b"], "uni-b", "gate")]
        self.trust = Trust(config, self.home.authority_pem, self.members.__contains__)
        self.trust.learn(membership(*self.entries))
        self.keyring = Keyring(self.home, self.trust)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def credentials(self, site: str, node: str) -> Credentials:
        """Return what a node of a site shows, and what it believes."""
        key, identity, authority = new_key(), NodeIdentity(f"{site}.example", node), self.cas[site]
        pem = authority.issue(make_csr(key, identity), identity, now_s=time.time())
        return Credentials(key_to_pem(key), pem, authority.certificate_pem)

    def target(self) -> Target:
        """Return this gateway as others dial it."""
        return Target(self.address, NodeIdentity("uni-a.example", "gw"), self.cas["uni-a"].certificate_pem)

    def dial(self, site: str, node: str) -> aio.Channel:
        """Return a channel of ours from a node to this gateway."""
        shown = self.credentials(site, node)
        channels = Channels(lambda: shown)
        self.opened.append(channels)
        return channels.to(self.target())

    def dial_raw(self, key: bytes | None, certificate: bytes | None) -> aio.Channel:
        """Return a channel without limits that shows this."""
        credentials = grpc.ssl_channel_credentials(self.cas["uni-a"].certificate_pem, key, certificate)
        options = [
            ("grpc.ssl_target_name_override", "gw.uni-a.example"),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
        ]
        self.opened.append(made := aio.secure_channel(self.address, credentials, options=options))
        return made

    def served_certificate(self, certificate: bytes, key: bytes) -> bytes:
        """Return the certificate that a new connection is shown, DER."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.cas["uni-a"].certificate_pem.decode())
        pair = self.folder / "pair.pem"
        pair.write_bytes(key + certificate)
        context.load_cert_chain(pair)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="gw.uni-a.example") as secure,
        ):
            return secure.getpeercert(binary_form=True) or b""


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[World]:
    """The world with its server up."""
    world = World(folder)
    server = network_server(IdentityInterceptor(world.trust.admit))
    lends = NothingLent("gw")
    add_NodeServicer_to_server(NodeService(lends, world.face), server)  # type: ignore[no-untyped-call]
    add_SiteServicer_to_server(SiteService(lends, world.face), server)  # type: ignore[no-untyped-call]
    world.port = bind_network(server, "127.0.0.1:0", world.keyring.current)
    await server.start()
    try:
        async with asyncio.timeout(150):
            yield world
    finally:
        for one in world.opened:
            await one.close()
        await server.stop(None)


async def answer(channel: aio.Channel, method: MethodDescriptor, data: bytes = b"") -> Any:
    """Call a method with raw bytes, whatever its shape; return its answers' bytes."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.client_streaming:
        call = channel.stream_stream(path)(timeout=20)
        with suppress(asyncio.InvalidStateError):  # it may be refused before anything is sent
            await call.write(data)
            await call.done_writing()
        return [one async for one in call]
    if method.server_streaming:
        return [one async for one in channel.unary_stream(path)(data, timeout=20)]
    return [await channel.unary_unary(path)(data, timeout=20)]


async def refusal(channel: aio.Channel, method: MethodDescriptor, data: bytes = b"") -> aio.AioRpcError:
    """Call a method and return the status that it ends with."""
    with pytest.raises(aio.AioRpcError) as caught:
        await answer(channel, method, data)
    return caught.value


def worries(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged as a fault; gRPC's own goodbye to the loop of the test before is none."""
    found = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    return [one for one in found if "PollerCompletionQueue" not in one]


REPORT = SERVICES["Node"].methods_by_name["Report"]
DESCRIBE = SERVICES["Site"].methods_by_name["DescribeSite"]
GOOD_REPORT = convert_site.report_to(Report("127.0.0.1:1", (), (), (), 0, 0.0, False)).SerializeToString()


async def test_each_caller_has_its_own_service(tmp_path: Path) -> None:
    """A node of the site the Node service, another site's gateway the Site service; it is known which one."""
    async with serving(tmp_path) as world:
        own, other = world.dial("uni-a", "gpu01"), world.dial("uni-b", "gate")
        await answer(own, REPORT, GOOD_REPORT)
        assert world.face.called == ["report by gpu01.uni-a.example"]
        message = pb.AskOfferRequest(
            request_id="r", model="m", image_id=bytes(IMAGE), devices=1, borrower_node="n"
        )
        await SiteStub(other).AskOffer(message, timeout=20)  # type: ignore[no-untyped-call]
        assert world.face.called[1:] == ["ask_offer by gate.uni-b.example"]
        assert (await refusal(own, DESCRIBE)).code() is grpc.StatusCode.PERMISSION_DENIED
        assert (await refusal(other, REPORT)).code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("method", METHODS, ids=lambda one: f"{one.containing_service.name}.{one.name}")
async def test_every_method_refuses_whoever_has_no_right_to_it(
    tmp_path: Path, method: MethodDescriptor
) -> None:
    """Taken from the protocol itself, so that a new method cannot be forgotten; nothing reaches the face."""
    wrong = {
        "Node": [("uni-a", "left"), ("uni-b", "gate"), ("uni-b", "gpu01")],
        "Site": [("uni-a", "gw"), ("uni-a", "gpu01"), ("uni-b", "gpu01")],
    }[method.containing_service.name]
    if method.name in ORDERS:
        wrong.append(("uni-a", "gpu01"))
    async with serving(tmp_path) as world:
        for caller in wrong:
            # Bytes that no message begins with: they are not even looked at.
            error = await refusal(world.dial(*caller), method, b"\xff\xff\xff")
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED, caller
            assert isinstance(detailed_error(error), IdentityError)
        assert world.face.called == []


async def test_a_gateway_tells_a_node_of_a_notice_and_withdraws_it(tmp_path: Path) -> None:
    """Over the network, as it is said."""
    async with serving(tmp_path) as world:
        channel = world.dial("uni-a", "gw")
        node = HostClient("gpu01", lambda: NodeStub(channel))  # type: ignore[no-untyped-call]
        await node.notice_runner("00112233aabbccdd", 5.0, "uni-c goes first")
        await node.withdraw_notice("00112233aabbccdd")
        assert world.face.called == [
            "notice 00112233aabbccdd: uni-c goes first, in 5 s",
            "no notice 00112233aabbccdd",
        ]


async def test_methods_that_only_this_machine_may_call_are_not_there(tmp_path: Path) -> None:
    """The Operator and Enrolment services have other doors."""
    async with serving(tmp_path) as world:
        own = world.dial("uni-a", "gw")
        for name in ("Operator", "Enrolment"):
            for method in SERVICES[name].methods:
                assert (await refusal(own, method)).code() is grpc.StatusCode.UNIMPLEMENTED


def pair_of(world: World, kind: str) -> tuple[bytes | None, bytes | None]:
    """Return a key and a certificate that prove nothing here."""
    if kind == "none":
        return None, None
    if kind == "of a site that is no member":
        shown = world.credentials("uni-c", "gw")
        return shown.key, shown.certificate
    if kind == "of a CA that only has our name":
        key, identity = new_key(), NodeIdentity("uni-a.example", "gpu01")
        evil = SiteAuthority.create("uni-a.example", now_s=time.time())
        return key_to_pem(key), evil.issue(make_csr(key, identity), identity, now_s=time.time())
    key = new_key()
    if kind == "self-signed":
        return key_to_pem(key), forged(world, "uni-b", "gate.uni-b.example", "uni-b", key=key, signer=key)
    dns, domain = {
        "forged URI": ("gate.uni-b.example", "uni-a"),
        "forged DNS": ("gw.uni-a.example", "uni-b"),
        "forged names": ("gw.uni-a.example", "uni-a"),
    }[kind]
    return key_to_pem(key), forged(world, "uni-b", dns, domain, key=key)


def forged(world: World, by: str, dns: str, domain: str, *, key: Any, signer: Any = None) -> bytes:
    """Return a certificate of any names, as the CA of a site can make it against its own rules."""
    authority = world.cas[by]
    signing = signer or key_from_pem(authority.key_pem)
    node = "gw" if domain == "uni-a" else "gate"
    names = [x509.DNSName(dns), x509.UniformResourceIdentifier(f"spiffe://{domain}.example/node/{node}")]
    like = x509.load_pem_x509_certificate(world.credentials(by, "gate").certificate)
    draft = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(LEAF_CONSTRAINTS, critical=True)
        .add_extension(LEAF_USAGE, critical=True)
        .add_extension(NODE_PURPOSES, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False
        )
    )
    return draft.sign(signing, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "kind",
    [
        "none",
        "self-signed",
        "of a site that is no member",
        "of a CA that only has our name",
        "forged URI",
        "forged DNS",
        "forged names",
    ],
)
async def test_a_certificate_that_proves_nothing_ends_the_handshake(tmp_path: Path, kind: str) -> None:
    """No call comes through, and nothing of ours is told."""
    async with serving(tmp_path) as world:
        channel = world.dial_raw(*pair_of(world, kind))
        for method in (REPORT, DESCRIBE):
            error = await refusal(channel, method)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert detailed_error(error) is None
        assert world.face.called == []


async def test_names_that_pass_the_handshake_are_still_those_of_one_node(tmp_path: Path) -> None:
    """A CA may sign any DNS name below its own; one that is not the node's own is refused at the call."""
    async with serving(tmp_path) as world:
        key = new_key()
        pem = forged(world, "uni-b", "gw.sub.uni-b.example", "uni-b", key=key)
        error = await refusal(world.dial_raw(key_to_pem(key), pem), DESCRIBE)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert isinstance(said := detailed_error(error), IdentityError)
        assert "not of one node" in said.message


async def test_a_server_that_is_not_the_one_dialled_hears_nothing(tmp_path: Path) -> None:
    """Another node's name, or another site's CA: the channel does not come up."""
    async with serving(tmp_path) as world:
        for shown, wrong in (
            (world.credentials("uni-a", "gpu01"), NodeIdentity("uni-a.example", "gw2")),
            (world.credentials("uni-b", "gate"), NodeIdentity("uni-b.example", "gw")),
        ):
            channels = Channels(lambda shown=shown: shown)  # type: ignore[misc]
            for target in (
                replace(world.target(), identity=wrong),
                replace(world.target(), authority=world.cas["uni-b"].certificate_pem),
                replace(world.target(), authority=b"-----BEGIN CERTIFICATE-----\nno\n"),
            ):
                error = await refusal(channels.to(target), DESCRIBE)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
            await channels.close()
        assert world.face.called == []


async def test_a_site_that_left_is_refused_on_the_connection_that_it_has(tmp_path: Path) -> None:
    """By the next call; a new connection of it does not come up at all, since its CA is gone."""
    async with serving(tmp_path) as world:
        channel = world.dial("uni-b", "gate")
        await answer(channel, DESCRIBE)
        world.trust.learn(membership(world.entries[0]))
        error = await refusal(channel, DESCRIBE)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        fresh = await refusal(world.dial("uni-b", "gate"), DESCRIBE)
        assert fresh.code() is grpc.StatusCode.UNAVAILABLE
        world.trust.learn(membership(*world.entries))
        await answer(channel, DESCRIBE)
        assert world.face.called == ["summary", "summary"]


async def test_a_node_that_left_is_refused_on_the_connection_that_it_has(tmp_path: Path) -> None:
    """Its certificate lives on, and counts for nothing at the gateway."""
    async with serving(tmp_path) as world:
        channel = world.dial("uni-a", "gpu01")
        await answer(channel, REPORT, GOOD_REPORT)
        world.members.clear()
        assert (await refusal(channel, REPORT, GOOD_REPORT)).code() is grpc.StatusCode.PERMISSION_DENIED


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_renewed_certificate_is_shown_to_new_connections_and_cuts_none(tmp_path: Path) -> None:
    """The server keeps its port, its calls and its connections."""
    async with serving(tmp_path) as world:
        shown = world.credentials("uni-a", "gpu01")
        before = await asyncio.to_thread(world.served_certificate, shown.certificate, shown.key)
        assert before == x509.load_pem_x509_certificate(world.home.certificate_pem).public_bytes(Encoding.DER)
        channel = world.dial("uni-a", "gpu01")
        attended = NodeStub(channel).AttendLease(  # type: ignore[no-untyped-call]
            pb.AttendLeaseRequest(lease_id="l1"), timeout=60
        )
        await until(lambda: "attend" in world.face.called)
        identity, key = NodeIdentity("uni-a.example", "gw"), key_from_pem(world.home.node_key_pem)
        renewed = world.cas["uni-a"].issue(make_csr(key, identity), identity, now_s=time.time())
        world.keyring.replace(renewed)
        after = await asyncio.to_thread(world.served_certificate, shown.certificate, shown.key)
        assert after == x509.load_pem_x509_certificate(renewed).public_bytes(Encoding.DER) != before
        world.face.ends.set()
        assert [news.reason async for news in attended] == ["it is over"]
        await answer(channel, REPORT, GOOD_REPORT)


async def test_a_certificate_of_somebody_else_is_not_taken_over(tmp_path: Path) -> None:
    """What is shown stays what it was."""
    async with serving(tmp_path) as world:
        before = world.keyring.current()
        with pytest.raises(IdentityError):
            world.keyring.replace(world.credentials("uni-a", "gpu01").certificate)
        assert world.keyring.current() == before
        assert world.home.certificate_pem == before.certificate


async def test_a_new_certificate_gets_a_new_channel_and_calls_under_way_go_on(tmp_path: Path) -> None:
    """The asker's side of a renewal: what was begun with the old one ends in its own time."""
    async with serving(tmp_path) as world:
        shown = [world.credentials("uni-a", "gpu01")]
        channels = Channels(lambda: shown[0])
        world.opened.append(channels)
        old = channels.to(world.target())
        assert channels.to(world.target()) is old
        attended = NodeStub(old).AttendLease(  # type: ignore[no-untyped-call]
            pb.AttendLeaseRequest(lease_id="l1"), timeout=60
        )
        waiting = asyncio.create_task(attended.read())
        await until(lambda: "attend" in world.face.called)
        shown[0] = world.credentials("uni-a", "gpu01")
        new = channels.to(world.target())
        assert new is not old
        await answer(new, REPORT, GOOD_REPORT)
        assert not waiting.done()
        world.face.ends.set()
        assert (await waiting).reason == "it is over"


async def test_there_are_so_many_channels_and_no_more(tmp_path: Path) -> None:
    """A large registry does not take every descriptor; the longest unused one is made anew."""
    world = World(tmp_path)
    shown = world.credentials("uni-a", "gpu01")
    channels = Channels(lambda: shown)
    targets = [replace(world.target(), address=f"127.0.0.1:{1000 + at}") for at in range(MAX_CHANNELS + 1)]
    first = channels.to(targets[0])
    second = channels.to(targets[1])
    for target in targets[2:-1]:
        channels.to(target)
    assert channels.to(targets[0]) is first  # and so the second is the longest unused one
    channels.to(targets[-1])
    assert channels.to(targets[0]) is first
    assert channels.to(targets[1]) is not second
    await channels.close()


async def test_a_port_in_use_is_an_error(tmp_path: Path) -> None:
    """Two agents on one port would each get a share of the calls."""
    async with serving(tmp_path) as world:
        second = network_server(IdentityInterceptor(world.trust.admit))
        with pytest.raises(SocketInUseError, match=f"{world.port} cannot be listened on"):
            bind_network(second, world.address, world.keyring.current)
        await second.stop(None)


async def test_a_message_over_the_limit_is_refused(tmp_path: Path) -> None:
    """One request does not fill our memory; the connection goes on."""
    async with serving(tmp_path) as world:
        shown = world.credentials("uni-a", "gpu01")
        channel = world.dial_raw(shown.key, shown.certificate)
        error = await refusal(channel, REPORT, bytes(MAX_GRPC_MESSAGE_BYTES + 1))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await answer(channel, REPORT, GOOD_REPORT)
        assert world.face.called == ["report by gpu01.uni-a.example"]


async def test_what_cannot_be_read_is_the_caller_s_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No defect of ours, no line in the log, for messages of any method that are none."""
    async with serving(tmp_path) as world:
        own, gateway, other = (
            world.dial(*one) for one in (("uni-a", "gpu01"), ("uni-a", "gw"), ("uni-b", "gate"))
        )
        for method in METHODS:
            order = method.name in ORDERS
            channel = other if method.containing_service.name == "Site" else gateway if order else own
            error = await refusal(channel, method, b"\xff\xff\xff")
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, method.full_name
        assert world.face.called == []
    assert worries(caplog) == []


async def test_refused_calls_do_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody who left may call as often as the line bears; we say it a few times."""
    async with serving(tmp_path) as world:
        channel = world.dial("uni-a", "left")
        for _ in range(50):
            await refusal(channel, REPORT)
    lines = [one.getMessage() for one in caplog.records if one.getMessage().startswith("refused ")]
    assert len(lines) == REFUSALS_LOGGED
    assert "left" in lines[0]


# --- any bytes over the wire --------------------------------------------------------------------------------

EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
}
SEEDS = {
    "pyrdma.v1.ReportRequest": GOOD_REPORT,
    "pyrdma.v1.RunRequest": pb.RunRequest(model="m", site="s", node="n").SerializeToString(),
    "pyrdma.v1.StartRunnerRequest": pb.StartRunnerRequest(
        lease_id="l", model="m", image_id=bytes(IMAGE), ttl_s=1.0
    ).SerializeToString(),
    "pyrdma.v1.AskOfferRequest": pb.AskOfferRequest(
        request_id="r", model="m", image_id=bytes(IMAGE), total_bytes=1, devices=1, borrower_node="n"
    ).SerializeToString(),
    "pyrdma.v1.OpenSourceRequest": pb.OpenSourceRequest(
        image_id=bytes(IMAGE), lane="ucx", address=b"a"
    ).SerializeToString(),
}


def mutants(method: MethodDescriptor, chance: random.Random) -> Iterator[bytes]:
    """Yield 500 requests: random bytes, and honest ones with a part changed, cut or doubled."""
    seed = SEEDS.get(method.input_type.full_name, b"\x0a\x02l1")
    for _ in range(500):
        data = bytearray(seed)
        match chance.randrange(5):
            case 0:
                data = bytearray(chance.randbytes(chance.randrange(200)))
            case 1:
                data[chance.randrange(len(data))] = chance.randrange(256)
            case 2:
                del data[chance.randrange(len(data)) :]
            case 3:
                at = chance.randrange(len(data))
                data[at:at] = chance.randbytes(chance.randrange(40))
            case _:
                data += data + bytes([chance.randrange(256)])
        yield bytes(data)


async def test_any_bytes_get_a_status_and_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """500 mutated messages to each method: only the caller's fault, no defect, no growth."""
    chance = random.Random(8)
    process = psutil.Process()
    seen: dict[str, set[grpc.StatusCode]] = {}
    async with serving(tmp_path) as world:
        world.face.ends.set()
        own, gateway, other = (
            world.dial(*one) for one in (("uni-a", "gpu01"), ("uni-a", "gw"), ("uni-b", "gate"))
        )

        async def status(channel: aio.Channel, method: MethodDescriptor, data: bytes) -> grpc.StatusCode:
            try:
                await answer(channel, method, data)
            except aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        before = 0
        for number, method in enumerate(METHODS):
            order = method.name in ORDERS
            channel = other if method.containing_service.name == "Site" else gateway if order else own
            found = seen.setdefault(method.full_name, set())
            batch: list[bytes] = []
            for data in mutants(method, chance):
                batch.append(data)
                if len(batch) == 50:
                    found |= set(await asyncio.gather(*(status(channel, method, one) for one in batch)))
                    batch.clear()
            if number == 3:
                before = process.memory_info().rss
        growth = process.memory_info().rss - before
        await answer(own, REPORT, GOOD_REPORT)
    assert {name: codes - EXPECTED for name, codes in seen.items() if codes - EXPECTED} == {}
    assert growth < 64 << 20
    assert worries(caplog) == []


# --- a site that answers wrongly ----------------------------------------------------------------------------


class HostileSite(SiteServicer):
    """Another site's gateway that does what the protocol does not foresee."""

    async def DescribeSite(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.CANCELLED, "ha")

    async def AttendLease(self, request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    async def Commit(self, request: Any, context: Any) -> Any:
        if request.offer_id == "quiet":
            return
        for at in range(100 * MAX_START_EVENTS):
            if request.offer_id == "progress" and at == 10 * MAX_START_EVENTS:
                yield pb.RunEvent(
                    granted=pb.Granted(lease=pb.Lease(id="l1", image_id=bytes(IMAGE)), api_key="k")
                )
            elif request.offer_id == "progress":
                yield pb.RunEvent(progress=pb.Progress(done_bytes=at))
            else:
                yield pb.RunEvent(note="x" * 1000)


@asynccontextmanager
async def asking_a_hostile_site(folder: Path) -> AsyncIterator[tuple[SiteClient, Channels]]:
    """Our gateway's client of a site that answers wrongly."""
    world = World(folder)
    server = network_server(IdentityInterceptor(world.trust.admit))
    add_SiteServicer_to_server(HostileSite(), server)  # type: ignore[no-untyped-call]
    world.port = bind_network(server, "127.0.0.1:0", world.keyring.current)
    await server.start()
    shown = world.credentials("uni-b", "gate")
    channels = Channels(lambda: shown)
    target = world.target()
    try:
        async with asyncio.timeout(60):
            yield SiteClient("uni-a", lambda: SiteStub(channels.to(target))), channels  # type: ignore[no-untyped-call]
    finally:
        await channels.close()
        await server.stop(None)


async def test_a_peer_cannot_cancel_our_tasks(tmp_path: Path) -> None:
    """It may call its own call cancelled; for us that is a peer that failed."""
    async with asking_a_hostile_site(tmp_path) as (site, _):
        with pytest.raises(PeerNodeError, match="CANCELLED"):
            await site.describe()


async def test_a_channel_that_is_closed_under_a_call_is_an_error_and_cancels_nobody(tmp_path: Path) -> None:
    """What attends a lease would else end without a word when its channel is let go."""
    async with asking_a_hostile_site(tmp_path) as (site, channels):
        attending = asyncio.create_task(site.attend("l1"))
        await until(lambda: channels._open)
        await asyncio.sleep(0)
        await channels.close()
        with pytest.raises(PeerNodeError, match="the channel to uni-a was closed"):
            await attending


async def test_who_waits_for_a_lease_can_stop_waiting(tmp_path: Path) -> None:
    """To be cancelled is to be cancelled."""
    async with asking_a_hostile_site(tmp_path) as (site, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await site.attend("l1")


async def test_a_start_that_never_stops_talking_is_given_up(tmp_path: Path) -> None:
    """A donor cannot fill our memory; progress may come as often as it likes."""
    async with asking_a_hostile_site(tmp_path) as (site, _):
        heard: list[Any] = []
        with pytest.raises(PeerNodeError, match="without end"):
            await site.commit("notes", heard.append)
        assert len(heard) == MAX_START_EVENTS
        assert (await site.commit("progress", lambda _: None)).api_key == "k"
        with pytest.raises(PeerNodeError, match="without a word"):
            await site.commit("quiet", heard.append)
