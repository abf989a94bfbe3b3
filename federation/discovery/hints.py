"""Hints: addresses at which a node may be reached, as anyone on the local network claims them.

Nothing here is identity. Whoever dials an address checks by mutual TLS that the node it looks for answers
there, so a false hint costs one dial and no more. Rules:

- an announcement is read strictly: exact keys, names as certificates have them, literal IPv4 addresses;
- the table is bounded by sites, by hints of a site, of a node, and of a node at one host; this node's own
  site keeps its place whatever is heard of others;
- where a place is needed, the host that holds the most gives up its oldest hint: a flood that names one host
  costs no other host its place. Any sender can be forged in multicast, so what counts is the host that a
  hint names, not its sender; whoever invents many hosts can still displace what is here. Addresses that an
  operator wrote down do not pass through this table.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from federation.errors import FederationInputError
from federation.identity.names import check_label, check_trust_domain
from federation.limits import (
    MAX_HINT_SITES,
    MAX_HINTS_PER_NAME,
    MAX_HINTS_PER_NAME_AND_HOST,
    MAX_HINTS_PER_SITE,
    MAX_TXT_BYTES,
)

TXT_VERSION: Final = b"1"


class Role(StrEnum):
    """What the node at an address says it is."""

    GATEWAY = "gateway"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Claim:
    """What an announcement says about its node."""

    trust_domain: str
    node: str
    role: Role


@dataclass(frozen=True, slots=True)
class Hint:
    """One address, ``host:port``, that was claimed for a node; ``seen_at_s`` is on the listener's clock."""

    trust_domain: str
    node: str
    address: str
    role: Role
    seen_at_s: float

    @property
    def host(self) -> str:
        """The address without its port."""
        return self.address.rpartition(":")[0]


class Hints:
    """The hints heard so far, bounded whatever is heard.

    Args:
        own_trust_domain: this node's site, which no other site displaces.
    """

    def __init__(self, own_trust_domain: str) -> None:
        self._own = own_trust_domain
        # In both, what was heard of last stands last.
        self._sites: dict[str, dict[tuple[str, str], Hint]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._sites.values()))

    def add(self, hint: Hint) -> None:
        """Note a hint, or that it was heard again."""
        site = self._sites.pop(hint.trust_domain, {})
        self._sites[hint.trust_domain] = site
        site.pop((hint.node, hint.address), None)
        site[hint.node, hint.address] = hint
        of_node = [other for other in site.values() if other.node == hint.node]
        at_host = [other for other in of_node if other.host == hint.host]
        if len(at_host) > MAX_HINTS_PER_NAME_AND_HOST or len(of_node) > MAX_HINTS_PER_NAME:
            self.remove(_least_deserving(at_host if len(at_host) > MAX_HINTS_PER_NAME_AND_HOST else of_node))
        if len(site) > MAX_HINTS_PER_SITE:
            self.remove(_least_deserving(site.values()))
        if len(self._sites) > MAX_HINT_SITES:
            del self._sites[next(name for name in self._sites if name != self._own)]

    def remove(self, hint: Hint) -> None:
        """Forget the address of a node, whoever claimed it; nothing happens where it is not known."""
        site = self._sites.get(hint.trust_domain, {})
        site.pop((hint.node, hint.address), None)
        if not site:
            self._sites.pop(hint.trust_domain, None)

    def of_site(self, trust_domain: str) -> tuple[Hint, ...]:
        """Return a site's hints, newest first."""
        return tuple(reversed(self._sites.get(trust_domain, {}).values()))

    def addresses(self, trust_domain: str, node: str) -> tuple[str, ...]:
        """Return where a node may be reached, newest first, at most ``MAX_HINTS_PER_NAME``."""
        return tuple(hint.address for hint in self.of_site(trust_domain) if hint.node == node)


def parse_txt(properties: Mapping[bytes, bytes | None]) -> Claim:
    """Return what an announcement's TXT record claims; keys that are not ours are a newer version's.

    Raises:
        FederationInputError: it is too long, of another version, or names no node.
    """
    if sum(len(key) + len(value or b"") + 2 for key, value in properties.items()) > MAX_TXT_BYTES:
        raise FederationInputError(f"an announcement has at most {MAX_TXT_BYTES} bytes of text.")
    if properties.get(b"v") != TXT_VERSION:
        raise FederationInputError(
            "an announcement of another version of the agent.", fix="update both agents"
        )
    try:
        role = Role(_text(properties, b"role"))
    except ValueError:
        raise FederationInputError("an announcement's role is 'gateway' or 'node'.") from None
    return Claim(
        check_trust_domain(_text(properties, b"td")),
        check_label(_text(properties, b"node"), "node"),
        Role(role),
    )


def txt_of(claim: Claim) -> dict[bytes, bytes | None]:
    """Return the TXT record that makes this claim."""
    return {
        b"v": TXT_VERSION,
        b"td": claim.trust_domain.encode(),
        b"node": claim.node.encode(),
        b"role": claim.role.encode(),
    }


def format_address(host: str, port: int) -> str:
    """Return ``host:port`` of a literal IPv4 address that one can dial.

    Raises:
        FederationInputError: the host is a name, or an address of nobody or of many; or the port is none.
    """
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        raise FederationInputError("a hint's host is a literal IPv4 address.") from None
    # The broadcast address counts as reserved.
    if address.is_unspecified or address.is_multicast or address.is_reserved or not 0 < port < 1 << 16:
        raise FederationInputError("a hint's address is that of one host, with a port.")
    return f"{address}:{port}"


def _text(properties: Mapping[bytes, bytes | None], key: bytes) -> str:
    try:
        return (properties.get(key) or b"").decode("ascii")
    except UnicodeDecodeError:
        raise FederationInputError("an announcement's values are ASCII.") from None


def _least_deserving(hints: Iterable[Hint]) -> Hint:
    """Return the oldest hint of the host that has most of these, which come oldest first."""
    listed = list(hints)
    greediest = Counter(hint.host for hint in listed).most_common(1)[0][0]
    return next(hint for hint in listed if hint.host == greediest)
