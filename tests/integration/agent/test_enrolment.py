"""A node joins over a real port with real TLS: what is let in, and what nobody gets to see."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from enrolment_gateway import (
    DOMAIN,
    Site,
    at_gateway,
    csr_of,
    free_port,
    honest_request,
    identity_of,
    join,
    make_gateway,
    raised,
    refusal,
    stub_of,
)

from agent.errors import NodeError, PeerNodeError, SocketInUseError
from agent.limits import CHALLENGE_LIFE_S
from agent.rpc.enrol_client import EnrolClient, check_server
from agent.rpc.enrolment import EnrolmentService, enrolment_credentials, start_enrolment_server
from agent.site.draft import JoinDraft
from agent.site.enrolment import Enrolment
from agent.site.home import SiteHome
from agent.state import SiteStore, StateFile
from federation.errors import (
    EnrolmentError,
    IdentityError,
    InviteExpiredError,
    InviteMismatchError,
    InviteUsedError,
)
from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.binding import Binding
from federation.identity.invite import Invite, decode
from federation.identity.keys import key_to_pem, new_key
from federation.identity.names import NodeIdentity

STAND_IN = Path(__file__).with_name("enrolment_stand_in.py")


def test_a_node_joins_and_is_a_member_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    """The certificate proves the node under the site's CA; the clocks are compared first."""
    offsets: list[float] = []

    async def work(site: Site) -> None:
        invite = await site.invite(cidr="127.0.0.0/8")
        await check_server(invite)
        async with EnrolClient(invite) as client:
            offsets.append(await client.challenge())
            enrolled = await client.join(csr_of(invite))
        binding = Binding({DOMAIN: [site.authority.certificate_pem]})
        assert binding.identify(enrolled.certificate_pem, now_s=time.time()) == identity_of(invite)
        assert (enrolled.gateway_node, enrolled.gateway_address) == ("gw", "127.0.0.1:7443")
        assert site.store.is_member("gpu07")

    at_gateway(tmp_path, work)
    assert [abs(offset) < 5 for offset in offsets] == [True]


def test_an_invite_lets_in_one_key_once(tmp_path: Path) -> None:
    """Another request with the same invite is refused by name, and changes nothing."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        first = await join(invite)
        error = await raised(join(invite))
        assert type(error) is InviteUsedError
        record = await site.store.invite(invite.token_id)
        assert record is not None
        assert record.certificate_pem == first.certificate_pem

    at_gateway(tmp_path, work)


def test_a_request_that_was_heard_cannot_be_sent_again(tmp_path: Path) -> None:
    """Its nonce was good once, whatever the outcome."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        async with stub_of(invite) as stub:
            request = await honest_request(stub, invite, csr_of(invite))
            await stub.Join(request, timeout=5)
            error = await refusal(stub.Join(request, timeout=5))
        assert type(error) is EnrolmentError

    at_gateway(tmp_path, work)


def test_a_nonce_is_good_for_a_minute(tmp_path: Path) -> None:
    """Then the proof is refused, and the invite is as it was."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        async with stub_of(invite) as stub:
            request = await honest_request(stub, invite, csr_of(invite))
            site.clock.ahead_s += CHALLENGE_LIFE_S + 1
            assert type(await refusal(stub.Join(request, timeout=5))) is EnrolmentError
        await join(invite)

    at_gateway(tmp_path, work)


def test_an_invite_ends_with_its_time(tmp_path: Path) -> None:
    """The sentence says so, and nobody becomes a member."""

    async def work(site: Site) -> None:
        invite = await site.invite(lifetime_s=60.0)
        site.clock.ahead_s += 61
        assert type(await raised(join(invite))) is InviteExpiredError
        assert not site.store.is_member("gpu07")

    at_gateway(tmp_path, work)


def test_an_invite_is_for_one_node_and_one_network(tmp_path: Path) -> None:
    """Another name, another secret, another network, an unknown invite: none joins, none uses it up."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        elsewhere = await site.invite("gpu08", cidr="10.1.0.0/16")
        liars = [
            replace(invite, node="gpu09"),
            replace(invite, secret=bytes(16)),
            replace(invite, token_id=bytes(8)),
            elsewhere,
        ]
        errors = [await raised(join(one)) for one in liars]
        assert [type(error) for error in errors] == [InviteMismatchError] * 4
        assert errors[1].message == errors[2].message, (
            "who has no secret does not learn which invites there are"
        )
        assert site.store.members() == ()
        await join(invite)

    at_gateway(tmp_path, work)


