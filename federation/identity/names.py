"""The names of sites and nodes, and the one shape in which a certificate says them.

A node is ``NODE.TRUST-DOMAIN`` in DNS and ``spiffe://TRUST-DOMAIN/node/NODE`` as a URI (SPIFFE ID 1.0). Its
certificate names both and nothing else. Lower case only: what compares equal is equal, byte by byte.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from federation.errors import FederationInputError
from federation.limits import MAX_HOST_CHARS, MAX_LABEL_CHARS, MAX_TRUST_DOMAIN_CHARS

JOIN_NAME: Final = "join"
"""What a site's enrolment port is called below its trust domain; no node may have this name."""

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_MAX_PORT: Final = 65535
_URI: Final = re.compile(r"spiffe://([a-z0-9.-]+)/node/([a-z0-9-]+)")


@dataclass(frozen=True, slots=True, order=True)
class NodeIdentity:
    """A node of a site, as its certificate names it."""

    trust_domain: str
    node: str

    @property
    def dns(self) -> str:
        """The name that a TLS client checks."""
        return f"{self.node}.{self.trust_domain}"

    @property
    def uri(self) -> str:
        """The SPIFFE ID."""
        return f"spiffe://{self.trust_domain}/node/{self.node}"


def check_label(text: str, what: str) -> str:
    """Return a site's or node's name.

    Raises:
        FederationInputError: it is no single DNS label in lower case.
    """
    if len(text) > MAX_LABEL_CHARS or not _LABEL.fullmatch(text):
        raise FederationInputError(
            f"a {what}'s name has lower-case letters, digits and '-', begins and ends with one of the "
            f"former, and has at most {MAX_LABEL_CHARS} characters.",
            fix=f"choose another name, such as {'gpu07' if what == 'node' else 'uni-a'}",
        )
    return text


def check_trust_domain(text: str) -> str:
    """Return a site's trust domain: a DNS name of at least two labels.

    Raises:
        FederationInputError: it is none.
    """
    labels = text.split(".")
    if (
        len(text) > MAX_TRUST_DOMAIN_CHARS
        or len(labels) < 2
        or not all(len(label) <= MAX_LABEL_CHARS and _LABEL.fullmatch(label) for label in labels)
        or labels[-1].isdigit()  # a node's full name could then be an IP address
    ):
        raise FederationInputError(
            "a trust domain is a DNS name in lower case with at least one dot, "
            f"and has at most {MAX_TRUST_DOMAIN_CHARS} characters.",
            fix="use a name below your institution's own, such as pyrdma.uni-a.example",
        )
    return text


def check_node(text: str) -> str:
    """Return a node's name.

    Raises:
        FederationInputError: it is no label, or the name of the enrolment port.
    """
    if check_label(text, "node") == JOIN_NAME:
        raise FederationInputError(
            f"no node may be called {JOIN_NAME}: a site's enrolment port has that name.",
            fix="choose another name, such as gpu07",
        )
    return text


def parse_identity(dns: str, uri: str) -> NodeIdentity:
    """Return the node that a certificate's two names say.

    Raises:
        FederationInputError: they are not the two names of one node.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise FederationInputError("the certificate's URI is not spiffe://TRUST-DOMAIN/node/NODE.")
    identity = NodeIdentity(check_trust_domain(match[1]), check_node(match[2]))
    if dns != identity.dns:
        raise FederationInputError("the certificate's DNS name and its URI are not of one node.")
    return identity


def check_address(text: str) -> str:
    """Return ``HOST:PORT``: a DNS name in lower case, an IPv4 address, or an IPv6 address in brackets.

    Raises:
        FederationInputError: it is none, or none that another machine could dial.
    """
    host, _, port = text.rpartition(":")
    if _is_host(host) and _PORT.fullmatch(port) and int(port) <= _MAX_PORT:
        return text
    raise FederationInputError(
        "an address is HOST:PORT, where the host is a name in lower case, an IPv4 address or an IPv6 address "
        "in brackets, of one machine.",
        fix="give it as gateway.uni-a.example:7443 or [2001:db8::7]:7443",
    )


def _is_host(host: str) -> bool:
    if len(host) > MAX_HOST_CHARS:
        return False
    bare = host.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        labels = host.split(".")
        named = all(len(label) <= MAX_LABEL_CHARS and _LABEL.fullmatch(label) for label in labels)
        return named and not labels[-1].isdigit()
    if address.is_unspecified or address.is_multicast or "%" in bare or bare != bare.lower():
        return False  # these name no one machine, or one on this machine's own link alone
    return host == (f"[{bare}]" if address.version == 6 else bare)
