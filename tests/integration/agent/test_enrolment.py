"""A node joins over a real port with real TLS: what is let in, what is not, and what nobody gets to see."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from grpc import aio

from agent.errors import BusyError, NodeError, PeerNodeError, SocketInUseError
from agent.limits import CHALLENGE_LIFE_S, ENROL_BURST, MAX_ENROL_CONNECTIONS, MAX_ENROL_MESSAGE_BYTES
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.enrol_client import EnrolClient, Enrolled, check_server, prove_request
from agent.rpc.enrolment import EnrolmentService, enrolment_credentials, start_enrolment_server
from agent.rpc.errors import detailed_error
from agent.rpc.pyrdma_pb2_grpc import EnrolmentStub
from agent.site.config import SiteConfig
from agent.site.draft import JoinDraft
from agent.site.enrolment import Enrolment
from agent.site.home import SiteHome
from agent.state import SiteStore, StateFile
from federation.errors import (
    EnrolmentError,
    FederationError,
    FederationInputError,
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
from federation.limits import MAX_REQUEST_BYTES
from pyrdma.errors import Error

T = TypeVar("T")
DOMAIN = "uni-a.example"
STAND_IN = Path(__file__).with_name("enrolment_stand_in.py")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _gateway(state: Path) -> SiteConfig:
    port = _free_port()
    config = SiteConfig(
        site="uni-a",
        trust_domain=DOMAIN,
        node="gw",
        role="gateway",
        address="127.0.0.1:7443",
        listen="127.0.0.1:7443",
        gateway_node="gw",
        gateway_address="127.0.0.1:7443",
        join_address=f"127.0.0.1:{port}",
        join_listen=f"127.0.0.1:{port}",
    )
    SiteHome(state / "site").create_gateway(config, now_s=time.time())
    return config


@dataclass
class Clock:
    """Time that a test moves."""

    ahead_s: float = 0.0

    def unix(self) -> float:
        return time.time() + self.ahead_s

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


@dataclass
class Site:
    """A gateway's enrolment port, open."""

    config: SiteConfig
    authority: SiteAuthority
    store: SiteStore
    enrolment: Enrolment
    clock: Clock

    async def invite(self, node: str = "gpu07", *, lifetime_s: float = 600.0, cidr: str = "") -> Invite:
        text, _ = await self.enrolment.invite(node, lifetime_s, cidr)
        return decode(text)


@asynccontextmanager
async def _open(state: Path) -> AsyncIterator[Site]:
    config = _gateway(state)
    authority = SiteHome(state / "site").site_authority()
    clock = Clock()
    file = await StateFile.open(state / "agent.sqlite3")
    store = await SiteStore.of(file)
    enrolment = Enrolment(store, authority, config, clock.unix, clock.monotonic)
    server = await start_enrolment_server(
        config, EnrolmentService(enrolment, config), enrolment_credentials(authority)
    )
    try:
        yield Site(config, authority, store, enrolment, clock)
    finally:
        await server.stop(0)
        await file.close()


def _at(state: Path, work: Callable[[Site], Awaitable[T]]) -> T:
    async def run() -> T:
        async with _open(state) as site:
            return await work(site)

    return asyncio.run(run())


def _identity(invite: Invite) -> NodeIdentity:
    return NodeIdentity(invite.trust_domain, invite.node)


def _csr(invite: Invite) -> bytes:
    return make_csr(new_key(), _identity(invite))


async def _join(invite: Invite, csr: bytes | None = None) -> Enrolled:
    async with EnrolClient(invite) as client:
        await client.challenge()
        return await client.join(csr or _csr(invite))


@asynccontextmanager
async def _stub(invite: Invite) -> AsyncIterator[Any]:
    options = (("grpc.ssl_target_name_override", f"join.{DOMAIN}"), ("grpc.use_local_subchannel_pool", 1))
    credentials = grpc.ssl_channel_credentials(invite.authority_pem)
    async with aio.secure_channel(invite.address, credentials, options=options) as channel:
        yield EnrolmentStub(channel)  # type: ignore[no-untyped-call]


