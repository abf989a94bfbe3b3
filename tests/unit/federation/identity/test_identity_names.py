"""Names of nodes, trust domains and addresses; fingerprints that people compare."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import FederationInputError
from federation.identity.keys import fingerprint
from federation.identity.names import (
    NodeIdentity,
    check_address,
    check_node,
    check_trust_domain,
    parse_identity,
)

_LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(node=_LABELS.filter(lambda text: text != "join"), domain=st.lists(_LABELS, min_size=2, max_size=4))
def test_a_nodes_two_names_say_that_node(node: str, domain: list[str]) -> None:
    """What a node's identity writes is read as the same identity."""
    identity = NodeIdentity(".".join(domain), node)
    assert parse_identity(identity.dns, identity.uri) == identity


@pytest.mark.parametrize("name", ["join", "", "-a", "a-", "a.b", "A", "a" * 64, "ä", "a\n", "a b"])
def test_a_node_has_a_label_of_its_own(name: str) -> None:
    """No label, or the enrolment port's name: refused."""
    with pytest.raises(FederationInputError):
        check_node(name)


@pytest.mark.parametrize(
    "name", ["example", "uni..example", "uni-a.example.", "1.2.3", "uni-a.7", "a" * 64 + ".example"]
)
def test_a_trust_domain_is_no_address_and_no_single_label(name: str) -> None:
    """What is not a DNS name of two labels, or could become an IP address below it, is refused."""
    with pytest.raises(FederationInputError):
        check_trust_domain(name)


@pytest.mark.parametrize(
    "address",
    [
        "localhost:1",
        "gw.uni-a.example:7443",
        "127.0.0.1:65535",
        "10.1.2.3:80",
        "[::1]:7443",
        "[2001:db8::7]:7443",
    ],
)
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    """Names, IPv4 addresses, and IPv6 addresses in brackets pass as they are."""
    assert check_address(address) == address


@pytest.mark.parametrize(
    "address",
    [
        *("", ":1", "a", "a:", "a:0", "a:01", "a:65536", "a:1\n", "a: 1", "a:-1", "a:٣"),
        *(
            "A:1",
            "a..b:1",
            "a b:1",
            "-a:1",
            "1.2.3:1",
            "256.1.1.1:1",
            "a" * 254 + ":1",
            "a@b:1",
            "http://a:1",
        ),
        *(
            "::1:80",
            "[::1:1",
            "::1]:1",
            "[1.2.3.4]:1",
            "1.2.3.4]:1",
            "[[::1]]:1",
            "[fe80::1%eth0]:1",
            "[::FF]:1",
        ),
        *("0.0.0.0:1", "[::]:1", "224.0.0.1:1", "[ff02::1]:1"),
    ],
)
def test_what_no_other_machine_can_dial_is_no_address(address: str) -> None:
    """Wrong forms, and addresses that stand for no one machine, are refused."""
    with pytest.raises(FederationInputError):
        check_address(address)


def test_a_fingerprint_is_read_in_groups() -> None:
    """Four characters at a time, all of the digest."""
    assert fingerprint(bytes(range(6))) == "0001 0203 0405"
    assert len(fingerprint(bytes(32)).split()) == 16