def test_the_same_request_has_the_same_answer(tmp_path: Path) -> None:
    """A node whose answer was lost asks again, and is one member with one certificate."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        csr = csr_of(invite)
        async with stub_of(invite) as stub:
            lost = stub.Join(await honest_request(stub, invite, csr), timeout=5)
            await lost  # the site has answered; the node, we say, has not heard it
        before = site.store.members()
        again = await join(invite, csr)
        assert again.certificate_pem == (await lost).certificate
        assert site.store.members() == before

    at_gateway(tmp_path, work)


@contextmanager
def _process(state: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(STAND_IN), str(state), *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_gateway_that_is_killed_before_it_answers_answers_after(tmp_path: Path) -> None:
    """The decision and the certificate are in its books; the second try gets that certificate."""
    config = make_gateway(tmp_path)
    home = SiteHome(tmp_path / "site")

    async def books() -> tuple[SiteStore, StateFile]:
        file = await StateFile.open(tmp_path / "agent.sqlite3")
        return await SiteStore.of(file), file

    async def make() -> Invite:
        store, file = await books()
        text, _ = await Enrolment(store, home.site_authority(), config).invite("gpu07", 600.0, "")
        await file.close()
        return decode(text)

    async def written(invite: Invite) -> bytes | None:
        store, file = await books()
        record = await store.invite(invite.token_id)
        assert store.is_member("gpu07")
        await file.close()
        return record.certificate_pem if record else None

    invite = asyncio.run(make())
    csr = csr_of(invite)
    with _process(tmp_path, "dies") as process:
        assert isinstance(asyncio.run(raised(join(invite, csr))), PeerNodeError)
        assert process.wait(10) == -9
    issued = asyncio.run(written(invite))
    assert issued is not None
    with _process(tmp_path):
        assert asyncio.run(join(invite, csr)).certificate_pem == issued
        assert type(asyncio.run(raised(join(invite)))) is InviteUsedError


def test_a_node_that_is_killed_in_the_middle_joins_with_the_same_request(tmp_path: Path) -> None:
    """Its key and request are on disk before they are sent; another invite begins anew."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        draft = JoinDraft.begin(tmp_path / "site.join", invite)
        first = await join(invite, draft.csr)
        again = JoinDraft.begin(tmp_path / "site.join", invite)
        assert (again.key_pem, again.csr) == (draft.key_pem, draft.csr)
        assert (await join(invite, again.csr)).certificate_pem == first.certificate_pem
        other = await site.invite()
        assert JoinDraft.begin(tmp_path / "site.join", other).csr != draft.csr

    at_gateway(tmp_path, work)


@contextmanager
def _server_in_between(key: bytes, certificate: bytes, folder: Path) -> Iterator[tuple[str, bytearray]]:
    """A TLS server of its own; yields its address, and what it was sent after the greeting."""
    (folder / "m.key").write_bytes(key)
    (folder / "m.pem").write_bytes(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "m.pem", folder / "m.key")
    context.set_alpn_protocols(["h2"])
    heard = bytearray()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(5)
            try:
                with context.wrap_socket(connection, server_side=True) as stream:
                    heard.extend(stream.recv(65536))
            except OSError:  # SSLError is one
                connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize("who", ["another CA", "a node of the site"])
def test_a_server_in_between_hears_nothing(who: str, tmp_path: Path) -> None:
    """One with the right name from another CA, and a node of the right CA: no byte follows the greeting."""
    now_s = time.time()

    async def work(site: Site) -> None:
        if who == "another CA":
            key, certificate = SiteAuthority.create(DOMAIN, now_s=now_s).issue_join(now_s=now_s)
        else:
            node, private = NodeIdentity(DOMAIN, "gpu01"), new_key()
            key = key_to_pem(private)
            certificate = site.authority.issue(make_csr(private, node), node, now_s=now_s)
        invite = await site.invite()
        with _server_in_between(key, certificate, tmp_path) as (address, heard):
            there = replace(invite, address=address)
            error = await raised(check_server(there))
            assert type(error) is IdentityError
            assert "another server answers" in error.message
            # And without the look ahead: the call itself trusts nobody else either.
            assert isinstance(await raised(join(there)), PeerNodeError)
        assert heard == b""
        await join(invite)

    at_gateway(tmp_path, work)


def test_the_server_in_between_would_hear_a_join_that_trusts_it(tmp_path: Path) -> None:
    """The test above can fail: whoever believes the other CA does send bytes."""
    now_s = time.time()
    other = SiteAuthority.create(DOMAIN, now_s=now_s)

    async def work(site: Site) -> None:
        invite = await site.invite()
        with _server_in_between(*other.issue_join(now_s=now_s), tmp_path) as (address, heard):
            trusting = replace(invite, address=address, authority_pem=other.certificate_pem)
            await check_server(trusting)
            await raised(join(trusting))
        assert heard != b""

    at_gateway(tmp_path, work)


def test_nobody_there_is_said_with_a_fix(tmp_path: Path) -> None:
    """So is a server that speaks no TLS."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        nowhere = replace(invite, address=f"127.0.0.1:{free_port()}")
        error = await raised(check_server(nowhere))
        assert isinstance(error, PeerNodeError)
        assert "firewall" in error.fix

        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert isinstance(
            await raised(check_server(replace(invite, address=f"127.0.0.1:{port}"))), IdentityError
        )
        server.close()
        await server.wait_closed()

    at_gateway(tmp_path, work)


def test_a_certificate_of_another_time_is_said_to_be_a_matter_of_clocks(tmp_path: Path) -> None:
    """A clock that is an hour behind must not look like an attack."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        later = enrolment_credentials(site.authority, lambda: time.time() + 3600)
        config = replace(site.config, join_listen=f"127.0.0.1:{free_port()}")
        server = await start_enrolment_server(config, EnrolmentService(site.enrolment, config), later)
        try:
            error = await raised(check_server(replace(invite, address=config.join_listen)))
        finally:
            await server.stop(0)
        assert type(error) is NodeError
        assert "clock" in error.fix

    at_gateway(tmp_path, work)


def test_the_sites_clock_is_known_before_the_secret_is_proven(tmp_path: Path) -> None:
    """A gateway two minutes ahead; the invite is unused until the proof."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        site.clock.ahead_s = 120
        async with EnrolClient(invite) as client:
            assert abs(await client.challenge() - 120) < 5
        record = await site.store.invite(invite.token_id)
        assert record is not None
        assert record.used_csr_sha256 is None

    at_gateway(tmp_path, work)


def test_a_port_in_use_is_said_with_a_fix(tmp_path: Path) -> None:
    """Two gateways on one port are an error, not a lottery."""

    async def work(site: Site) -> None:
        service = EnrolmentService(site.enrolment, site.config)
        with pytest.raises(SocketInUseError):
            await start_enrolment_server(site.config, service, enrolment_credentials(site.authority))

    at_gateway(tmp_path, work)