async def _request(stub: Any, invite: Invite, csr: bytes) -> pb.JoinRequest:
    """Return an honest request, not sent yet."""
    nonce = secrets.token_bytes(32)
    challenge = await stub.Challenge(pb.ChallengeRequest(client_nonce=nonce), timeout=5)
    return prove_request(invite, csr, nonce, challenge.server_nonce)


async def _refused(call: Awaitable[object]) -> Error | FederationError:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    error = detailed_error(caught.value)
    assert error is not None, caught.value
    return error


async def _raised(work: Awaitable[object]) -> Error | FederationError:
    with pytest.raises((Error, FederationError)) as caught:
        await work
    error = caught.value
    assert isinstance(error, (Error, FederationError))
    return error


def test_a_node_joins_and_is_a_member_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    """The certificate proves the node under the site's CA; the clocks are compared first."""
    offsets: list[float] = []

    async def work(site: Site) -> None:
        invite = await site.invite(cidr="127.0.0.0/8")
        await check_server(invite)
        async with EnrolClient(invite) as client:
            offsets.append(await client.challenge())
            enrolled = await client.join(_csr(invite))
        binding = Binding({DOMAIN: [site.authority.certificate_pem]})
        assert binding.identify(enrolled.certificate_pem, now_s=time.time()) == _identity(invite)
        assert (enrolled.gateway_node, enrolled.gateway_address) == ("gw", "127.0.0.1:7443")
        assert site.store.is_member("gpu07")

    _at(tmp_path, work)
    assert [abs(offset) < 5 for offset in offsets] == [True]


def test_an_invite_lets_in_one_key_once(tmp_path: Path) -> None:
    """Another request with the same invite is refused by name, and changes nothing."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        first = await _join(invite)
        error = await _raised(_join(invite))
        assert type(error) is InviteUsedError
        record = await site.store.invite(invite.token_id)
        assert record is not None
        assert record.certificate_pem == first.certificate_pem

    _at(tmp_path, work)


def test_a_request_that_was_heard_cannot_be_sent_again(tmp_path: Path) -> None:
    """Its nonce was good once, whatever the outcome."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        async with _stub(invite) as stub:
            request = await _request(stub, invite, _csr(invite))
            await stub.Join(request, timeout=5)
            error = await _refused(stub.Join(request, timeout=5))
        assert type(error) is EnrolmentError

    _at(tmp_path, work)


def test_a_nonce_is_good_for_a_minute(tmp_path: Path) -> None:
    """Then the proof is refused, and the invite is as it was."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        async with _stub(invite) as stub:
            request = await _request(stub, invite, _csr(invite))
            site.clock.ahead_s += CHALLENGE_LIFE_S + 1
            assert type(await _refused(stub.Join(request, timeout=5))) is EnrolmentError
        await _join(invite)

    _at(tmp_path, work)


def test_an_invite_ends_with_its_time(tmp_path: Path) -> None:
    """The sentence says so, and nobody becomes a member."""

    async def work(site: Site) -> None:
        invite = await site.invite(lifetime_s=60.0)
        site.clock.ahead_s += 61
        assert type(await _raised(_join(invite))) is InviteExpiredError
        assert not site.store.is_member("gpu07")

    _at(tmp_path, work)


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
        errors = [await _raised(_join(one)) for one in liars]
        assert [type(error) for error in errors] == [InviteMismatchError] * 4
        assert errors[1].message == errors[2].message, (
            "who has no secret does not learn which invites there are"
        )
        assert site.store.members() == ()
        await _join(invite)

    _at(tmp_path, work)


def test_the_same_request_has_the_same_answer(tmp_path: Path) -> None:
    """A node whose answer was lost asks again, and is one member with one certificate."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        csr = _csr(invite)
        async with _stub(invite) as stub:
            lost = stub.Join(await _request(stub, invite, csr), timeout=5)
            await lost  # the site has answered; the node, we say, has not heard it
        before = site.store.members()
        again = await _join(invite, csr)
        assert again.certificate_pem == (await lost).certificate
        assert site.store.members() == before

    _at(tmp_path, work)


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
    config = _gateway(tmp_path)
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
    csr = _csr(invite)
    with _process(tmp_path, "dies") as process:
        assert isinstance(asyncio.run(_raised(_join(invite, csr))), PeerNodeError)
        assert process.wait(10) == -9
    issued = asyncio.run(written(invite))
    assert issued is not None
    with _process(tmp_path):
        assert asyncio.run(_join(invite, csr)).certificate_pem == issued
        assert type(asyncio.run(_raised(_join(invite)))) is InviteUsedError


