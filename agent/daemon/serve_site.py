"""A node's part in its site, put together and run: identity, registry, gateway or member, ports, discovery.

It joins what does not know each other: the daemon's parts, the gateway's, and the calls between agents.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Final

from grpc import ServerCredentials, aio

from agent.daemon.borrowed import BorrowedLeases
from agent.daemon.clocks import boot_time_s
from agent.daemon.config import ServeConfig
from agent.daemon.discovery import announce, browse
from agent.daemon.host import Host
from agent.daemon.lending import NothingLent
from agent.daemon.member import Member
from agent.daemon.node import Node
from agent.daemon.parts import Lender, NodeFace
from agent.daemon.places import GatewayPlace, NodePlace
from agent.daemon.renewal import Renewing, renew_always
from agent.daemon.reports import LeaseEnd, Report
from agent.daemon.visits import Visits
from agent.gateway.egress import SiteEgress
from agent.gateway.fairness import Fairness, Parts
from agent.gateway.gateway import Gateway
from agent.gateway.neighbours import Neighbours
from agent.gateway.own import BrokerFor
from agent.ledger.carbon import read_carbon
from agent.ledger.exchange import ExchangePeer
from agent.limits import SERVER_GRACE_S
from agent.openness.history import History
from agent.openness.page import Page
from agent.openness.server import PageServer
from agent.people.sessions import Sessions
from agent.people.tokens import Tokens
from agent.rpc.enrolment import EnrolmentService, enrolment_credentials, start_enrolment_server
from agent.rpc.identity import IdentityInterceptor
from agent.rpc.leasing import GatewayClient, HostClient, SiteClient
from agent.rpc.ledger import LedgerClient, LedgerDesk
from agent.rpc.network import Channels, bind_network, network_server
from agent.rpc.node import NodeService
from agent.rpc.peer import LenderClient
from agent.rpc.pyrdma_pb2_grpc import (
    NodeStub,
    SiteStub,
    add_NodeServicer_to_server,
    add_SiteServicer_to_server,
)
from agent.rpc.site import SiteService
from agent.rpc.visitors import VisitorService, start_visitor_server
from agent.site.certificates import renew
from agent.site.config import default_listen
from agent.site.enrolment import Enrolment
from agent.site.home import SiteConfig, SiteHome
from agent.site.keyring import Keyring
from agent.site.registry_watch import RegistryWatch
from agent.site.request import public_pem
from agent.site.trust import Trust
from agent.site.whereabouts import Whereabouts
from agent.state import LeaseRecord, RegistryMarks, SiteStore, StateFile, Store
from agent.state.egress_days import EgressDays
from agent.state.token_store import TokenStore
from federation.discovery.hints import Hints, Role
from federation.identity.names import NodeIdentity
from federation.policy.policy import Data
from federation.registry.client import RegistryClient

_NO_BOUNDS: Final = Data()
_log = logging.getLogger(__name__)


class SitePart:
    """One node's part in its site; ``start`` needs the node's own donation first."""

    def __init__(self, config: ServeConfig, home: SiteHome, file: StateFile, store: Store) -> None:
        self._config = config
        self._home = home
        self._file = file
        self._store = store
        self.site: SiteConfig = home.load()
        self._lenders: list[Lender] = []
        self._gateway: Gateway | None = None
        self._neighbours: Neighbours | None = None
        self._ledger_peers: dict[str, LedgerClient] = {}

    @property
    def here(self) -> str:
        """This node as ``SITE/NODE``."""
        return f"{self.site.site}/{self.site.node}"

    @property
    def is_gateway(self) -> bool:
        """Whether this node is its site's gateway."""
        return self.site.role == "gateway"

    async def reread(self) -> None:
        """Read the policy's files now, where this node is the gateway; it says in the log how they stand."""
        if self._gateway is not None:
            await self._gateway.reread()

    def lenders(self) -> Sequence[Lender]:
        """Return who may hold images that this node lacks, as it stands now."""
        if self._gateway is None or self._neighbours is None:
            return tuple(self._lenders)
        present = self._gateway.donor.state.fleet.present(boot_time_s())
        nodes = [self._node_lender(one.node, one.address) for one in present if one.node != self.site.node]
        return (*nodes, *(one.lender for one in self._neighbours.ready()))

    async def start(
        self, node: Node, host: Host | None, old: list[LeaseRecord], ending: AsyncExitStack
    ) -> None:
        """Open the ports and take this node's place.

        Args:
            node: told of its place.
            host: what it donates.
            old: leases that an agent before this one had borrowed and not given back.
            ending: gets what has to be undone.

        Raises:
            SocketInUseError, StateError: it cannot be.
        """
        books = await SiteStore.of(self._file)
        trust = Trust(self.site, self._home.authority_pem, books.is_member)
        keyring = Keyring(self._home, trust)
        self._channels = Channels(keyring.current)
        ending.push_async_callback(self._channels.close)
        server = network_server(IdentityInterceptor(trust.admit))
        if self.is_gateway:
            member, renewing = await self._start_gateway(node, host, books, trust, keyring, server, ending)
        else:
            member, renewing = await self._start_member(node, host, trust, keyring, ending)
        lends: NodeFace = host.lending if host is not None else NothingLent(self.site.node)
        add_NodeServicer_to_server(NodeService(lends, member), server)  # type: ignore[no-untyped-call]
        bind_network(server, self.site.listen, keyring.current)
        await server.start()
        ending.push_async_callback(server.stop, SERVER_GRACE_S)
        ending.push_async_callback(member.stop_lending)  # while those who have to hear of it still can
        assert node.borrowed is not None, "a node in a site borrows"
        ending.push_async_callback(node.borrowed.close)
        _run(renew_always(self.site, keyring, renewing), ending)
        if old:
            _run(node.borrowed.give_back_old(old), ending)
        _log.info("%s listens on %s as %s", self.here, self.site.listen, self.site.role)

    async def _start_gateway(
        self,
        node: Node,
        host: Host | None,
        books: SiteStore,
        trust: Trust,
        keyring: Keyring,
        server: aio.Server,
        ending: AsyncExitStack,
    ) -> tuple[Gateway | Member, Renewing]:
        site, home = self.site, self._home
        neighbours = Neighbours(trust, lambda name: self._site_peer(trust, name), time.monotonic)
        authority = home.site_authority()

        async def certificate(csr: bytes, who: NodeIdentity) -> bytes:
            now_s = time.time()
            return await renew(csr, who, config=site, store=books, authority=authority, now_s=now_s)

        fairness = await Fairness.of(
            Parts(
                site=site.site,
                folder=self._config.paths.state_dir,
                file=self._file,
                store=books,
                key=home.receipts_key(),
                trust=trust,
                neighbours=neighbours,
                peer=lambda name: self._ledger_peer(trust, name),
                clock=boot_time_s,
            )
        )
        gateway = Gateway(
            site,
            host,
            trust=trust,
            neighbours=neighbours,
            reach=lambda name, address: self._host_client(trust, name, address),
            books=books,
            certificate=certificate,
            boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            clock=boot_time_s,
            lease_ttl_s=self._config.lease_ttl_s,
            registry=lambda: watch.view(),
            history=History(self._file),
            fairness=fairness,
            egress=self._egress(host, fairness),
        )
        self._gateway, self._neighbours, self._trust = gateway, neighbours, trust
        client = self._registry_client()
        receipts = public_pem(home.receipts_key())
        watch = RegistryWatch(client, trust, site.site, gateway.learn, receipts_key=receipts)
        await watch.start()
        ending.push_async_callback(watch.close)
        await gateway.start()
        ending.push_async_callback(gateway.close)
        tokens = Tokens(TokenStore(self._file), site, authority.certificate_pem, self._config.visitors)
        enrolment = Enrolment(books, authority, site)
        enrolling = await start_enrolment_server(
            site, EnrolmentService(enrolment, site), enrolment_credentials(authority)
        )
        ending.push_async_callback(enrolling.stop, SERVER_GRACE_S)
        await self._take_visitors(node, tokens, enrolment_credentials(authority), ending)
        folder = self._config.paths.state_dir
        desk = LedgerDesk(fairness.books, trust.site_name, lambda: read_carbon(folder))
        add_SiteServicer_to_server(SiteService(gateway.lending, gateway, desk), server)  # type: ignore[no-untyped-call]
        await self._show_page(gateway, ending)
        broker = BrokerFor(gateway.broker, site.node, gateway.accounts.checked)
        running = host.leases if host is not None else None
        node.borrowed = BorrowedLeases(self._store, broker, self.here, running)
        node.place = GatewayPlace(
            site,
            home,
            gateway=gateway,
            neighbours=neighbours,
            watch=watch,
            keyring=keyring,
            enrolment=enrolment,
            tokens=tokens,
            store=self._store,
        )
        await announce(site, Role.GATEWAY, self._config.mdns, ending)

        async def renewing(csr: bytes) -> bytes:
            return await certificate(csr, site.identity)

        return gateway, renewing

    def _egress(self, host: Host | None, fairness: Fairness) -> SiteEgress | None:
        if host is None:
            return None

        def bounds() -> Data:
            policy = fairness.policy
            return _NO_BOUNDS if policy is None else policy.data

        keeper, days = host.keeper, EgressDays(self._file)
        return SiteEgress(
            self.site.site, lambda: keeper.cache, days, bounds=bounds, now=lambda: datetime.now().astimezone()
        )

    async def _show_page(self, gateway: Gateway, ending: AsyncExitStack) -> None:
        if not self._config.page:
            return
        host, _, port = self._config.page.rpartition(":")
        page = Page(gateway.queue, time.monotonic)
        server = await PageServer.start(page, host.strip("[]"), int(port))
        ending.push_async_callback(server.close)

    async def _take_visitors(
        self, node: Node, tokens: Tokens, credentials: ServerCredentials, ending: AsyncExitStack
    ) -> None:
        if not self._config.visitors:
            return
        sessions, visits = Sessions(tokens), Visits(node)

        def revoked(name: str) -> None:
            sessions.end_all(name)
            visits.end_all(name)

        tokens.on_revoked = revoked
        ending.push_async_callback(visits.close)
        listen = default_listen(self._config.visitors)
        server = await start_visitor_server(listen, VisitorService(sessions, visits), credentials)
        ending.push_async_callback(server.stop, SERVER_GRACE_S)

    async def _start_member(
        self, node: Node, host: Host | None, trust: Trust, keyring: Keyring, ending: AsyncExitStack
    ) -> tuple[Gateway | Member, Renewing]:
        site = self.site
        hints = Hints(site.trust_domain)
        await browse(hints, self._config.mdns, ending)
        whereabouts = Whereabouts(trust, lambda: hints.addresses(site.trust_domain, site.gateway_node))

        def stub() -> NodeStub:
            return NodeStub(self._channels.to(whereabouts.target()))  # type: ignore[no-untyped-call]

        client = GatewayClient(site.gateway_node, stub)
        self._lenders.append(LenderClient(site.gateway_node, stub, site.gateway_node))

        async def describe(ended: tuple[LeaseEnd, ...]) -> Report:
            if host is None:
                return Report(site.address, (), (), (), 0, 0.0, donating=False)
            return await host.report(site.address, ended)

        running = host.leases if host is not None else None
        member = Member(client, describe, running, site.gateway_node, whereabouts.unreached)
        member.start()
        ending.push_async_callback(member.close)
        node.borrowed = BorrowedLeases(self._store, client, self.here, running)
        node.place = NodePlace(site, member=member, keyring=keyring)
        await announce(site, Role.NODE, self._config.mdns, ending)
        return member, client.renew_certificate

    def _registry_client(self) -> RegistryClient | None:
        if not self.site.registry_pin:
            return None
        return RegistryClient(
            self._home.registry_cache,
            root_pin=bytes.fromhex(self.site.registry_pin),
            sources=self.site.registry_sources,
            marks=RegistryMarks(self._file),
        )

    # --- whom this node speaks to -------------------------------------------------------------------------

    def _site_peer(self, trust: Trust, name: str) -> tuple[SiteClient, LenderClient]:
        def stub() -> SiteStub:
            return SiteStub(self._channels.to(trust.gateway_of(name)))  # type: ignore[no-untyped-call]

        return SiteClient(name, stub), LenderClient(name, stub, name)

    def _ledger_peer(self, trust: Trust, name: str) -> ExchangePeer:
        def stub() -> SiteStub:
            return SiteStub(self._channels.to(trust.gateway_of(name)))  # type: ignore[no-untyped-call]

        # One a site: it remembers what it was told beside receipts, which mostly stays the same.
        return self._ledger_peers.setdefault(name, LedgerClient(name, stub))

    def _host_client(self, trust: Trust, name: str, address: str) -> HostClient:
        target = trust.own_node(name, address)
        return HostClient(name, lambda: NodeStub(self._channels.to(target)))  # type: ignore[no-untyped-call]

    def _node_lender(self, name: str, address: str) -> Lender:
        target = self._trust.own_node(name, address)
        return LenderClient(name, lambda: NodeStub(self._channels.to(target)), name)  # type: ignore[no-untyped-call]


def _run(work: Coroutine[object, object, None], ending: AsyncExitStack) -> None:
    task = asyncio.create_task(work)

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    ending.push_async_callback(stop)
