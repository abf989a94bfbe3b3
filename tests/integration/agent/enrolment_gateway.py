"""A gateway's enrolment port over real TLS, a clock that a test moves, and nodes that join."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from grpc import aio

from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.enrol_client import EnrolClient, Enrolled, prove_request
from agent.rpc.enrolment import EnrolmentService, enrolment_credentials, start_enrolment_server
from agent.rpc.errors import detailed_error
from agent.rpc.pyrdma_pb2_grpc import EnrolmentStub
from agent.site.config import SiteConfig
from agent.site.enrolment import Enrolment
from agent.site.home import SiteHome
from agent.state import SiteStore, StateFile
from federation.errors import FederationError
from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.invite import Invite, decode
from federation.identity.keys import new_key
from federation.identity.names import NodeIdentity
from pyrdma.errors import Error

T = TypeVar("T")
DOMAIN = "uni-a.example"


def free_port() -> int:
    """Return a port of loopback that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_gateway(state: Path) -> SiteConfig:
    """Make a site with its CA in a folder; return its gateway's place."""
    port = free_port()
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
async def open_gateway(state: Path) -> AsyncIterator[Site]:
    """Open a new site's enrolment port."""
    config = make_gateway(state)
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


def at_gateway(state: Path, work: Callable[[Site], Awaitable[T]]) -> T:
    """Run some work while a new site's enrolment port is open."""

    async def run() -> T:
        async with open_gateway(state) as site:
            return await work(site)

    return asyncio.run(run())


def identity_of(invite: Invite) -> NodeIdentity:
    """Return who an invite is for."""
    return NodeIdentity(invite.trust_domain, invite.node)


def csr_of(invite: Invite) -> bytes:
    """Return a request for the invited node's certificate, under a new key."""
    return make_csr(new_key(), identity_of(invite))


async def join(invite: Invite, csr: bytes | None = None) -> Enrolled:
    """Join as an honest node does."""
    async with EnrolClient(invite) as client:
        await client.challenge()
        return await client.join(csr or csr_of(invite))


@asynccontextmanager
async def stub_of(invite: Invite) -> AsyncIterator[Any]:
    """Open a connection of a caller that may send what it likes."""
    options = (("grpc.ssl_target_name_override", f"join.{DOMAIN}"), ("grpc.use_local_subchannel_pool", 1))
    credentials = grpc.ssl_channel_credentials(invite.authority_pem)
    async with aio.secure_channel(invite.address, credentials, options=options) as channel:
        yield EnrolmentStub(channel)  # type: ignore[no-untyped-call]


async def honest_request(stub: Any, invite: Invite, csr: bytes) -> pb.JoinRequest:
    """Return an honest request, not sent yet."""
    nonce = secrets.token_bytes(32)
    challenge = await stub.Challenge(pb.ChallengeRequest(client_nonce=nonce), timeout=5)
    return prove_request(invite, csr, nonce, challenge.server_nonce)


async def refusal(call: Awaitable[object]) -> Error | FederationError:
    """Wait for a call that is refused; return the error that its status carries."""
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    error = detailed_error(caught.value)
    assert error is not None, caught.value
    return error


async def raised(work: Awaitable[object]) -> Error | FederationError:
    """Wait for what fails here; return its error."""
    with pytest.raises((Error, FederationError)) as caught:
        await work
    error = caught.value
    assert isinstance(error, (Error, FederationError))
    return error
