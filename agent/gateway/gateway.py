"""The gateway of a site, put together: donor, broker, the site's nodes and its neighbours.

It answers what its nodes may ask (``MemberFace``), what other gateways may ask (``SiteFace``), and what its
own people ask. Who calls has been settled before (``agent.site.trust``); whose lease it is, is settled here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

from agent.daemon.faces import Emit, Heed, LeaseOffer, OfferRequest, Order, Refusal, Wish, unheeded
from agent.daemon.faces import Host as HostFace
from agent.daemon.host import Host
from agent.daemon.pipes import Pipe
from agent.daemon.reporting import Reporting
from agent.daemon.reports import Report, SiteSummary
from agent.errors import NotAllowedError
from agent.gateway.account_usage import LeaseUsage, LedgerUsage
from agent.gateway.accounts import SiteAccounts, UsageBooks
from agent.gateway.broker import SiteBroker
from agent.gateway.core.events import Decision, EgressCounted
from agent.gateway.core.law import Law
from agent.gateway.core.placement import CarbonPreference
from agent.gateway.departures import Departures
from agent.gateway.donor import LocalDonor
from agent.gateway.egress import Sent, SiteEgress
from agent.gateway.fairness import Fairness
from agent.gateway.forwarding import Forwarding, SiteLending
from agent.gateway.known_models import KnownModels
from agent.gateway.metering import Use
from agent.gateway.naming import Naming
from agent.gateway.neighbours import Neighbours
from agent.gateway.overview import Overview
from agent.gateway.own import OwnDonor
from agent.gateway.publishing import Publishing
from agent.gateway.site_nodes import SiteNodes
from agent.local.federation_views import FederationView, PolicyView, RegistryView
from agent.local.people_views import UsageView
from agent.local.queue_views import QueueView
from agent.local.views import GrantedView, PlaceView
from agent.openness.history import History
from agent.site.home import SiteConfig
from agent.site.trust import Trust
from agent.state import SiteStore
from federation.identity.names import NodeIdentity
from federation.policy.policy import Policy


class Gateway:
    """The gateway's part of a node.

    Args:
        config: its place.
        host: what its own node donates, if anything.
        trust: who belongs to the site and the consortium.
        neighbours: the other sites.
        reach: given a node's name and address, returns what orders it.
        books: the site's books.
        certificate: issues a node's new certificate from its request.
        boot_id: names the present boot.
        clock: the clock of leases.
        lease_ttl_s: how long a lease lives without a renewal.
        registry: what is known of the registry, for people.
        history: the waits and reclaims of the last week.
        fairness: policy and ledger; without them whoever asks first goes first.
        egress: what is sent of images to other sites; ``None``: the gateway holds none.
    """

    def __init__(
        self,
        config: SiteConfig,
        host: Host | None,
        *,
        trust: Trust,
        neighbours: Neighbours,
        reach: Callable[[str, str], HostFace],
        books: SiteStore,
        certificate: Callable[[bytes, NodeIdentity], Awaitable[bytes]],
        boot_id: str,
        clock: Callable[[], float],
        lease_ttl_s: float,
        registry: Callable[[], RegistryView],
        history: History,
        fairness: Fairness | None = None,
        egress: SiteEgress | None = None,
    ) -> None:
        self._config = config
        self._trust = trust
        self._neighbours = neighbours
        self._books = books
        self._certificate = certificate
        self.forwarding = Forwarding(host)
        self._nodes = SiteNodes(
            config,
            host,
            forwarding=self.forwarding,
            reach=reach,
            fleet=lambda: self.donor.state.fleet,
            clock=clock,
        )
        self._egress = egress
        admit = egress.admit if egress is not None else _admit
        self.lending = SiteLending(config.site, host, self.forwarding, self._nodes.images, admit)
        self.donor = LocalDonor(
            config.site,
            host=self._nodes.host_of,
            prepare=self._nodes.prepare,
            books=books,
            boot_id=boot_id,
            clock=clock,
            lease_ttl_s=lease_ttl_s,
            record=fairness.record if fairness is not None else _forget,
            law=Law(config.site, config.region),
            known=KnownModels(lambda: trust.membership).of,
        )
        self.publishing = Publishing(config.site, lambda: self.donor.state, history, clock)
        self._fairness = fairness
        self.donor.on_granted(self.publishing.granted)
        if fairness is not None:
            self.donor.keep_books(fairness.accounting, fairness.refuses)
        self.naming = Naming(
            config.site, host.catalogue if host is not None else None, self._nodes.images, trust, neighbours
        )
        self.accounts = SiteAccounts(config.site, self._policy, self._usage_books(fairness, books))
        own = OwnDonor(self.donor)
        sign = fairness.signed if fairness is not None else _unsigned
        carbon = fairness.carbon if fairness is not None else CarbonPreference
        self.broker = SiteBroker(
            own, neighbours, self.naming, books, boot_id=boot_id, clock=clock, sign=sign, carbon=carbon
        )
        self._overview = Overview(
            config,
            host,
            donor=self.donor,
            neighbours=neighbours,
            books=books,
            registry=registry,
            fairness=fairness,
            egress=egress,
            clock=clock,
        )
        self._departures = Departures(self.donor, self.broker, trust)
        running = host.leases if host is not None else None
        self._reporting = Reporting(self._nodes.own_report, partial(self._hear, config.node), running)

    async def start(self) -> None:
        """Take over the books, and begin to hear of the own node and the neighbours."""
        await self.broker.restore()
        await self.donor.start()
        if self._fairness is not None:
            await self._fairness.start(self.donor)
        if self._egress is not None:
            self._egress.start(self._counted)
        self._departures.sites()
        self._neighbours.start()
        self._reporting.start()

    def learn(self) -> None:
        """Take over which sites there are now."""
        self._neighbours.learn()
        self._departures.sites()
        if self._fairness is not None:
            self._fairness.learn()

    async def stop_lending(self) -> None:
        """End what runs on the own node, and tell its borrowers; what runs on other nodes goes on."""
        await self._reporting.last_word()

    async def report_now(self) -> None:
        """Hear of the own node at once."""
        await self._reporting.now()

    async def close(self) -> None:
        """Stop."""
        await self._reporting.close()
        await self._departures.close()
        await self.broker.close()
        await self._neighbours.close()
        await self.forwarding.close()
        if self._egress is not None:
            await self._egress.close()
        await self.donor.close()
        await self.publishing.close()
        if self._fairness is not None:
            await self._fairness.close()

    # --- what nodes of this site ask ----------------------------------------------------------------------

    async def report(self, report: Report, who: NodeIdentity) -> dict[str, float]:
        """Take a node's word on itself."""
        return await self._hear(who.node, report)

    async def renew_certificate(self, csr: bytes, who: NodeIdentity) -> bytes:
        """Return a new certificate for the node that asks, PEM."""
        return await self._certificate(csr, who)

    async def leave(self, who: NodeIdentity) -> None:
        """Strike the node that asks off the list."""
        await self.strike(who.node, put_out=False)

    async def borrow(self, wish: Wish, who: NodeIdentity, emit: Emit) -> GrantedView:
        """Get a lease for a node, under an account that this site may speak for."""
        return await self.broker.borrow(self.accounts.checked(wish), who.node, emit)

    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        """Return what accounts of this site have used."""
        return await self.accounts.usage(accounts)

    async def start_runner(self, order: Order, emit: Emit) -> GrantedView:
        """Refuse: the gateway gives its own node orders by itself."""
        del order, emit
        raise NotAllowedError("a gateway takes no orders.")

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        """Refuse: the gateway gives its own node orders by itself."""
        del lease_id, reason
        raise NotAllowedError("a gateway takes no orders.")

    async def notice_runner(self, lease_id: str, left_s: float, reason: str) -> None:
        """Refuse: the gateway gives its own node orders by itself."""
        del lease_id, left_s, reason
        raise NotAllowedError("a gateway takes no orders.")

    async def withdraw_notice(self, lease_id: str) -> None:
        """Refuse: the gateway gives its own node orders by itself."""
        del lease_id
        raise NotAllowedError("a gateway takes no orders.")

    # --- what both nodes and other gateways ask about leases ------------------------------------------------

    async def renew(self, lease_id: str, who: NodeIdentity) -> float:
        """Renew a lease."""
        if self._is_own(who):
            return await self.broker.renew(lease_id, who.node)
        return await self.donor.renew(lease_id, self._site(who))

    async def release(self, lease_id: str, reason: str, who: NodeIdentity) -> str:
        """End a lease, or give an offer back."""
        if self._is_own(who):
            return await self.broker.release(lease_id, reason, who.node)
        return await self.donor.release(lease_id, reason, self._site(who))

    async def attend(self, lease_id: str, who: NodeIdentity, heed: Heed = unheeded) -> str:
        """Wait until a lease ends. ``heed`` hears notices meanwhile."""
        if self._is_own(who):
            return await self.broker.attend(lease_id, who.node, heed)
        return await self.donor.attend(lease_id, self._site(who), heed)

    async def connect(self, lease_id: str, who: NodeIdentity) -> Pipe:
        """Open a connection to a lease's runner."""
        if self._is_own(who):
            return await self.broker.connect(lease_id, who.node)
        return await self.donor.connect(lease_id, self._site(who))

    # --- what other gateways ask --------------------------------------------------------------------------

    def summary(self) -> SiteSummary:
        """Say what the site has."""
        return self._overview.summary()

    async def ask_offer(
        self, request: OfferRequest, who: NodeIdentity, wait_s: float
    ) -> LeaseOffer | PlaceView | Refusal:
        """Offer a device, let the request wait, or refuse."""
        site = self._site(who)
        self._neighbours.knocked(site)
        return await self.donor.ask_offer(request, site, wait_s)

    async def commit(self, offer_id: str, who: NodeIdentity, emit: Emit) -> GrantedView:
        """Carry out an offer."""
        return await self.donor.commit(offer_id, self._site(who), emit)

    # --- what its own people ask --------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Bring policy and books up to date now."""
        if self._fairness is not None:
            await self._fairness.refresh()

    async def reread(self) -> None:
        """Read the policy's files now, and say in the log how they stand."""
        if self._fairness is not None:
            await self._fairness.watch.look(aloud=True)

    def policy(self) -> PolicyView:
        """Return which policy is in force, and what is wrong with its files."""
        return self._overview.policy()

    async def queue(self) -> QueueView:
        """Return what waits here, and what the site publishes."""
        return await self.publishing.view()

    async def federation(self) -> FederationView:
        """Return the site's view of itself and of the consortium."""
        return self._overview.federation()

    async def strike(self, node: str, *, put_out: bool) -> bool:
        """Strike a node off the list; what it lends and uses ends."""
        was = await self._books.leave(node, now_s=time.time(), put_out=put_out)
        self._nodes.forget(node)
        await self._departures.node(node)
        return was

    # --- within -------------------------------------------------------------------------------------------

    def _usage_books(self, fairness: Fairness | None, books: SiteStore) -> UsageBooks:
        site = self._config.site
        if fairness is None:
            return LeaseUsage(site, books)
        return LedgerUsage(lambda: self.donor.state.law.standing, fairness.books.store, books, site)

    def _policy(self) -> Policy | None:
        return None if self._fairness is None else self._fairness.base

    async def _counted(self, sent: Sent) -> None:
        await self.donor.apply(partial(EgressCounted, sent.used_bytes, sent.renews_in_s))

    def _is_own(self, who: NodeIdentity) -> bool:
        return who.trust_domain == self._config.trust_domain

    def _site(self, who: NodeIdentity) -> str:
        return self._trust.site_name(who)

    async def _hear(self, node: str, report: Report) -> dict[str, float]:
        self._nodes.note(node, report.images)
        self.publishing.heard(node, report)
        if self._fairness is not None:
            for one in report.uses:
                self._fairness.accounting.measured(one.lease_id, Use(one.energy_wh, one.sent_bytes))
        return await self.donor.heard(node, report)


def _forget(decision: Decision) -> None:
    del decision


async def _admit(total_bytes: int) -> None:
    """Let whatever is there leave the site: nothing is."""
    del total_bytes


def _unsigned(request: OfferRequest) -> OfferRequest:
    return request
