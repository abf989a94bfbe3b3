"""Hints: what is read from announcements, and a table that no flood makes large."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.discovery.hints import Claim, Hint, Hints, Role, format_address, parse_txt, txt_of
from federation.errors import FederationInputError
from federation.limits import (
    MAX_HINT_SITES,
    MAX_HINTS_PER_NAME,
    MAX_HINTS_PER_NAME_AND_HOST,
    MAX_HINTS_PER_SITE,
    MAX_TXT_BYTES,
)

OWN = "pyrdma.uni-a.example"
REAL = Hint(OWN, "gpu07", "10.0.0.7:7443", Role.NODE, 0.0)
GOOD = txt_of(Claim(OWN, "gpu07", Role.NODE))


def _hint(site: int, node: int, host: int, port: int) -> Hint:
    return Hint(f"s{site}.example", f"n{node}", f"10.0.{host // 250}.{host % 250 + 1}:{port}", Role.NODE, 0.0)


# Few names or many, few hosts or many: floods of every shape.
FLOODS = st.tuples(*(st.integers(1, bound) for bound in (40, 100, 500, 50))).flatmap(
    lambda bounds: st.lists(st.builds(_hint, *(st.integers(1, bound) for bound in bounds)), max_size=300)
)


@given(FLOODS)
def test_no_flood_makes_the_table_large(flood: list[Hint]) -> None:
    """After each hint every bound holds, and what was heard last is there."""
    hints = Hints("s1.example")
    for hint in flood:
        hints.add(hint)
        site = hints.of_site(hint.trust_domain)
        assert site[0] == hint
        assert len(site) <= MAX_HINTS_PER_SITE
        assert len(hints) <= MAX_HINT_SITES * MAX_HINTS_PER_SITE
        of_node = [other for other in site if other.node == hint.node]
        assert hints.addresses(hint.trust_domain, hint.node) == tuple(other.address for other in of_node)
        assert len(of_node) <= MAX_HINTS_PER_NAME
        assert sum(other.host == hint.host for other in of_node) <= MAX_HINTS_PER_NAME_AND_HOST
    assert len({hint.trust_domain for hint in flood if hints.of_site(hint.trust_domain)}) <= MAX_HINT_SITES


@given(FLOODS, st.data())
def test_what_is_removed_is_gone(flood: list[Hint], data: st.DataObject) -> None:
    """Removing every hint, in any order, leaves an empty table; removing one again changes nothing."""
    hints = Hints("s1.example")
    for hint in flood:
        hints.add(hint)
    for hint in data.draw(st.permutations(flood)):
        hints.remove(hint)
        hints.remove(hint)
        assert hint.address not in hints.addresses(hint.trust_domain, hint.node)
    assert len(hints) == 0


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 65535)), max_size=300))
def test_one_host_displaces_no_other(flood: list[tuple[int, int]]) -> None:
    """Whatever names and ports one host claims, the address of another host stays."""
    hints = Hints(OWN)
    hints.add(REAL)
    for node, port in flood:
        hints.add(Hint(OWN, f"n{node}", f"10.6.6.6:{port}", Role.NODE, 0.0))
        hints.add(Hint(OWN, REAL.node, f"10.6.6.6:{port}", Role.NODE, 0.0))
    assert REAL.address in hints.addresses(OWN, REAL.node)


def test_one_host_that_fills_the_site_displaces_no_other() -> None:
    """Far more names than the site has places, all at one host, leave the other host's hint where it is."""
    hints = Hints(OWN)
    hints.add(REAL)
    for node in range(2000):
        hints.add(Hint(OWN, f"n{node}", "10.6.6.6:1", Role.NODE, 0.0))
    assert len(hints) == MAX_HINTS_PER_SITE
    assert hints.addresses(OWN, REAL.node) == (REAL.address,)


def test_one_host_has_few_places_of_a_node() -> None:
    """Ports of one host take two of a node's places, the newest."""
    hints = Hints(OWN)
    for port in range(1, 6):
        hints.add(replace(REAL, address=f"10.6.6.6:{port}"))
    assert hints.addresses(OWN, REAL.node) == ("10.6.6.6:5", "10.6.6.6:4")


