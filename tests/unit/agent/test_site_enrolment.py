"""The rules around a join that need no port: invites, renewals, what is counted, what is the default."""

from __future__ import annotations

import asyncio
import io
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from agent.cli.confirm import confirm_by_name
from agent.cli.joining import check_clock
from agent.cli.places import label_of, next_port, own_address, place_of_registry, same_host
from agent.errors import BusyError, NodeError, RequestError
from agent.limits import CHALLENGE_LIFE_S, ENROL_BURST, MAX_CHALLENGES
from agent.rpc.enrol_client import prove_request
from agent.site.certificates import renew
from agent.site.config import SiteConfig, check_listen, default_listen
from agent.site.enrolment import Enrolment, JoinAttempt
from agent.state import SiteStore, StateFile, forget_site
from agent.text import parse_duration
from federation.errors import FederationInputError, IdentityError
from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.binding import Binding
from federation.identity.invite import Invite, decode
from federation.identity.keys import new_key
from federation.identity.names import NodeIdentity

T = TypeVar("T")
DOMAIN = "uni-a.example"
CONFIG = SiteConfig(
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
)
GPU07 = NodeIdentity(DOMAIN, "gpu07")


@dataclass
class Site:
    """A gateway without a port, and time that a test moves."""

    file: StateFile
    store: SiteStore
    authority: SiteAuthority
    enrolment: Enrolment
    now: list[float]

    async def renew(self, who: NodeIdentity, csr: bytes | None = None) -> bytes:
        request = make_csr(new_key(), who) if csr is None else csr
        return await renew(
            request, who, config=CONFIG, store=self.store, authority=self.authority, now_s=self.now[0]
        )

    async def join(self, invite: Invite, caller: str = "10.0.0.7") -> bytes:
        nonce = secrets.token_bytes(32)
        server_nonce, _ = self.enrolment.challenge(nonce, caller)
        csr = make_csr(new_key(), NodeIdentity(invite.trust_domain, invite.node))
        sent = prove_request(invite, csr, nonce, server_nonce)
        attempt = JoinAttempt(sent.token_id, sent.node, nonce, server_nonce, csr, sent.proof)
        return await self.enrolment.join(attempt, caller)


def _at(folder: Path, work: Callable[[Site], Awaitable[T]]) -> T:
    async def run() -> T:
        now = [time.time()]
        file = await StateFile.open(folder / "agent.sqlite3")
        store, authority = await SiteStore.of(file), SiteAuthority.create(DOMAIN, now_s=now[0])
        enrolment = Enrolment(store, authority, CONFIG, lambda: now[0], lambda: now[0])
        try:
            return await work(Site(file, store, authority, enrolment, now))
        finally:
            await file.close()

    return asyncio.run(run())


def test_an_invite_says_what_the_node_has_to_know(tmp_path: Path) -> None:
    """The enrolment port, the CA, the registry and its pin; it ends when it was said to."""

    async def work(site: Site) -> None:
        text, expires_at = await site.enrolment.invite("gpu07", 60.0, "")
        invite = decode(text)
        assert (invite.site, invite.trust_domain, invite.node) == ("uni-a", DOMAIN, "gpu07")
        assert invite.address == CONFIG.join_address
        assert invite.authority_pem == site.authority.certificate_pem
        assert (invite.registry_sources, invite.registry_pin.hex()) == (
            CONFIG.registry_sources,
            CONFIG.registry_pin,
        )
        assert expires_at == site.now[0] + 60

    _at(tmp_path, work)


def test_the_state_file_does_not_hold_the_secret(tmp_path: Path) -> None:
    """Who reads it cannot put the invite together again."""

    async def work(site: Site) -> bytes:
        text, _ = await site.enrolment.invite("gpu07", 60.0, "")
        assert text.rpartition(".")[2] not in repr(await site.store.invite(decode(text).token_id))
        return decode(text).secret

    secret = _at(tmp_path, work)
    assert secret not in (tmp_path / "agent.sqlite3").read_bytes()


