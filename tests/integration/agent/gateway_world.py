"""A site's gateway with real files, keys and port, what calls it, and a face that notes what reached it."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.descriptor import MethodDescriptor
from grpc import aio

from agent.daemon.faces import Emit, Heed, LeaseOffer, OfferRequest, Order, Refusal, Wish, unheeded
from agent.daemon.lending import NothingLent
from agent.daemon.pipes import Pipe
from agent.daemon.reports import Report, SiteSummary
from agent.errors import UnknownLeaseError
from agent.local.federation_views import FederationView, RegistryView
from agent.local.people_views import UsageView
from agent.local.queue_views import QueueView, ReclaimsView, TermsView
from agent.local.views import GrantedView, LeaseView, PlaceView, StartView
from agent.rpc import convert_site
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.identity import IdentityInterceptor
from agent.rpc.network import Channels, bind_network, network_server
from agent.rpc.node import NodeService
from agent.rpc.pyrdma_pb2_grpc import add_NodeServicer_to_server, add_SiteServicer_to_server
from agent.rpc.site import SiteService
from agent.site.home import SiteConfig, SiteHome
from agent.site.keyring import Credentials, Keyring
from agent.site.trust import Target, Trust
from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.keys import key_to_pem, new_key
from federation.identity.names import NodeIdentity
from federation.registry.documents import GatewayAddress, SiteDocument
from federation.registry.membership import Membership
from pyrdma.image.manifest import ImageId

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
