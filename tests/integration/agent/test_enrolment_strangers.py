"""What strangers send to an enrolment port: garbage, other names, guesses, connections that idle."""

from __future__ import annotations

import hashlib
import logging
import socket
import time
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from enrolment_gateway import DOMAIN, Site, at_gateway, csr_of, honest_request, join, raised, refusal, stub_of
from grpc import aio

from agent.errors import BusyError, PeerNodeError
from agent.limits import ENROL_BURST, MAX_ENROL_CONNECTIONS, MAX_ENROL_MESSAGE_BYTES
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.enrol_client import check_server
from federation.errors import EnrolmentError, FederationInputError, IdentityError, InviteMismatchError
from federation.identity.authority import make_csr
from federation.identity.keys import new_key
from federation.identity.names import NodeIdentity
from federation.limits import MAX_REQUEST_BYTES

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
        async with stub_of(invite) as stub:
            for field, value in GARBAGE:
                request = await honest_request(stub, invite, csr_of(invite))
                setattr(request, field, value)
                error = await refusal(stub.Join(request, timeout=5))
                assert isinstance(error, (FederationInputError, EnrolmentError, IdentityError)), (
                    field,
                    value,
                )
                site.clock.ahead_s += 2  # calls are counted; this one is patient
            wrong = pb.ChallengeRequest(client_nonce=b"short")
            assert isinstance(await refusal(stub.Challenge(wrong, timeout=5)), FederationInputError)
            with pytest.raises(aio.AioRpcError) as caught:
                await stub.Join(pb.JoinRequest(csr=bytes(MAX_ENROL_MESSAGE_BYTES + 1)), timeout=5)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert site.store.members() == ()
        await join(invite)

    with caplog.at_level(logging.WARNING):
        at_gateway(tmp_path, work)
    refusals = [record.getMessage() for record in caplog.records if "refused a join" in record.getMessage()]
    assert len(refusals) == len(GARBAGE)
    assert all(line.isprintable() for line in refusals)


def test_a_request_for_another_name_than_the_proven_one_gets_no_certificate(tmp_path: Path) -> None:
    """The proof covers the request, so only the node itself can try; the CA refuses, nothing is used."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        gateway = make_csr(new_key(), NodeIdentity(DOMAIN, "gw"))
        assert type(await raised(join(invite, gateway))) is IdentityError
        await join(invite)
        assert [member.node for member in site.store.members()] == ["gpu07"]

    at_gateway(tmp_path, work)


def test_a_proof_is_good_for_its_own_request_alone(tmp_path: Path) -> None:
    """Who hears it cannot put a key of its own in."""

    async def work(site: Site) -> None:
        invite = await site.invite()
        async with stub_of(invite) as stub:
            request = await honest_request(stub, invite, csr_of(invite))
            request.csr = csr_of(invite)
            assert type(await refusal(stub.Join(request, timeout=5))) is InviteMismatchError

    at_gateway(tmp_path, work)


def test_a_thousand_guesses_are_counted_and_the_node_joins_after_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All but a few are turned away unread; the log has a few lines; the invite still works."""
    outcomes: list[type[Exception]] = []

    async def work(site: Site) -> None:
        invite = await site.invite()
        guesses = replace(invite, secret=bytes(16))
        async with stub_of(invite) as stub:
            request = await honest_request(stub, guesses, csr_of(invite))
            begun_s = time.monotonic()
            for number in range(1000):
                request.proof = hashlib.sha256(str(number).encode()).digest()
                outcomes.append(type(await refusal(stub.Join(request, timeout=5))))
            took_s = time.monotonic() - begun_s
        read = sum(kind is not BusyError for kind in outcomes)
        assert read <= ENROL_BURST + 2 * took_s + 1
        assert set(outcomes) == {BusyError, InviteMismatchError, EnrolmentError}
        site.clock.ahead_s += 10
        await join(invite)

    with caplog.at_level(logging.WARNING):
        at_gateway(tmp_path, work)
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
        await join(invite)
        for one in idle:
            one.close()

    async def _outcome(work: Awaitable[None]) -> Exception | None:
        try:
            await work
        except PeerNodeError as error:
            return error
        return None

    at_gateway(tmp_path, work)