def test_a_node_that_is_killed_in_the_middle_joins_with_the_same_request(tmp_path: Path) -> None:
    """Its key and request are on disk before they are sent; another invite begins anew."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        draft = JoinDraft.begin(tmp_path / "site.join", invite)
        first = await _join(invite, draft.csr)
        again = JoinDraft.begin(tmp_path / "site.join", invite)
        assert (again.key_pem, again.csr) == (draft.key_pem, draft.csr)
        assert (await _join(invite, again.csr)).certificate_pem == first.certificate_pem
        other = await site.invite()
        assert JoinDraft.begin(tmp_path / "site.join", other).csr != draft.csr

    _at(tmp_path, work)


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
            error = await _raised(check_server(there))
            assert type(error) is IdentityError
            assert "another server answers" in error.message
            # And without the look ahead: the call itself trusts nobody else either.
            assert isinstance(await _raised(_join(there)), PeerNodeError)
        assert heard == b""
        await _join(invite)

    _at(tmp_path, work)


def test_the_server_in_between_would_hear_a_join_that_trusts_it(tmp_path: Path) -> None:
    """The test above can fail: whoever believes the other CA does send bytes."""
    now_s = time.time()
    other = SiteAuthority.create(DOMAIN, now_s=now_s)

    async def work(site: Site) -> None:
        invite = await site.invite()
        with _server_in_between(*other.issue_join(now_s=now_s), tmp_path) as (address, heard):
            trusting = replace(invite, address=address, authority_pem=other.certificate_pem)
            await check_server(trusting)
            await _raised(_join(trusting))
        assert heard != b""

    _at(tmp_path, work)


def test_nobody_there_is_said_with_a_fix(tmp_path: Path) -> None:
    """So is a server that speaks no TLS."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        nowhere = replace(invite, address=f"127.0.0.1:{_free_port()}")
        error = await _raised(check_server(nowhere))
        assert isinstance(error, PeerNodeError)
        assert "firewall" in error.fix

        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert isinstance(
            await _raised(check_server(replace(invite, address=f"127.0.0.1:{port}"))), IdentityError
        )
        server.close()
        await server.wait_closed()

    _at(tmp_path, work)


def test_a_certificate_of_another_time_is_said_to_be_a_matter_of_clocks(tmp_path: Path) -> None:
    """A clock that is an hour behind must not look like an attack."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        later = enrolment_credentials(site.authority, lambda: time.time() + 3600)
        config = replace(site.config, join_listen=f"127.0.0.1:{_free_port()}")
        server = await start_enrolment_server(config, EnrolmentService(site.enrolment, config), later)
        try:
            error = await _raised(check_server(replace(invite, address=config.join_listen)))
        finally:
            await server.stop(0)
        assert type(error) is NodeError
        assert "clock" in error.fix

    _at(tmp_path, work)


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

    _at(tmp_path, work)


GARBAGE: list[tuple[str, object]] = [
    *[("token_id", value) for value in (b"", b"\0" * 7, b"\xff" * 4096)],
    *[("node", value) for value in ("", "join", "GPU07", "a.b", "-", "x" * 64, "gpu07\x1b[2J\n", "gw")],
    *[("client_nonce", value) for value in (b"", b"\0" * 32, b"\0" * 33)],
    *[("server_nonce", value) for value in (b"", b"\0" * 32, b"\0" * 10_000)],
    *[("csr", value) for value in (b"", b"\x30\x80", b"\0" * MAX_REQUEST_BYTES, b"\xff" * 30_000)],
    *[("proof", value) for value in (b"", b"\0" * 32, b"\xff" * 20_000)],
]


def test_garbage_in_any_field_is_refused_and_leaves_the_invite_unused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each with an error of ours, never a defect; and no control character reaches the log."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        async with _stub(invite) as stub:
            for field, value in GARBAGE:
                request = await _request(stub, invite, _csr(invite))
                setattr(request, field, value)
                error = await _refused(stub.Join(request, timeout=5))
                assert isinstance(error, (FederationInputError, EnrolmentError, IdentityError)), (
                    field,
                    value,
                )
                site.clock.ahead_s += 2  # calls are counted; this one is patient
            wrong = pb.ChallengeRequest(client_nonce=b"short")
            assert isinstance(await _refused(stub.Challenge(wrong, timeout=5)), FederationInputError)
            with pytest.raises(aio.AioRpcError) as caught:
                await stub.Join(pb.JoinRequest(csr=bytes(MAX_ENROL_MESSAGE_BYTES + 1)), timeout=5)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert site.store.members() == ()
        await _join(invite)

    with caplog.at_level(logging.WARNING):
        _at(tmp_path, work)
    refusals = [record.getMessage() for record in caplog.records if "refused a join" in record.getMessage()]
    assert len(refusals) == len(GARBAGE)
    assert all(line.isprintable() for line in refusals)


def test_a_request_for_another_name_than_the_proven_one_gets_no_certificate(tmp_path: Path) -> None:
    """The proof covers the request, so only the node itself can try; the CA refuses, nothing is used."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        gateway = make_csr(new_key(), NodeIdentity(DOMAIN, "gw"))
        assert type(await _raised(_join(invite, gateway))) is IdentityError
        await _join(invite)
        assert [member.node for member in site.store.members()] == ["gpu07"]

    _at(tmp_path, work)