@pytest.mark.parametrize(
    ("node", "lifetime_s", "cidr"),
    [
        ("gw", 60.0, ""),
        ("join", 60.0, ""),
        ("GPU 07", 60.0, ""),
        ("gpu07", 0.0, ""),
        ("gpu07", -1.0, ""),
        ("gpu07", float("nan"), ""),
        ("gpu07", 86401.0, ""),
        ("gpu07", 60.0, "10.0.0.7/8"),
        ("gpu07", 60.0, "anywhere"),
    ],
)
def test_an_invite_that_cannot_be_is_not_made(
    node: str, lifetime_s: float, cidr: str, tmp_path: Path
) -> None:
    """The gateway's own name, reserved names, more than a day, no network."""

    async def work(site: Site) -> None:
        with pytest.raises((RequestError, FederationInputError)):
            await site.enrolment.invite(node, lifetime_s, cidr)

    _at(tmp_path, work)


def test_a_member_gets_a_new_certificate_for_its_own_name_alone(tmp_path: Path) -> None:
    """Not for another, not from another site, not before it joined, not after it left; the gateway always."""

    async def work(site: Site) -> None:
        with pytest.raises(IdentityError):
            await site.renew(GPU07)
        await site.join(decode((await site.enrolment.invite("gpu07", 60.0, ""))[0]))
        site.now[0] += 12 * 3600
        binding = Binding({DOMAIN: [site.authority.certificate_pem]})
        assert binding.identify(await site.renew(GPU07), now_s=site.now[0]) == GPU07
        (member,) = site.store.members()
        assert member.certificate_not_after == pytest.approx(site.now[0] + 86400, abs=2)
        for csr in (make_csr(new_key(), CONFIG.identity), b"", b"\x30\x00"):
            with pytest.raises(IdentityError):
                await site.renew(GPU07, csr)
        with pytest.raises(IdentityError):
            await site.renew(NodeIdentity("uni-b.example", "gpu07"))
        await site.store.leave("gpu07", now_s=site.now[0], put_out=True)
        with pytest.raises(IdentityError, match="no member"):
            await site.renew(GPU07)
        assert binding.identify(await site.renew(CONFIG.identity), now_s=site.now[0]) == CONFIG.identity

    _at(tmp_path, work)


def test_who_was_put_out_cannot_come_back_with_its_old_invite(tmp_path: Path) -> None:
    """Neither with the one that it used, nor with one that it kept."""

    async def work(site: Site) -> None:
        used, kept = [decode((await site.enrolment.invite("gpu07", 600.0, ""))[0]) for _ in range(2)]
        await site.join(used)
        await site.store.leave("gpu07", now_s=site.now[0], put_out=True)
        for invite in (used, kept):
            with pytest.raises(Exception, match="no such invite"):
                await site.join(invite)
        await site.join(decode((await site.enrolment.invite("gpu07", 600.0, ""))[0]))
        assert site.store.is_member("gpu07")

    _at(tmp_path, work)


