"""Whom a node believes, and who may call what: the table of services, callers and roles."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from agent.site.config import SiteConfig
from agent.site.trust import Target, Trust
from federation.errors import IdentityError, NotAdmittedError
from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.keys import new_key
from federation.identity.names import NodeIdentity
from federation.registry.documents import GatewayAddress, SiteDocument
from federation.registry.membership import Membership

Role = Literal["gateway", "node"]
NOW_S = time.time()
MODELS_KEY = (
    Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
)
CAS = {site: SiteAuthority.create(f"{site}.example", now_s=NOW_S) for site in ("uni-a", "uni-b", "uni-c")}


def certificate(site: str, node: str, *, by: str = "") -> bytes:
    """Return a certificate of a node of this site, signed by its own CA."""
    identity = NodeIdentity(f"{site}.example", node)
    return CAS[by or site].issue(make_csr(new_key(), identity), identity, now_s=NOW_S)


SHOWN = {
    "our gateway": certificate("uni-a", "gw"),
    "our node": certificate("uni-a", "gpu01"),
    "a node that left": certificate("uni-a", "left"),
    "their gateway": certificate("uni-b", "gate"),
    "their second gateway": certificate("uni-b", "gate2"),
    "their node": certificate("uni-b", "gpu01"),
    "a stranger": certificate("uni-c", "gw"),
}


def document(site: str, *gateways: str) -> SiteDocument:
    """Return a site's entry in the registry."""
    domain = f"{site}.example"
    return SiteDocument(
        site,
        domain,
        (CAS[site].certificate_pem.decode(),),
        tuple(GatewayAddress(one, f"{one}.{domain}:7443") for one in gateways),
        MODELS_KEY.decode(),
        "",
    )


def membership(*sites: SiteDocument) -> Membership:
    """Return a registry with these sites."""
    return Membership("lab", 1, NOW_S, NOW_S + 3600, sites, {}, {})


BOTH = membership(document("uni-a", "gw"), document("uni-b", "gate", "gate2"))


def trust_of(role: Role, known: Membership | None = BOTH) -> Trust:
    """Return what a node of uni-a knows."""
    join = "127.0.0.1:7444" if role == "gateway" else ""
    config = SiteConfig(
        site="uni-a",
        trust_domain="uni-a.example",
        node="gw" if role == "gateway" else "gpu02",
        role=role,
        address="127.0.0.1:7443",
        listen="127.0.0.1:7443",
        gateway_node="gw",
        gateway_address="gw.uni-a.example:7443",
        join_address=join,
        join_listen=join,
    )
    made = Trust(config, CAS["uni-a"].certificate_pem, lambda node: node == "gpu01")
    made.learn(known)
    return made


# What each may call at a node of each role; all else is refused. Only a gateway knows who left.
NODE, ORDER, SITE = "/pyrdma.v1.Node/Report", "/pyrdma.v1.Node/StartRunner", "/pyrdma.v1.Site/AskOffer"
ALLOWED = {
    ("gateway", NODE): {"our gateway", "our node"},
    ("gateway", ORDER): {"our gateway"},
    ("gateway", SITE): {"their gateway", "their second gateway"},
    ("gateway", "/pyrdma.v1.Operator/StopLease"): set(),
    ("gateway", "/pyrdma.v1.Enrolment/Join"): set(),
    ("gateway", "/pyrdma.v1.NodeX/Report"): set(),
    ("node", NODE): {"our gateway", "our node", "a node that left"},
    ("node", ORDER): {"our gateway"},
    ("node", "/pyrdma.v1.Node/StopRunner"): {"our gateway"},
    ("node", SITE): set(),
    ("node", "/pyrdma.v1.Operator/GetStatus"): set(),
}


@pytest.mark.parametrize("caller", SHOWN)
@pytest.mark.parametrize(("role", "method"), ALLOWED)
def test_who_may_call_what(role: Role, method: str, caller: str) -> None:
    """The table above, and nothing beside it."""
    trust = trust_of(role)
    if caller in ALLOWED[role, method]:
        who = trust.admit(method, SHOWN[caller])
        assert who.dns in (f"{who.node}.uni-a.example", f"{who.node}.uni-b.example")
    else:
        with pytest.raises(IdentityError) as caught:
            trust.admit(method, SHOWN[caller])
        assert caught.value.message.endswith(".")


def test_the_caller_is_who_its_certificate_names() -> None:
    """What a servicer is told comes from the certificate alone."""
    trust = trust_of("gateway")
    assert trust.admit(NODE, SHOWN["our node"]) == NodeIdentity("uni-a.example", "gpu01")
    assert trust.admit(SITE, SHOWN["their gateway"]) == NodeIdentity("uni-b.example", "gate")


def test_a_member_that_leaves_is_refused_at_the_gateway_from_its_next_call_on() -> None:
    """Its certificate has hours to live, and counts for nothing."""
    members = {"gpu01"}
    trust = Trust(trust_of("gateway")._config, CAS["uni-a"].certificate_pem, members.__contains__)
    assert trust.admit(NODE, SHOWN["our node"]).node == "gpu01"
    members.clear()
    with pytest.raises(IdentityError, match="gpu01 has left uni-a") as caught:
        trust.admit(NODE, SHOWN["our node"])
    assert caught.value.fix == "join it again"


