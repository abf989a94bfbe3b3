"""The site's folder: whole or not there, its owner's alone, refused with a sentence when it is damaged."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import StateError
from agent.site.certificates import JoinCertificate, next_renewal_s
from agent.site.config import SiteConfig, decode
from agent.site.home import SiteHome
from agent.site.rates import Rate, Rates
from agent.site.request import public_pem, site_request
from federation.errors import FederationInputError, IdentityError
from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.keys import key_from_pem, key_to_pem, new_key
from federation.identity.names import NodeIdentity
from federation.registry.request import decode_request

DOMAIN = "uni-a.example"
GATEWAY = SiteConfig(
    site="uni-a",
    trust_domain=DOMAIN,
    node="gw",
    role="gateway",
    address="gw.uni-a.example:7443",
    listen="[::]:7443",
    gateway_node="gw",
    gateway_address="gw.uni-a.example:7443",
    join_address="gw.uni-a.example:7444",
    join_listen="[::]:7444",
    registry_sources=("https://registry.example/",),
    registry_pin="ab" * 32,
    region="eu-north",
)
NODE = replace(
    GATEWAY, node="gpu07", role="node", address="10.0.0.7:7443", join_address="", join_listen="", region=""
)


def _gateway(folder: Path) -> SiteHome:
    home = SiteHome(folder / "site")
    home.create_gateway(GATEWAY, now_s=time.time())
    return home


def _node(folder: Path) -> SiteHome:
    authority = SiteAuthority.create(DOMAIN, now_s=time.time())
    key = new_key()
    home = SiteHome(folder / "site")
    home.create_node(
        NODE,
        key_pem=key_to_pem(key),
        certificate_pem=authority.issue(make_csr(key, NODE.identity), NODE.identity, now_s=time.time()),
        authority_pem=authority.certificate_pem,
    )
    return home


@pytest.mark.parametrize(("make", "config"), [(_gateway, GATEWAY), (_node, NODE)])
def test_a_home_says_again_what_it_was_made_from(
    make: Callable[[Path], SiteHome], config: SiteConfig, tmp_path: Path
) -> None:
    """Every field; the files are their owner's alone; nothing else is left beside them."""
    home = make(tmp_path)
    assert home.exists
    assert home.load() == config
    assert {one.stat().st_mode & 0o777 for one in home.folder.iterdir()} == {0o600}
    assert home.folder.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in tmp_path.iterdir()] == ["site"]
    assert all(getattr(GATEWAY, field.name) for field in fields(GATEWAY)), "no forgotten field hides here"


def test_only_a_gateway_has_the_keys_of_the_site(tmp_path: Path) -> None:
    """A node's folder holds no CA key and no models key."""
    assert {one.name for one in _node(tmp_path).folder.iterdir()} == {
        *("ca.pem", "node.key", "node.pem", "site.json")
    }


def test_a_second_site_is_refused_and_the_first_stays(tmp_path: Path) -> None:
    """The fix names the command that leaves."""
    home = _gateway(tmp_path)
    before = home.authority_pem
    with pytest.raises(StateError, match="there already") as caught:
        home.create_gateway(GATEWAY, now_s=time.time())
    assert "leave" in caught.value.fix
    assert home.authority_pem == before


def test_a_site_of_before_there_were_receipts_gets_its_key_when_it_is_asked_for(tmp_path: Path) -> None:
    """Its folder loads without; the key is made once, its owner's alone, and stands in the next request."""
    home = _gateway(tmp_path)
    (home.folder / "receipts.key").unlink()
    assert home.load() == GATEWAY
    assert not (home.folder / "receipts.key").exists()
    made = public_pem(home.receipts_key())
    assert made == public_pem(home.receipts_key()) == public_pem(SiteHome(home.folder).receipts_key())
    assert (home.folder / "receipts.key").stat().st_mode & 0o777 == 0o600
    assert not list(home.folder.glob(".*"))
    assert decode_request(site_request(home, GATEWAY)).document.receipts_key == made
    assert home.load() == GATEWAY


@pytest.mark.parametrize("damage", [b"", b"no key", key_to_pem(new_key())])
def test_a_damaged_receipts_key_is_never_replaced_by_a_guess(damage: bytes, tmp_path: Path) -> None:
    """Receipts under it may be out: another key would make them worthless without anybody's knowledge."""
    home = _gateway(tmp_path)
    (home.folder / "receipts.key").write_bytes(damage)
    for reading in (home.load, home.receipts_key):
        with pytest.raises(StateError, match="damaged"):
            reading()
    assert (home.folder / "receipts.key").read_bytes() == damage