def test_a_site_without_hints_takes_no_place() -> None:
    """The last hint that is removed makes room for another site."""
    hints = Hints(OWN)
    for site in range(MAX_HINT_SITES):
        hints.add(replace(REAL, trust_domain=f"s{site}.example"))
    hints.remove(replace(REAL, trust_domain="s7.example"))
    hints.add(REAL)
    assert hints.of_site("s0.example")


def test_other_sites_do_not_displace_the_own() -> None:
    """A flood of invented trust domains leaves this node's site; the oldest of the others give way."""
    hints = Hints(OWN)
    hints.add(REAL)
    for site in range(100):
        hints.add(replace(REAL, trust_domain=f"s{site}.example"))
    assert hints.of_site(OWN) == (REAL,)
    assert not hints.of_site("s0.example")
    assert hints.of_site("s99.example")


def test_where_nobody_is_greedier_the_oldest_goes() -> None:
    """Claims from as many hosts as one likes keep the newest, newest first."""
    hints = Hints(OWN)
    heard = [replace(REAL, address=f"10.0.1.{host}:7443") for host in range(1, 20)]
    for hint in heard:
        hints.add(hint)
    kept = heard[: -MAX_HINTS_PER_NAME - 1 : -1]
    assert hints.addresses(OWN, REAL.node) == tuple(hint.address for hint in kept)


def test_a_hint_heard_again_is_the_newest() -> None:
    """The same address twice is one hint, in front, with its new time."""
    hints = Hints(OWN)
    other = replace(REAL, address="10.0.0.8:7443")
    again = replace(REAL, seen_at_s=9.0)
    for hint in (REAL, other, again):
        hints.add(hint)
    assert hints.of_site(OWN) == (again, other)


def test_a_claim_survives_its_text() -> None:
    """What one node writes another one reads, and keys of a newer version do no harm."""
    claim = Claim(OWN, "gpu07", Role.GATEWAY)
    assert parse_txt(txt_of(claim) | {b"new": b"x", b"flag": None}) == claim


PIECES = st.one_of(
    st.binary(max_size=300), st.sampled_from([*GOOD, *(value for value in GOOD.values() if value)])
)


@given(st.dictionaries(PIECES, st.none() | PIECES, max_size=30), st.booleans())
def test_any_text_is_a_claim_or_refused(properties: dict[bytes, bytes | None], mixed: bool) -> None:
    """Bytes of strangers give names that a certificate can have, or a refusal of our own kind."""
    try:
        claim = parse_txt(GOOD | properties if mixed else properties)
    except FederationInputError:
        return
    assert parse_txt(txt_of(claim)) == claim


@pytest.mark.parametrize(
    "change",
    [
        {b"v": b"2"},
        {b"v": None},
        {b"td": b"Pyrdma.Uni-A.example"},
        {b"td": b"local"},
        {b"td": b"a.example\x00"},
        {b"td": None},
        {b"node": b"gpu07\n"},
        {b"node": b"a.b"},
        {b"node": "gpü".encode()},
        {b"node": b""},
        {b"role": b"king"},
        {b"role": b""},
        {b"more": b"x" * MAX_TXT_BYTES},
    ],
)
def test_a_text_that_is_off_is_refused(change: dict[bytes, bytes | None]) -> None:
    """One wrong key is enough."""
    with pytest.raises(FederationInputError):
        parse_txt(GOOD | change)


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_a_text_that_lacks_a_key_is_refused(missing: bytes) -> None:
    """All four keys are needed."""
    with pytest.raises(FederationInputError):
        parse_txt({key: value for key, value in GOOD.items() if key != missing})


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("gpu07.example", 1),
        ("", 1),
        ("::1", 1),
        ("010.0.0.1", 1),
        ("0.0.0.0", 1),
        ("224.0.0.251", 1),
        ("255.255.255.255", 1),
        ("10.0.0.1", 0),
        ("10.0.0.1", 65536),
        ("10.0.0.1\n", 1),
    ],
)
def test_an_address_that_nobody_can_dial_is_refused(host: str, port: int) -> None:
    """Names, addresses of nobody and of many, and ports that are none."""
    with pytest.raises(FederationInputError):
        format_address(host, port)


@given(st.text(), st.integers())
def test_any_host_and_port_are_an_address_or_refused(host: str, port: int) -> None:
    """Nothing but our own refusal comes out."""
    try:
        address = format_address(host, port)
    except FederationInputError:
        return
    assert address == f"{host}:{port}"
