"""The names of sites and nodes, and the one shape in which a certificate says them.

A node is ``NODE.TRUST-DOMAIN`` in DNS and ``spiffe://TRUST-DOMAIN/node/NODE`` as a URI (SPIFFE ID 1.0). Its
certificate names both and nothing else. Lower case only: what compares equal is equal, byte by byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from federation.errors import FederationInputError
from federation.limits import MAX_LABEL_CHARS, MAX_TRUST_DOMAIN_CHARS

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


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
            f"a {what}'s name has lower-case letters, digits and '-', begins and ends with one of the former, "
            f"and has at most {MAX_LABEL_CHARS} characters.",
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
    ):
        raise FederationInputError(
            "a trust domain is a DNS name in lower case with at least one dot, "
            f"and has at most {MAX_TRUST_DOMAIN_CHARS} characters.",
            fix="use a name below your institution's own, such as pyrdma.uni-a.example",
        )
    return text