def test_two_who_make_the_receipts_key_at_once_get_the_same(tmp_path: Path) -> None:
    """``init`` repeated beside a running gateway: what one has put into a request, the other signs with."""
    home = _gateway(tmp_path)
    (home.folder / "receipts.key").unlink()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: public_pem(SiteHome(home.folder).receipts_key()), range(8)))
    assert len(set(made)) == 1


@pytest.mark.parametrize("name", ["ca.key", "ca.pem", "models.key", "node.key", "node.pem", "site.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "endless", "another", "a folder"])
def test_a_damaged_file_is_refused_with_a_fix(damage: str, name: str, tmp_path: Path) -> None:
    """Whatever happened to whichever file: the sentence says that the folder is damaged, and what to do."""
    home = _gateway(tmp_path)
    path = home.folder / name
    match damage:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "garbage":
            path.write_bytes(b"\xff\x00" * 40)
        case "endless":
            path.write_bytes(path.read_bytes() + b"\n" * (1 << 20))
        case "a folder":
            path.unlink()
            path.mkdir(mode=0o700)
        case "another":
            if name == "models.key":
                path.write_bytes(key_to_pem(new_key()))
            elif name == "site.json":
                path.write_bytes(replace(GATEWAY, node="gw2", gateway_node="gw2").encode())
            else:
                other = SiteHome(tmp_path / "other")
                other.create_gateway(GATEWAY, now_s=time.time())
                path.write_bytes((other.folder / name).read_bytes())
    with pytest.raises(StateError, match="is damaged") as caught:
        home.load()
    assert "leave" in caught.value.fix


@pytest.mark.parametrize("name", ["", "site.json", "ca.key", "node.key"])
def test_what_others_can_read_is_refused_with_a_fix(name: str, tmp_path: Path) -> None:
    """A key that others may know is no secret; chmod is named."""
    home = _gateway(tmp_path)
    path = home.folder / name
    path.chmod(0o750 if path.is_dir() else 0o640)
    with pytest.raises(StateError, match="others may read") as caught:
        home.load()
    assert "chmod" in caught.value.fix


def test_an_attempt_that_was_interrupted_leaves_no_site_and_is_in_nobodys_way(tmp_path: Path) -> None:
    """Half of a folder stands under another name; the next attempt begins anew."""
    half = tmp_path / "site.new"
    half.mkdir()
    (half / "ca.key").write_bytes(b"half")
    home = SiteHome(tmp_path / "site")
    assert not home.exists
    home.create_gateway(GATEWAY, now_s=time.time())
    assert home.load() == GATEWAY


def test_leaving_is_one_step_and_can_be_repeated(tmp_path: Path) -> None:
    """After it the node is of no site, and can be of another; what an interruption left is cleared."""
    home = _gateway(tmp_path)
    (tmp_path / "site.gone").mkdir()
    home.remove()
    assert not home.exists
    assert list(tmp_path.iterdir()) == []
    home.remove()
    home.create_gateway(GATEWAY, now_s=time.time())


def test_a_new_certificate_takes_the_old_ones_place(tmp_path: Path) -> None:
    """Only one of this node, of its key, from its CA does; else the old one stays."""
    home = _gateway(tmp_path)
    authority, key, now_s = home.site_authority(), key_from_pem(home.node_key_pem), time.time()
    new = authority.issue(make_csr(key, GATEWAY.identity), GATEWAY.identity, now_s=now_s)
    home.replace_certificate(new)
    assert home.certificate_pem == new
    other = NodeIdentity(DOMAIN, "gpu01")
    stranger = SiteAuthority.create(DOMAIN, now_s=now_s)
    for wrong in (
        authority.issue(make_csr(key, other), other, now_s=now_s),
        authority.issue(make_csr(new_key(), GATEWAY.identity), GATEWAY.identity, now_s=now_s),
        stranger.issue(make_csr(key, GATEWAY.identity), GATEWAY.identity, now_s=now_s),
        b"",
    ):
        with pytest.raises(IdentityError):
            home.replace_certificate(wrong)
    assert home.certificate_pem == new
    assert home.load() == GATEWAY


def test_a_node_keeps_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    """A certificate from another CA than the invite's makes no home."""
    mine, other = (SiteAuthority.create(DOMAIN, now_s=time.time()) for _ in range(2))
    key = new_key()
    certificate = other.issue(make_csr(key, NODE.identity), NODE.identity, now_s=time.time())
    home = SiteHome(tmp_path / "site")
    with pytest.raises(IdentityError):
        home.create_node(
            NODE,
            key_pem=key_to_pem(key),
            certificate_pem=certificate,
            authority_pem=mine.certificate_pem,
        )
    assert not home.exists


def test_an_expired_certificate_does_not_damage_a_home(tmp_path: Path) -> None:
    """A node that was off for a week must still be able to say who it was."""
    home = SiteHome(tmp_path / "site")
    home.create_gateway(GATEWAY, now_s=time.time() - 14 * 86400)
    assert home.load() == GATEWAY


def test_a_site_without_room_on_the_disk_is_not_made(tmp_path: Path) -> None:
    """A folder that cannot be written stands for every way in which writing fails."""
    (tmp_path / "state").write_bytes(b"no folder")
    with pytest.raises(StateError, match="cannot be written") as caught:
        SiteHome(tmp_path / "state" / "site").create_gateway(GATEWAY, now_s=time.time())
    assert "disk" in caught.value.fix


def test_the_request_carries_what_the_consortium_needs_and_no_secret(tmp_path: Path) -> None:
    """Its proofs hold; no private key is in it."""
    home = _gateway(tmp_path)
    data = site_request(home, home.load())
    document = decode_request(data).document
    assert (document.site, document.trust_domain, document.region) == ("uni-a", DOMAIN, "eu-north")
    assert document.authorities == (home.authority_pem.decode(),)
    assert [(one.node, one.address) for one in document.gateways] == [("gw", "gw.uni-a.example:7443")]
    assert b"PRIVATE" not in data


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "Uni A"},
        {"trust_domain": "uni"},
        {"node": "join", "gateway_node": "join"},
        {"address": "gw"},
        {"listen": "gw:0"},
        {"join_address": ""},
        {"gateway_node": "other"},
        {"role": "node"},
        {"registry_pin": ""},
        {"registry_sources": ()},
        {"registry_pin": "AB" * 32},
        {"registry_sources": ("x",) * 9},
        {"registry_sources": ("a\nb",)},
        {"region": "a" * 65},
        {"region": "\x1b[2J"},
    ],
)
def test_a_place_that_cannot_be_is_refused(changes: dict[str, object]) -> None:
    """By the one who makes it, before anything is written."""
    with pytest.raises(FederationInputError):
        replace(GATEWAY, **changes)  # type: ignore[arg-type]


