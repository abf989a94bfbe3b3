"""The certificates in real TLS 1.3 handshakes, in memory: what OpenSSL makes of our shapes."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.keys import key_to_pem, new_key
from federation.identity.names import NodeIdentity
from federation.identity.shape import node_names

Pair = tuple[bytes, bytes]
NODE = NodeIdentity("uni-a.example", "gpu07")


@pytest.fixture(scope="module")
def site() -> SiteAuthority:
    """Site A's CA, now: OpenSSL has a clock of its own."""
    return SiteAuthority.create("uni-a.example", now_s=time.time())


@pytest.fixture
def handshake(tmp_path: Path) -> Callable[..., str]:
    """A function that shakes hands and returns ``""``, or which side refused and why."""

    def context(purpose: int, pair: Pair, roots: SiteAuthority) -> ssl.SSLContext:
        made = ssl.SSLContext(purpose)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        made.load_verify_locations(cadata=roots.certificate_pem.decode())
        (tmp_path / "pair.pem").write_bytes(pair[0] + pair[1])
        made.load_cert_chain(tmp_path / "pair.pem")
        return made

    def run(client: Pair, server: Pair, name: str, *, roots: SiteAuthority) -> str:
        callee = context(ssl.PROTOCOL_TLS_SERVER, server, roots)
        callee.verify_mode = ssl.CERT_REQUIRED
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        sides = {
            "client": context(ssl.PROTOCOL_TLS_CLIENT, client, roots).wrap_bio(
                to_client, to_server, server_hostname=name
            ),
            "server": callee.wrap_bio(to_server, to_client, server_side=True),
        }
        for _ in range(4):
            for side, at in sides.items():
                try:
                    at.do_handshake()
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as error:
                    return f"{side}: {error}"
        return ""

    return run


def pair_for(site: SiteAuthority, identity: NodeIdentity) -> Pair:
    """A node's key and certificate."""
    key = new_key()
    return key_to_pem(key), site.issue(make_csr(key, identity), identity, now_s=time.time())


def test_nodes_of_a_site_shake_hands_by_name(site: SiteAuthority, handshake) -> None:
    """Both certificates pass, for the name in them and no other."""
    client, server = pair_for(site, NodeIdentity("uni-a.example", "gpu08")), pair_for(site, NODE)
    assert handshake(client, server, NODE.dns, roots=site) == ""
    assert handshake(client, server, "gpu09.uni-a.example", roots=site).startswith("client: ")


def test_the_enrolment_port_serves_under_its_name_and_calls_nobody(site: SiteAuthority, handshake) -> None:
    """Its certificate is a server's ``join.TRUST-DOMAIN``; as a client's it is refused."""
    node, port = pair_for(site, NODE), site.issue_join(now_s=time.time())
    assert handshake(node, port, "join.uni-a.example", roots=site) == ""
    assert handshake(port, node, NODE.dns, roots=site).startswith("server: ")


@pytest.mark.parametrize(
    "names",
    [
        [x509.DNSName("gpu07.uni-b.example"), x509.UniformResourceIdentifier(NODE.uri)],
        [x509.DNSName(NODE.dns), x509.UniformResourceIdentifier("spiffe://uni-b.example/node/gpu07")],
        list(node_names(NodeIdentity("uni-b.example", "gpu07"))),
    ],
    ids=["DNS", "URI", "both"],
)
def test_the_cas_constraints_stop_forged_names_in_the_handshake(
    site: SiteAuthority, handshake, shop, names: list[x509.GeneralName]
) -> None:
    """Another site's DNS name or URI below our CA does not pass TLS, before anybody looks at shapes."""
    key = new_key()
    forged = shop.forge(
        names, signer=site, key=key.public_key(), begins_s=time.time() - 5, ends_s=time.time() + 600
    )
    answer = handshake((key_to_pem(key), forged), pair_for(site, NODE), NODE.dns, roots=site)
    assert answer.startswith("server: ")
    assert "permitted subtree" in answer