def test_a_proof_is_good_for_its_own_request_alone(tmp_path: Path) -> None:
    """Who hears it cannot put a key of its own in."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        async with _stub(invite) as stub:
            request = await _request(stub, invite, _csr(invite))
            request.csr = _csr(invite)
            assert type(await _refused(stub.Join(request, timeout=5))) is InviteMismatchError

    _at(tmp_path, work)


def test_a_thousand_guesses_are_counted_and_the_node_joins_after_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All but a few are turned away unread; the log has a few lines; the invite still works."""
    outcomes: list[type[Exception]] = []

    async def work(site: Site) -> None:
        invite = await site.invite()
        guesses = replace(invite, secret=bytes(16))
        async with _stub(invite) as stub:
            request = await _request(stub, guesses, _csr(invite))
            begun_s = time.monotonic()
            for number in range(1000):
                request.proof = hashlib.sha256(str(number).encode()).digest()
                outcomes.append(type(await _refused(stub.Join(request, timeout=5))))
            took_s = time.monotonic() - begun_s
        read = sum(kind is not BusyError for kind in outcomes)
        assert read <= ENROL_BURST + 2 * took_s + 1
        assert set(outcomes) == {BusyError, InviteMismatchError, EnrolmentError}
        site.clock.ahead_s += 10
        await _join(invite)

    with caplog.at_level(logging.WARNING):
        _at(tmp_path, work)
    assert len([one for one in caplog.records if "too many calls" in one.getMessage()]) <= 60


def test_idle_connections_are_few_and_do_not_stay(tmp_path: Path) -> None:
    """Past the limit a stranger's connection is closed at once; those that say nothing lose their place."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        port = int(invite.address.rpartition(":")[2])
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(MAX_ENROL_CONNECTIONS + 20)]
        deadline = time.monotonic() + 30
        while isinstance(await _outcome(check_server(invite)), Exception):
            assert time.monotonic() < deadline, "the idle connections keep the port closed"
        await _join(invite)
        for one in idle:
            one.close()

    async def _outcome(work: Awaitable[None]) -> Exception | None:
        try:
            await work
        except PeerNodeError as error:
            return error
        return None

    _at(tmp_path, work)


def test_a_port_in_use_is_said_with_a_fix(tmp_path: Path) -> None:
    """Two gateways on one port are an error, not a lottery."""

    async def work(site: Site) -> None:
        service = EnrolmentService(site.enrolment, site.config)
        with pytest.raises(SocketInUseError):
            await start_enrolment_server(site.config, service, enrolment_credentials(site.authority))

    _at(tmp_path, work)
