"""When a site lets a node join with an invite: one rule, given all that was found out before.

Rules: who cannot prove the secret learns nothing, not even whether there is such an invite. An invite is for
one node, one time, one certificate request, and for one network if it says so. The same request again, within
the invite's time, has the same answer: a node whose connection broke is not locked out. The caller writes the
decision and the certificate in one transaction.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Final, Literal

from federation.errors import (
    FederationInputError,
    InviteExpiredError,
    InviteMismatchError,
    InviteUsedError,
)
from federation.identity.names import check_node

_NEW: Final = "ask the site for a new invite: pyrdma-agent invite create --node NAME"


@dataclass(frozen=True, slots=True)
class InviteRecord:
    """What the site keeps of an invite.

    Attributes:
        token_id: names the invite.
        key: what the secret is proven with; not the secret.
        node: the node that may join.
        expires_at: Unix time, s.
        used_csr_sha256: SHA-256 of the request that it was used for; None while it is unused.
        certificate_pem: what was issued for that request; None while it is unused.
        cidr: the network that the node must call from; empty for any.

    Raises:
        FederationInputError: the node's name or the network is none.
    """

    token_id: bytes
    key: bytes = field(repr=False)
    node: str
    expires_at: float
    used_csr_sha256: bytes | None
    certificate_pem: bytes | None
    cidr: str

    def __post_init__(self) -> None:
        check_node(self.node)
        if self.cidr:
            try:
                ipaddress.ip_network(self.cidr)
            except ValueError:
                raise FederationInputError(
                    "the network of an invite is not one in CIDR form, or has bits behind its prefix.",
                    fix="give it as 10.1.0.0/16 or 2001:db8:7::/48",
                ) from None


def admit(
    record: InviteRecord | None,
    *,
    now_s: float,
    node: str,
    csr_sha256: bytes,
    proof_ok: bool,
    caller_ip: str,
) -> Literal["issue", "repeat"]:
    """Return whether to issue a certificate, or to give again the one that was issued.

    Args:
        record: the invite of the token that the caller named, if there is one.
        now_s: Unix time.
        node: the name that the caller wants, as the proof covers it.
        csr_sha256: SHA-256 of the caller's certificate request.
        proof_ok: whether the proof is right under the record's key; without a record it does not matter.
        caller_ip: where the call comes from.

    Raises:
        InviteMismatchError: no such invite or a wrong proof, which look alike; another node; another network.
        InviteExpiredError: its time is over.
        InviteUsedError: it was used for another request.
    """
    if record is None or not proof_ok:
        raise InviteMismatchError("the site has no such invite, or its secret was not proven.", fix=_NEW)
    if node != record.node:
        raise InviteMismatchError(f"the invite was made for the node {record.node}.", fix=_NEW)
    if record.cidr and not _inside(caller_ip, record.cidr):
        raise InviteMismatchError(
            "the invite is for another network than the call comes from.",
            fix="join from that network, or ask the site for an invite for yours",
        )
    if now_s >= record.expires_at:
        raise InviteExpiredError("the invite's time is over.", fix=_NEW)
    if record.used_csr_sha256 is None:
        return "issue"
    if record.used_csr_sha256 == csr_sha256:
        return "repeat"
    raise InviteUsedError(
        "the invite was used already, with another key.",
        fix=f"if that was not you, tell the site at once; else {_NEW}",
    )


def _inside(caller_ip: str, cidr: str) -> bool:
    try:
        address = ipaddress.ip_address(caller_ip)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # a socket for both families says an IPv4 caller in this way
    return address in ipaddress.ip_network(cidr)
