"""Calls between agents over real mutual TLS on loopback: who gets in, who is refused, what that leaves."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from gateway_world import (
    DESCRIBE,
    GOOD_REPORT,
    IMAGE,
    METHODS,
    ORDERS,
    REPORT,
    SERVICES,
    World,
    answer,
    membership,
    refusal,
    serving,
)
from google.protobuf.descriptor import MethodDescriptor

from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import detailed_error
from agent.rpc.leasing import HostClient
from agent.rpc.network import Channels
from agent.rpc.pyrdma_pb2_grpc import NodeStub, SiteStub
from federation.errors import IdentityError
from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.keys import key_from_pem, key_to_pem, new_key
from federation.identity.names import NodeIdentity
from federation.identity.shape import LEAF_CONSTRAINTS, LEAF_USAGE, NODE_PURPOSES

pytestmark = pytest.mark.asyncio


async def test_each_caller_has_its_own_service(tmp_path: Path) -> None:
    """A node of the site the Node service, another site's gateway the Site service; it is known which one."""
    async with serving(tmp_path) as world:
        own, other = world.dial("uni-a", "gpu01"), world.dial("uni-b", "gate")
        await answer(own, REPORT, GOOD_REPORT)
        assert world.face.called == ["report by gpu01.uni-a.example"]
        message = pb.AskOfferRequest(
            request_id="r", model="m", image_id=bytes(IMAGE), devices=1, borrower_node="n"
        )
        await SiteStub(other).AskOffer(message, timeout=20)  # type: ignore[no-untyped-call]
        assert world.face.called[1:] == ["ask_offer by gate.uni-b.example"]
        assert (await refusal(own, DESCRIBE)).code() is grpc.StatusCode.PERMISSION_DENIED
        assert (await refusal(other, REPORT)).code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("method", METHODS, ids=lambda one: f"{one.containing_service.name}.{one.name}")
async def test_every_method_refuses_whoever_has_no_right_to_it(
    tmp_path: Path, method: MethodDescriptor
) -> None:
    """Taken from the protocol itself, so that a new method cannot be forgotten; nothing reaches the face."""
    wrong = {
        "Node": [("uni-a", "left"), ("uni-b", "gate"), ("uni-b", "gpu01")],
        "Site": [("uni-a", "gw"), ("uni-a", "gpu01"), ("uni-b", "gpu01")],
    }[method.containing_service.name]
    if method.name in ORDERS:
        wrong.append(("uni-a", "gpu01"))
    async with serving(tmp_path) as world:
        for caller in wrong:
            # Bytes that no message begins with: they are not even looked at.
            error = await refusal(world.dial(*caller), method, b"\xff\xff\xff")
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED, caller
            assert isinstance(detailed_error(error), IdentityError)
        assert world.face.called == []


async def test_a_gateway_tells_a_node_of_a_notice_and_withdraws_it(tmp_path: Path) -> None:
    """Over the network, as it is said."""
    async with serving(tmp_path) as world:
        channel = world.dial("uni-a", "gw")
        node = HostClient("gpu01", lambda: NodeStub(channel))  # type: ignore[no-untyped-call]
        await node.notice_runner("00112233aabbccdd", 5.0, "uni-c goes first")
        await node.withdraw_notice("00112233aabbccdd")
        assert world.face.called == [
            "notice 00112233aabbccdd: uni-c goes first, in 5 s",
            "no notice 00112233aabbccdd",
        ]


async def test_methods_that_only_this_machine_may_call_are_not_there(tmp_path: Path) -> None:
    """The Operator and Enrolment services have other doors."""
    async with serving(tmp_path) as world:
        own = world.dial("uni-a", "gw")
        for name in ("Operator", "Enrolment"):
            for method in SERVICES[name].methods:
                assert (await refusal(own, method)).code() is grpc.StatusCode.UNIMPLEMENTED


def pair_of(world: World, kind: str) -> tuple[bytes | None, bytes | None]:
    """Return a key and a certificate that prove nothing here."""
    if kind == "none":
        return None, None
    if kind == "of a site that is no member":
        shown = world.credentials("uni-c", "gw")
        return shown.key, shown.certificate
    if kind == "of a CA that only has our name":
        key, identity = new_key(), NodeIdentity("uni-a.example", "gpu01")
        evil = SiteAuthority.create("uni-a.example", now_s=time.time())
        return key_to_pem(key), evil.issue(make_csr(key, identity), identity, now_s=time.time())
    key = new_key()
    if kind == "self-signed":
        return key_to_pem(key), forged(world, "uni-b", "gate.uni-b.example", "uni-b", key=key, signer=key)
    dns, domain = {
        "forged URI": ("gate.uni-b.example", "uni-a"),
        "forged DNS": ("gw.uni-a.example", "uni-b"),
        "forged names": ("gw.uni-a.example", "uni-a"),
    }[kind]
    return key_to_pem(key), forged(world, "uni-b", dns, domain, key=key)