def test_learning_forgets_at_once_what_is_no_longer_said() -> None:
    """The site that was removed, and with no registry at all every other site; ours stays."""
    trust = trust_of("gateway")
    assert trust.admit(SITE, SHOWN["their gateway"]).node == "gate"
    for left in (membership(document("uni-a", "gw")), None):
        trust.learn(left)
        with pytest.raises(IdentityError, match=r"no site known here has the trust domain uni-b\.example"):
            trust.admit(SITE, SHOWN["their gateway"])
        with pytest.raises(NotAdmittedError):
            trust.gateway_of("uni-b")
        assert trust.others() == ()
        assert trust.roots == CAS["uni-a"].certificate_pem
        assert trust.admit(NODE, SHOWN["our node"]).node == "gpu01"


def test_a_gateway_that_its_site_replaced_is_refused_though_its_certificate_lives() -> None:
    """Who is a gateway is what the registry says now."""
    trust = trust_of("gateway")
    trust.learn(membership(document("uni-a", "gw"), document("uni-b", "gate2")))
    with pytest.raises(IdentityError, match=r"gate\.uni-b\.example is not a gateway of uni-b"):
        trust.admit(SITE, SHOWN["their gateway"])
    assert trust.admit(SITE, SHOWN["their second gateway"]).node == "gate2"


def test_another_ca_for_a_site_puts_out_its_old_certificates() -> None:
    """A stolen CA ends with the registry that replaces it."""
    trust = trust_of("gateway")
    fresh = SiteAuthority.create("uni-b.example", now_s=NOW_S).certificate_pem.decode()
    trust.learn(membership(replace(document("uni-b", "gate"), authorities=(fresh,))))
    with pytest.raises(IdentityError, match="not issued by its site's CA"):
        trust.admit(SITE, SHOWN["their gateway"])


def test_the_registry_never_says_who_our_own_ca_is() -> None:
    """A registry whose signers were bought cannot bring nodes into this site."""
    trust = trust_of("gateway")
    evil = SiteAuthority.create("uni-a.example", now_s=NOW_S)
    trust.learn(membership(replace(document("uni-a", "gw"), authorities=(evil.certificate_pem.decode(),))))
    identity = NodeIdentity("uni-a.example", "gpu01")
    with pytest.raises(IdentityError):
        trust.admit(NODE, evil.issue(make_csr(new_key(), identity), identity, now_s=NOW_S))
    assert evil.certificate_pem not in trust.roots
    assert trust.admit(NODE, SHOWN["our node"]) == identity


@pytest.mark.parametrize(
    "authorities",
    [
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",),
        ("-----BEGIN nothing",),
        (CAS["uni-a"].certificate_pem.decode(),),
        (CAS["uni-c"].certificate_pem.decode() * 2,),
    ],
    ids=["no certificate", "no PEM", "another site's CA", "two in one text"],
)
def test_a_site_whose_ca_cannot_be_used_spoils_nothing_for_the_others(authorities: tuple[str, ...]) -> None:
    """One bad entry must not end the trust in every site, nor get into what the handshake accepts."""
    bad = replace(document("uni-c", "gw"), authorities=authorities)
    trust = trust_of("gateway", membership(bad, document("uni-b", "gate")))
    assert trust.admit(SITE, SHOWN["their gateway"]).node == "gate"
    assert trust.roots == CAS["uni-a"].certificate_pem + CAS["uni-b"].certificate_pem
    with pytest.raises(IdentityError):
        trust.admit(SITE, SHOWN["a stranger"])


def test_of_two_entries_for_one_trust_domain_the_first_counts_everywhere() -> None:
    """Which CA vouches and which gateways are let in must not come from two entries."""
    second = replace(document("uni-b", "gpu01"), site="uni-z", authorities=document("uni-c", "x").authorities)
    trust = trust_of("gateway", membership(document("uni-b", "gate"), second))
    assert trust.site_name(trust.admit(SITE, SHOWN["their gateway"])) == "uni-b"
    with pytest.raises(IdentityError):
        trust.admit(SITE, SHOWN["their node"])


def test_a_channel_goes_to_one_site_s_ca_and_one_name() -> None:
    """What a client believes is never the CAs of all."""
    trust = trust_of("gateway")
    assert trust.gateway_of("uni-b") == Target(
        "gate.uni-b.example:7443", NodeIdentity("uni-b.example", "gate"), CAS["uni-b"].certificate_pem
    )
    own = trust.own_node("gpu01", "10.0.0.7:7443")
    assert (own.identity.dns, own.authority) == ("gpu01.uni-a.example", CAS["uni-a"].certificate_pem)
    assert trust.own_gateway().address == "gw.uni-a.example:7443"


def test_names_of_sites_are_those_of_the_registry() -> None:
    """For sentences: our own, a member's, and the bare trust domain of whoever is none."""
    trust = trust_of("gateway")
    names = [trust.site_name(NodeIdentity(f"uni-{one}.example", "n")) for one in "abc"]
    assert names == ["uni-a", "uni-b", "uni-c.example"]


TRUST = trust_of("gateway")


@given(data=st.binary(max_size=300))
def test_bytes_that_are_no_certificate_are_refused_and_nothing_worse(data: bytes) -> None:
    """Whatever TLS lets through: IdentityError is the one answer."""
    with pytest.raises(IdentityError):
        TRUST.admit(NODE, data)
