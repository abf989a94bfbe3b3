"""A site and its consortium as they stand now, for its own people and for other sites."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from agent import __version__
from agent.daemon.host import Host
from agent.daemon.reports import SiteSummary
from agent.gateway.donor import LocalDonor
from agent.gateway.egress import SiteEgress
from agent.gateway.fairness import Fairness
from agent.gateway.neighbours import Neighbours
from agent.gateway.view import node_views, site_summary
from agent.local.federation_views import FederationView, PolicyView, RegistryView, SiteView
from agent.site.home import SiteConfig
from agent.state import SiteStore


class Overview:
    """What a gateway shows of its site.

    Args:
        config: the gateway's place.
        host: what its own node donates, if anything.
        donor: what the site lends.
        neighbours: the other sites.
        books: the site's books.
        registry: what is known of the registry.
        fairness: policy and ledger, if the site has them.
        egress: what is sent of images to other sites, if the gateway holds any.
        clock: the clock of leases.
    """

    def __init__(
        self,
        config: SiteConfig,
        host: Host | None,
        *,
        donor: LocalDonor,
        neighbours: Neighbours,
        books: SiteStore,
        registry: Callable[[], RegistryView],
        fairness: Fairness | None,
        egress: SiteEgress | None,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._host = host
        self._donor = donor
        self._neighbours = neighbours
        self._books = books
        self._registry = registry
        self._fairness = fairness
        self._egress = egress
        self._clock = clock

    def summary(self) -> SiteSummary:
        """Say to other sites what this one has."""
        said = site_summary(self._config.site, __version__, self._donor.state, self._clock())
        return replace(
            said,
            egress_left_permille=self._egress.left_permille() if self._egress is not None else None,
            image_bytes_per_s=self._host.transfers.measured() if self._host is not None else 0.0,
            waiting=len(self._donor.state.queue.line),
        )

    def policy(self) -> PolicyView:
        """Return which policy is in force, and what is wrong with its files."""
        return self._fairness.watch.view() if self._fairness is not None else PolicyView()

    def federation(self) -> FederationView:
        """Return the site's view of itself and of the consortium."""
        config = self._config
        return FederationView(
            site=config.site,
            trust_domain=config.trust_domain,
            node=config.node,
            role=config.role,
            gateway=config.gateway_node,
            certificate_expires_at=None,
            registry=self._registry(),
            sites=self._sites(),
            nodes=node_views(config.node, self._books.members(), self._donor.state, self._clock()),
            policy=self.policy(),
        )

    def _sites(self) -> tuple[SiteView, ...]:
        said = self.summary()
        own = SiteView(
            name=self._config.site,
            trust_domain=self._config.trust_domain,
            local=True,
            state="ready",
            fault="",
            age_s=0.0,
            address=self._config.address,
            devices=said.devices,
            leased=said.leased,
            idle=max(0, said.devices - said.leased),
            nodes=said.nodes,
            images=said.images,
            transfer_bytes_per_s=said.transfer_bytes_per_s,
            egress_left_permille=said.egress_left_permille,
        )
        grams = self._fairness.exchange.carbon.grams(time.time()) if self._fairness is not None else {}
        others = self._neighbours.views()
        return (own, *(replace(one, carbon_g_per_kwh=grams.get(one.name)) for one in others))