@given(st.binary(max_size=300) | st.sampled_from(list(json.loads(GATEWAY.encode()))))
def test_no_content_of_the_file_is_a_defect(data: bytes | str) -> None:
    """It is a place, or a sentence: any bytes, and a right file with one value of another kind."""
    if isinstance(data, str):
        data = json.dumps(json.loads(GATEWAY.encode()) | {data: 7.5}).encode()
    with pytest.raises(FederationInputError):
        decode(data)


@given(begins=st.floats(0, 2e9), life=st.floats(1, 1e7), jitter=st.floats(-1, 1))
def test_a_certificate_is_renewed_between_four_and_six_tenths_of_its_life(
    begins: float, life: float, jitter: float
) -> None:
    """Early enough for many tries, spread so that nodes do not come together."""
    at = next_renewal_s(begins, begins + life, jitter=jitter)
    assert begins + 0.4 * life - 1 <= at <= begins + 0.6 * life + 1


def test_the_enrolment_port_shows_one_certificate_until_half_of_its_life() -> None:
    """Then a new one, and no node's name is in either."""
    now = [time.time()]
    shown = JoinCertificate(SiteAuthority.create(DOMAIN, now_s=now[0]), lambda: now[0])
    first = shown.current()
    now[0] += 11 * 3600
    assert shown.current() == first
    now[0] += 2 * 3600
    assert shown.current() != first


@given(
    calls=st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 3, allow_nan=False)), min_size=1, max_size=200
    )
)
def test_no_pattern_of_calls_beats_the_rates_or_fills_the_memory(calls: list[tuple[str, float]]) -> None:
    """In every stretch of time, for each caller and for all: at most the burst and what was earned."""
    rates = Rates(Rate(3, 1.0), Rate(6, 2.0), callers=4)
    now, allowed = 0.0, list[tuple[float, str]]()
    for caller, pause in calls:
        now += pause
        if rates.allow(caller, now):
            allowed.append((now, caller))
        assert len(rates._left) <= 4
    for number, (begin, _) in enumerate(allowed):
        for count, (end, _) in enumerate(allowed[number:], start=1):
            assert count <= 6 + 2.0 * (end - begin) + 1e-6


def test_a_caller_that_waits_may_call_again_and_others_are_not_in_its_bucket() -> None:
    """A flood of one does not stop another until all of them together are too many."""
    rates = Rates(Rate(3, 1.0), Rate(100, 100.0), callers=10)
    assert [rates.allow("a", 0.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert rates.allow("b", 0.0)
    assert not rates.allow("a", 0.5)
    assert rates.allow("a", 1.0)
