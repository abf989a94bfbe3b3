"""What a node knows of its place: the site, its own name and addresses, its gateway, the registry.

It is written once, when the site is made or joined, and never changed: another place is another home.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from agent.limits import MAX_SITE_FILE_BYTES
from federation.errors import FederationInputError
from federation.identity.names import (
    NodeIdentity,
    check_address,
    check_label,
    check_node,
    check_trust_domain,
)
from federation.limits import MAX_REGION_CHARS, MAX_REGISTRY_SOURCES, MAX_SOURCE_CHARS
from federation.registry.documents import parse_object

SCHEMA: Final = 1
DEFAULT_PORT: Final = 7443
"""Where a node is dialled unless told otherwise; a gateway's enrolment port is the next one."""
_EVERYWHERE: Final = ("[::]", "0.0.0.0")  # noqa: S104 - a node is there for others; each has to prove itself
_PIN: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """A node's place in its site.

    Attributes:
        address: ``HOST:PORT`` that others dial.
        listen: ``HOST:PORT`` that is listened on.
        join_address, join_listen: the same of the enrolment port; empty at a node that is no gateway.
        registry_sources: where the registry can be read; empty outside a consortium.
        registry_pin: SHA-256 of the registry's first root, in hex; empty outside a consortium.
        region: for people and for the choice of donors; at the gateway only.

    Raises:
        FederationInputError: a name, an address or the registry's part is none.
    """

    site: str
    trust_domain: str
    node: str
    role: Literal["gateway", "node"]
    address: str
    listen: str
    gateway_node: str
    gateway_address: str
    join_address: str = ""
    join_listen: str = ""
    registry_sources: tuple[str, ...] = ()
    registry_pin: str = ""
    region: str = ""

    def __post_init__(self) -> None:
        check_label(self.site, "site")
        check_trust_domain(self.trust_domain)
        check_node(self.node)
        check_node(self.gateway_node)
        check_address(self.address)
        check_listen(self.listen)
        check_address(self.gateway_address)
        if self.role == "gateway":
            check_address(self.join_address)
            check_listen(self.join_listen)
        if self.role not in ("gateway", "node") or (self.role == "gateway") != (
            self.node == self.gateway_node
        ):
            raise FederationInputError("a site has one gateway, and every other node is none.")
        if bool(self.registry_sources) != bool(self.registry_pin):
            raise FederationInputError(
                "a registry is believed by its root pin: both are given, or neither.",
                fix="give --registry and --root-pin as the consortium told them to you",
            )
        if self.registry_pin and not _PIN.fullmatch(self.registry_pin):
            raise FederationInputError(
                "a root pin has 64 hexadecimal digits in lower case.",
                fix="take the one that the consortium gave you",
            )
        sources = self.registry_sources
        if len(sources) > MAX_REGISTRY_SOURCES or not all(
            0 < len(one) <= MAX_SOURCE_CHARS and one.isprintable() for one in sources
        ):
            raise FederationInputError(
                f"a registry has at most {MAX_REGISTRY_SOURCES} places, "
                f"each of 1 to {MAX_SOURCE_CHARS} printable characters."
            )
        if len(self.region) > MAX_REGION_CHARS or not self.region.isascii() or not self.region.isprintable():
            raise FederationInputError(f"a region has at most {MAX_REGION_CHARS} printable ASCII characters.")

    @property
    def identity(self) -> NodeIdentity:
        """The node, as its certificate names it."""
        return NodeIdentity(self.trust_domain, self.node)

    def encode(self) -> bytes:
        """Return the content of the file."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2, sort_keys=True).encode() + b"\n"


def default_listen(address: str) -> str:
    """Return where to listen for a node that others dial at this address.

    Everywhere, since the address may be that of a router in front of this machine; an address of this
    machine's own loopback is for this machine alone.
    """
    host, _, port = address.rpartition(":")
    try:
        alone = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        alone = host == "localhost"
    return address if alone else f"{_EVERYWHERE[0]}:{port}"


def check_listen(text: str) -> str:
    """Return ``HOST:PORT`` to listen on: an address of this machine, or ``[::]`` or ``0.0.0.0`` for all.

    Raises:
        FederationInputError: it is none.
    """
    host, _, port = text.rpartition(":")
    check_address(f"localhost:{port}" if host in _EVERYWHERE else text)
    return text


def decode(data: bytes) -> SiteConfig:
    """Return what a file says.

    Raises:
        FederationInputError: it is damaged, or of a newer agent.
    """
    fields = parse_object(data, max_bytes=MAX_SITE_FILE_BYTES, what="a site's file")
    if fields.pop("schema", None) != SCHEMA:
        raise FederationInputError("the site's file was written by a newer agent.", fix="run that agent")
    sources = fields.pop("registry_sources", None)
    values: list[Any] = list(fields.values())
    if not isinstance(sources, list) or not all(isinstance(one, str) for one in (*values, *sources)):
        raise FederationInputError("the site's file has a value of another kind than text.")
    try:
        return SiteConfig(**fields, registry_sources=tuple(sources))
    except TypeError:
        raise FederationInputError(
            "the site's file lacks a value, or says more than is known here."
        ) from None
