"""Whom this node believes: its own site's CA always, other sites' as the signed registry names them.

Rules: a node of this site may use the Node service, its gateway alone may start runners; a gateway of another
member may use the Site service, and no other of its nodes; whoever left is refused from the next call on.
It decides who may call what, never what the call may have.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.site.home import SiteConfig
from federation.errors import FederationError, IdentityError, NotAdmittedError
from federation.identity.binding import Binding
from federation.identity.names import NodeIdentity
from federation.identity.shape import check_authority_shape, read_certificate
from federation.registry.documents import SiteDocument
from federation.registry.membership import Membership

_log = logging.getLogger(__name__)

NODE_SERVICE: Final = "pyrdma.v1.Node"
SITE_SERVICE: Final = "pyrdma.v1.Site"
_GATEWAY_ORDERS: Final = frozenset({"StartRunner", "StopRunner", "NoticeRunner", "WithdrawNotice"})


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a channel goes to: where, under which name, vouched for by which CA (PEM)."""

    address: str
    identity: NodeIdentity
    authority: bytes


class Trust:
    """What one node knows of its site and of the consortium.

    Args:
        config: this node's place.
        authority: the CA certificate of its site, PEM.
        is_member: whether a node of this site has joined and not left; asked at the gateway only.
    """

    def __init__(self, config: SiteConfig, authority: bytes, is_member: Callable[[str], bool]) -> None:
        self._config = config
        self._authority = authority
        self._is_member = is_member
        self.membership: Membership | None = None
        self._binding = Binding({config.trust_domain: [authority]})
        self.roots = authority

    def learn(self, membership: Membership | None) -> None:
        """Take over what the registry says, or that nothing of it can be believed; nothing older counts.

        A site whose CA cannot be read is not believed, and spoils nothing for the others.
        """
        known: dict[str, list[bytes]] = {}
        for one in membership.sites if membership is not None else ():
            if one.trust_domain != self._config.trust_domain:
                known.setdefault(one.trust_domain, _authorities(one))
        own = {self._config.trust_domain: [self._authority]}
        self._binding = Binding(known | own)
        self.roots = b"".join(pem for pems in (own | known).values() for pem in pems)
        self.membership = membership

    def identify(self, certificate: bytes) -> NodeIdentity:
        """Return whose certificate (PEM) it is. Raises IdentityError."""
        return self._binding.identify(certificate, now_s=time.time())

    def admit(self, method: str, certificate: bytes) -> NodeIdentity:
        """Return who makes a call of this full name (``/SERVICE/METHOD``).

        Raises:
            IdentityError: nobody we know, or somebody who may not call this here.
        """
        who = self.identify(certificate)
        _, service, name = method.split("/", 2)
        if service == NODE_SERVICE:
            self._admit_own(who, name)
        elif service == SITE_SERVICE:
            self._admit_gateway(who)
        else:
            raise IdentityError(f"nobody may call {service} over the network.")
        return who

    def _admit_own(self, who: NodeIdentity, name: str) -> None:
        config = self._config
        if who.trust_domain != config.trust_domain:
            raise IdentityError(f"{who.dns} is no node of {config.site}.")
        if name in _GATEWAY_ORDERS and who.node != config.gateway_node:
            raise IdentityError(f"{who.dns} is not the gateway of {config.site}.")
        if config.role == "gateway" and who.node != config.node and not self._is_member(who.node):
            raise IdentityError(f"the node {who.node} has left {config.site}.", fix="join it again")

    def _admit_gateway(self, who: NodeIdentity) -> None:
        config = self._config
        if config.role != "gateway":
            raise IdentityError(
                f"{config.node} is not the gateway of {config.site}.",
                fix=f"speak to {config.gateway_node}.{config.trust_domain}",
            )
        document = self.site_of(who.trust_domain)
        if document is None or who.trust_domain == config.trust_domain:
            raise IdentityError(f"{who.dns} is of no other site of the consortium.")
        if all(gateway.node != who.node for gateway in document.gateways):
            raise IdentityError(
                f"{who.dns} is not a gateway of {document.site}.", fix="ask through its gateway"
            )

    def site_of(self, trust_domain: str) -> SiteDocument | None:
        """Return the member of this trust domain."""
        if self.membership is None:
            return None
        try:
            return self.membership.by_trust_domain(trust_domain)
        except NotAdmittedError:
            return None

    def site_name(self, who: NodeIdentity) -> str:
        """Return the name of the site that a node is of."""
        if who.trust_domain == self._config.trust_domain:
            return self._config.site
        document = self.site_of(who.trust_domain)
        return document.site if document is not None else who.trust_domain

    def others(self) -> tuple[SiteDocument, ...]:
        """Return the members but for this site."""
        if self.membership is None:
            return ()
        return tuple(one for one in self.membership.sites if one.trust_domain != self._config.trust_domain)

    def gateway_of(self, site: str) -> Target:
        """Return where another site's gateway is, as the registry says.

        Raises:
            NotAdmittedError: the registry knows no such site.
        """
        if self.membership is None:
            raise NotAdmittedError(
                f"no registry is believed here, so the site {site} is not known.",
                fix="see why with: pyrdma-agent status",
            )
        document = self.membership.site(site)
        gateway = document.gateways[0]
        authority = "".join(document.authorities).encode()
        return Target(gateway.address, NodeIdentity(document.trust_domain, gateway.node), authority)

    def own_node(self, node: str, address: str) -> Target:
        """Return where a node of this site is, given its address."""
        return Target(address, NodeIdentity(self._config.trust_domain, node), self._authority)

    def own_gateway(self) -> Target:
        """Return where this site's gateway is."""
        return self.own_node(self._config.gateway_node, self._config.gateway_address)


def _authorities(document: SiteDocument) -> list[bytes]:
    """Return a site's CA certificates that have the shape of one; their times are judged at each call."""
    found = []
    for pem in document.authorities:
        try:
            check_authority_shape(read_certificate(pem.encode()), document.trust_domain)
        except FederationError as error:
            _log.warning("the site %s is not believed: %s", document.site, error.message)
        else:
            found.append(pem.encode())
    return found