def test_no_flood_of_questions_fills_the_memory(tmp_path: Path) -> None:
    """Nonces that nobody uses are forgotten in time, and never more than the limit are kept."""

    async def work(site: Site) -> None:
        for number in range(20_000):
            site.now[0] += 0.02
            with suppress(BusyError):
                site.enrolment.challenge(bytes(32), f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        held = site.enrolment._challenges
        assert 1000 < len(held) <= MAX_CHALLENGES
        assert all(ends_s > site.now[0] for _, ends_s in held.values())
        site.now[0] += CHALLENGE_LIFE_S
        site.enrolment.challenge(bytes(32), "10.0.0.1")
        assert len(held) == 1

    _at(tmp_path, work)


def test_addresses_of_one_network_are_one_caller(tmp_path: Path) -> None:
    """Whoever has one IPv6 host has 2^64 addresses; an IPv4 one is the same in either form."""

    async def work(site: Site) -> None:
        for number in range(ENROL_BURST):
            site.enrolment.challenge(bytes(32), f"2001:db8::{number:x}")
            site.enrolment.challenge(bytes(32), "10.0.0.1" if number % 2 else "::ffff:10.0.0.1")
        for caller in ("2001:db8::ffff", "10.0.0.1", "::ffff:10.0.0.1"):
            with pytest.raises(BusyError):
                site.enrolment.challenge(bytes(32), caller)
        site.enrolment.challenge(bytes(32), "2001:db8:0:1::1")

    _at(tmp_path, work)


def test_a_new_site_begins_with_empty_books(tmp_path: Path) -> None:
    """Members, invites and marks of the one before are gone."""

    async def work(site: Site) -> None:
        invite = decode((await site.enrolment.invite("gpu07", 600.0, ""))[0])
        await site.join(invite)
        await forget_site(site.file)
        again = await SiteStore.of(site.file)
        assert again.members() == ()
        assert await again.invite(invite.token_id) is None

    _at(tmp_path, work)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("24h", 86400), (" 90 S ", 90), ("1d", 86400), ("1.5h", 5400)]
)
def test_a_duration_has_a_number_and_a_unit(text: str, seconds: float) -> None:
    """As people write it."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-1m", "1 week", "1e9h", "nan m", "1h30m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A number without a unit would be guessed at."""
    with pytest.raises(RequestError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("host", "label"),
    [
        ("GPU07.cluster.uni-a.example", "gpu07"),
        ("my_host", "my-host"),
        ("-x-", "x"),
        ("é9", "9"),
        ("a" * 80, "a" * 63),
    ],
)
def test_a_hosts_name_becomes_a_nodes(host: str, label: str) -> None:
    """Its first part, in the letters that a node's name may have."""
    assert label_of(host) == label


def test_a_host_without_a_usable_name_needs_one() -> None:
    """The fix names the option."""
    with pytest.raises(RequestError) as caught:
        label_of("___")
    assert "--node" in caught.value.fix


def test_where_a_node_listens_unless_told_otherwise() -> None:
    """Everywhere, but for addresses that only this machine can reach."""
    assert default_listen("gw.uni-a.example:7443") == "[::]:7443"
    assert default_listen("10.0.0.7:7443") == "[::]:7443"
    assert default_listen("127.0.0.1:7443") == "127.0.0.1:7443"
    assert default_listen("[::1]:7443") == "[::1]:7443"
    assert default_listen("localhost:7443") == "localhost:7443"
    for text in ("[::]:7443", "0.0.0.0:7443", "10.0.0.7:7443"):
        assert check_listen(text) == text
    for text in ("7443", ":7443", "[::]", "[::]:0", "*:7443", "[ff02::1]:7443"):
        with pytest.raises(FederationInputError):
            check_listen(text)


def test_the_enrolment_port_is_the_next_one_on_the_same_host() -> None:
    """Unless there is no next one."""
    assert next_port("gw.uni-a.example:7443") == "gw.uni-a.example:7444"
    assert next_port("[::1]:7443") == "[::1]:7444"
    assert same_host("[::]:7443", "gw:9000") == "[::]:9000"
    with pytest.raises(FederationInputError):
        next_port("gw:65535")


def test_a_registrys_folder_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """URLs stay as they are."""
    monkeypatch.chdir(tmp_path)
    assert place_of_registry("r") == str(tmp_path / "r")
    assert place_of_registry("https://r.example/") == "https://r.example/"


def test_a_node_finds_its_own_address_on_the_way_to_the_gateway() -> None:
    """Without sending anything."""
    assert own_address("127.0.0.1:7444") == "127.0.0.1:7443"


def test_clocks_that_differ_by_more_than_certificates_bear_stop_a_join(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A little is a warning, more is the end; which side is behind is said."""
    check_clock(0.2)
    check_clock(-12.0)
    for offset_s in (31.0, -31.0):
        with pytest.raises(NodeError, match=r"31\.0 s (behind|ahead of)"):
            check_clock(offset_s)
    words = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert words == ["OK", "WARN", "FAIL", "FAIL"]


def test_what_is_severe_is_confirmed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another name does nothing; without a terminal the option is needed."""
    confirm_by_name("It is lost.", "uni-a", "uni-a")
    with pytest.raises(RequestError, match="nothing was changed"):
        confirm_by_name("It is lost.", "uni-a", "uni-b")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(RequestError) as caught:
        confirm_by_name("It is lost.", "uni-a", None)
    assert "--confirm uni-a" in caught.value.fix
