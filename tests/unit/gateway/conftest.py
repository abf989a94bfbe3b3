"""A site's trust in others, and a gateway that borrows from them, as tests of the gateway's shell need it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from borrowing_gateway import MODELS, Bench, Donor, Sites

from agent.site.home import SiteConfig
from agent.site.trust import Trust
from agent.state import SiteStore, StateFile
from federation.identity.authority import SiteAuthority
from federation.registry.documents import GatewayAddress, SiteDocument
from federation.registry.membership import Membership, ModelBinding

CONFIG = SiteConfig(
    site="uni-a",
    trust_domain="uni-a.example",
    node="a0",
    role="gateway",
    address="a0.uni-a.example:7443",
    listen="127.0.0.1:7443",
    gateway_node="a0",
    gateway_address="a0.uni-a.example:7443",
    join_address="a0.uni-a.example:7444",
    join_listen="127.0.0.1:7444",
)


@pytest.fixture(scope="session")
def config() -> SiteConfig:
    """The place of uni-a's gateway."""
    return CONFIG


@pytest.fixture(scope="session")
def authorities() -> Callable[[str], bytes]:
    """Return the CA certificate of a site, made once."""
    made: dict[str, bytes] = {}

    def of(site: str) -> bytes:
        if site not in made:
            made[site] = SiteAuthority.create(f"{site}.example", now_s=time.time()).certificate_pem
        return made[site]

    return of


@pytest.fixture
def membership(authorities: Callable[[str], bytes]) -> Callable[..., Membership]:
    """Return a consortium of some sites, and what their signed lists name."""

    def of(*sites: str, models: dict[str, ModelBinding] | None = None) -> Membership:
        documents = tuple(
            SiteDocument(
                site=site,
                trust_domain=f"{site}.example",
                authorities=(authorities(site).decode(),),
                gateways=(GatewayAddress("g0", f"g0.{site}.example:7443"),),
                models_key="",
                region="",
            )
            for site in sites
        )
        return Membership("c", 1, 1.0, 2.0, documents, models or {}, {})

    return of


@pytest.fixture
def trust(authorities: Callable[[str], bytes]) -> Trust:
    """What uni-a's gateway believes; it knows no other site yet."""
    return Trust(CONFIG, authorities("uni-a"), lambda node: True)


@pytest.fixture
def sites(tmp_path: Path, trust: Trust, membership: Callable[..., Membership]) -> Sites:
    """Open a gateway of uni-a that has heard of some other sites."""

    @asynccontextmanager
    async def opened(*names: str) -> AsyncIterator[Bench]:
        trust.learn(membership("uni-a", *names, models=MODELS))
        file = await StateFile.open(tmp_path / "state.sqlite3")
        bench = Bench(trust, file, await SiteStore.of(file))
        bench.others = {name: Donor(name) for name in names}
        bench.neighbours.learn()
        await bench.neighbours.ask_all()
        try:
            yield bench
        finally:
            await bench.broker.close()
            await file.close()
            assert [one for one in asyncio.all_tasks() if one is not asyncio.current_task()] == []

    return opened
