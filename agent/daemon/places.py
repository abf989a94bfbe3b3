"""This node's place in its site, as its own people see it: at the gateway, and at any other node."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from agent.daemon.member import Member
from agent.errors import NotGatewayError, RequestError
from agent.gateway.gateway import Gateway
from agent.gateway.neighbours import Neighbours
from agent.local.federation_views import FederationView, InviteView, PolicyView
from agent.local.people_views import NewTokenView, TokenView, UsageView
from agent.local.queue_views import QueueView
from agent.people.tokens import Tokens
from agent.site.enrolment import Enrolment
from agent.site.home import SiteConfig, SiteHome
from agent.site.keyring import Keyring
from agent.site.models_list import write_models_list
from agent.site.registry_watch import RegistryWatch
from agent.state import Store


class GatewayPlace:
    """The gateway's own view."""

    def __init__(
        self,
        config: SiteConfig,
        home: SiteHome,
        *,
        gateway: Gateway,
        neighbours: Neighbours,
        watch: RegistryWatch,
        keyring: Keyring,
        enrolment: Enrolment,
        tokens: Tokens,
        store: Store,
    ) -> None:
        self._config = config
        self._home = home
        self._gateway = gateway
        self._neighbours = neighbours
        self._watch = watch
        self._keyring = keyring
        self._enrolment = enrolment
        self._tokens = tokens
        self._store = store

    async def federation(self) -> FederationView:
        """Return the site's view of itself and of the consortium."""
        expires_at = self._keyring.validity()[1]
        return replace(await self._gateway.federation(), certificate_expires_at=expires_at)

    async def refresh(self) -> FederationView:
        """Read the registry now and ask every site how it is."""
        await self._watch.refresh()
        await self._neighbours.ask_all()
        await self._gateway.refresh()
        return await self.federation()

    async def create_invite(self, node: str, lifetime_s: float, cidr: str) -> InviteView:
        """Make an invite for a node of this site."""
        return InviteView(*await self._enrolment.invite(node, lifetime_s, cidr))

    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        """Return what accounts of the site have used."""
        return await self._gateway.usage(accounts)

    async def queue(self) -> QueueView:
        """Return what waits at this site."""
        return await self._gateway.queue()

    def policy(self) -> PolicyView | None:
        """Return what policy is in force."""
        return self._gateway.policy()

    async def create_token(self, name: str, account: str, lifetime_s: float) -> NewTokenView:
        """Make a token for a laptop."""
        return await self._tokens.create(name, account, lifetime_s)

    async def tokens(self) -> tuple[TokenView, ...]:
        """Return the tokens that may be used."""
        return await self._tokens.list()

    async def revoke_token(self, name: str) -> tuple[TokenView, ...]:
        """End a token, and the sessions that it has opened."""
        return await self._tokens.revoke(name)

    async def leave(self, node: str) -> str:
        """Put a node out of the site."""
        if not node or node == self._config.node:
            raise RequestError(
                "a gateway cannot leave its own site while it runs.",
                fix="stop the agent, then: pyrdma-agent leave",
            )
        was = await self._gateway.strike(node, put_out=True)
        if not was:
            raise RequestError(f"{node} is no node of {self._config.site}.", fix="see: pyrdma-agent nodes")
        return f"{node} is no longer a node of {self._config.site}; its leases end."

    async def published(self) -> None:
        """Sign the list of models anew, and know where the image lies before anybody asks for it."""
        await write_models_list(self._config, self._home, self._store)
        await self._gateway.report_now()


class NodePlace:
    """Any other node's view: what the gateway says, with this node's own part."""

    def __init__(self, config: SiteConfig, *, member: Member, keyring: Keyring) -> None:
        self._config = config
        self._member = member
        self._keyring = keyring

    async def federation(self) -> FederationView:
        """Return the site's view of itself and of the consortium."""
        said = await self._member.federation()
        expires_at = self._keyring.validity()[1]
        return replace(
            said, node=self._config.node, role=self._config.role, certificate_expires_at=expires_at
        )

    async def refresh(self) -> FederationView:
        """Return what the gateway says; it alone reads the registry."""
        return await self.federation()

    async def create_invite(self, node: str, lifetime_s: float, cidr: str) -> InviteView:
        """Refuse: the gateway has the CA."""
        del node, lifetime_s, cidr
        self._refuse()

    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        """Return what the gateway says that accounts have used."""
        return await self._member.ask_usage(accounts)

    async def queue(self) -> QueueView:
        """Return what the gateway says that waits."""
        return await self._member.ask_queue()

    def policy(self) -> PolicyView | None:
        """Return nothing: the gateway knows."""
        return None

    async def create_token(self, name: str, account: str, lifetime_s: float) -> NewTokenView:
        """Refuse: laptops come to the gateway."""
        del name, account, lifetime_s
        self._refuse()

    async def tokens(self) -> tuple[TokenView, ...]:
        """Refuse: the gateway has them."""
        self._refuse()

    async def revoke_token(self, name: str) -> tuple[TokenView, ...]:
        """Refuse: the gateway has them."""
        del name
        self._refuse()

    async def leave(self, node: str) -> str:
        """Tell the gateway that this node leaves."""
        if node and node != self._config.node:
            self._refuse()
        await self._member.leave_site()
        return f"{self._config.gateway_node} has struck {self._config.node} off its list."

    async def published(self) -> None:
        """Tell the gateway, so that the name is known to the site when the publication returns."""
        await self._member.report_now()

    def _refuse(self) -> NoReturn:
        raise NotGatewayError(
            f"{self._config.node} is not the gateway of {self._config.site}.",
            fix=f"run this on {self._config.gateway_node}",
        )