def forged(world: World, by: str, dns: str, domain: str, *, key: Any, signer: Any = None) -> bytes:
    """Return a certificate of any names, as the CA of a site can make it against its own rules."""
    authority = world.cas[by]
    signing = signer or key_from_pem(authority.key_pem)
    node = "gw" if domain == "uni-a" else "gate"
    names = [x509.DNSName(dns), x509.UniformResourceIdentifier(f"spiffe://{domain}.example/node/{node}")]
    like = x509.load_pem_x509_certificate(world.credentials(by, "gate").certificate)
    draft = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(LEAF_CONSTRAINTS, critical=True)
        .add_extension(LEAF_USAGE, critical=True)
        .add_extension(NODE_PURPOSES, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False
        )
    )
    return draft.sign(signing, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "kind",
    [
        "none",
        "self-signed",
        "of a site that is no member",
        "of a CA that only has our name",
        "forged URI",
        "forged DNS",
        "forged names",
    ],
)
async def test_a_certificate_that_proves_nothing_ends_the_handshake(tmp_path: Path, kind: str) -> None:
    """No call comes through, and nothing of ours is told."""
    async with serving(tmp_path) as world:
        channel = world.dial_raw(*pair_of(world, kind))
        for method in (REPORT, DESCRIBE):
            error = await refusal(channel, method)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert detailed_error(error) is None
        assert world.face.called == []


async def test_names_that_pass_the_handshake_are_still_those_of_one_node(tmp_path: Path) -> None:
    """A CA may sign any DNS name below its own; one that is not the node's own is refused at the call."""
    async with serving(tmp_path) as world:
        key = new_key()
        pem = forged(world, "uni-b", "gw.sub.uni-b.example", "uni-b", key=key)
        error = await refusal(world.dial_raw(key_to_pem(key), pem), DESCRIBE)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert isinstance(said := detailed_error(error), IdentityError)
        assert "not of one node" in said.message


async def test_a_server_that_is_not_the_one_dialled_hears_nothing(tmp_path: Path) -> None:
    """Another node's name, or another site's CA: the channel does not come up."""
    async with serving(tmp_path) as world:
        for shown, wrong in (
            (world.credentials("uni-a", "gpu01"), NodeIdentity("uni-a.example", "gw2")),
            (world.credentials("uni-b", "gate"), NodeIdentity("uni-b.example", "gw")),
        ):
            channels = Channels(lambda shown=shown: shown)  # type: ignore[misc]
            for target in (
                replace(world.target(), identity=wrong),
                replace(world.target(), authority=world.cas["uni-b"].certificate_pem),
                replace(world.target(), authority=b"-----BEGIN CERTIFICATE-----\nno\n"),
            ):
                error = await refusal(channels.to(target), DESCRIBE)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
            await channels.close()
        assert world.face.called == []


async def test_a_site_that_left_is_refused_on_the_connection_that_it_has(tmp_path: Path) -> None:
    """By the next call; a new connection of it does not come up at all, since its CA is gone."""
    async with serving(tmp_path) as world:
        channel = world.dial("uni-b", "gate")
        await answer(channel, DESCRIBE)
        world.trust.learn(membership(world.entries[0]))
        error = await refusal(channel, DESCRIBE)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        fresh = await refusal(world.dial("uni-b", "gate"), DESCRIBE)
        assert fresh.code() is grpc.StatusCode.UNAVAILABLE
        world.trust.learn(membership(*world.entries))
        await answer(channel, DESCRIBE)
        assert world.face.called == ["summary", "summary"]


async def test_a_node_that_left_is_refused_on_the_connection_that_it_has(tmp_path: Path) -> None:
    """Its certificate lives on, and counts for nothing at the gateway."""
    async with serving(tmp_path) as world:
        channel = world.dial("uni-a", "gpu01")
        await answer(channel, REPORT, GOOD_REPORT)
        world.members.clear()
        assert (await refusal(channel, REPORT, GOOD_REPORT)).code() is grpc.StatusCode.PERMISSION_DENIED
