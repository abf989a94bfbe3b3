"""Connections and channels between agents: certificates that are renewed, bounds, a port in use."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from gateway_world import GOOD_REPORT, REPORT, World, answer, serving
from waiting import until

from agent.errors import SocketInUseError
from agent.limits import MAX_CHANNELS
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.identity import IdentityInterceptor
from agent.rpc.network import Channels, bind_network, network_server
from agent.rpc.pyrdma_pb2_grpc import NodeStub
from federation.errors import IdentityError
from federation.identity.authority import make_csr
from federation.identity.keys import key_from_pem
from federation.identity.names import NodeIdentity

pytestmark = pytest.mark.asyncio


async def test_a_renewed_certificate_is_shown_to_new_connections_and_cuts_none(tmp_path: Path) -> None:
    """The server keeps its port, its calls and its connections."""
    async with serving(tmp_path) as world:
        shown = world.credentials("uni-a", "gpu01")
        before = await asyncio.to_thread(world.served_certificate, shown.certificate, shown.key)
        assert before == x509.load_pem_x509_certificate(world.home.certificate_pem).public_bytes(Encoding.DER)
        channel = world.dial("uni-a", "gpu01")
        attended = NodeStub(channel).AttendLease(  # type: ignore[no-untyped-call]
            pb.AttendLeaseRequest(lease_id="l1"), timeout=60
        )
        await until(lambda: "attend" in world.face.called)
        identity, key = NodeIdentity("uni-a.example", "gw"), key_from_pem(world.home.node_key_pem)
        renewed = world.cas["uni-a"].issue(make_csr(key, identity), identity, now_s=time.time())
        world.keyring.replace(renewed)
        after = await asyncio.to_thread(world.served_certificate, shown.certificate, shown.key)
        assert after == x509.load_pem_x509_certificate(renewed).public_bytes(Encoding.DER) != before
        world.face.ends.set()
        assert [news.reason async for news in attended] == ["it is over"]
        await answer(channel, REPORT, GOOD_REPORT)


async def test_a_certificate_of_somebody_else_is_not_taken_over(tmp_path: Path) -> None:
    """What is shown stays what it was."""
    async with serving(tmp_path) as world:
        before = world.keyring.current()
        with pytest.raises(IdentityError):
            world.keyring.replace(world.credentials("uni-a", "gpu01").certificate)
        assert world.keyring.current() == before
        assert world.home.certificate_pem == before.certificate


async def test_a_new_certificate_gets_a_new_channel_and_calls_under_way_go_on(tmp_path: Path) -> None:
    """The asker's side of a renewal: what was begun with the old one ends in its own time."""
    async with serving(tmp_path) as world:
        shown = [world.credentials("uni-a", "gpu01")]
        channels = Channels(lambda: shown[0])
        world.opened.append(channels)
        old = channels.to(world.target())
        assert channels.to(world.target()) is old
        attended = NodeStub(old).AttendLease(  # type: ignore[no-untyped-call]
            pb.AttendLeaseRequest(lease_id="l1"), timeout=60
        )
        waiting = asyncio.create_task(attended.read())
        await until(lambda: "attend" in world.face.called)
        shown[0] = world.credentials("uni-a", "gpu01")
        new = channels.to(world.target())
        assert new is not old
        await answer(new, REPORT, GOOD_REPORT)
        assert not waiting.done()
        world.face.ends.set()
        assert (await waiting).reason == "it is over"


async def test_there_are_so_many_channels_and_no_more(tmp_path: Path) -> None:
    """A large registry does not take every descriptor; the longest unused one is made anew."""
    world = World(tmp_path)
    shown = world.credentials("uni-a", "gpu01")
    channels = Channels(lambda: shown)
    targets = [replace(world.target(), address=f"127.0.0.1:{1000 + at}") for at in range(MAX_CHANNELS + 1)]
    first = channels.to(targets[0])
    second = channels.to(targets[1])
    for target in targets[2:-1]:
        channels.to(target)
    assert channels.to(targets[0]) is first  # and so the second is the longest unused one
    channels.to(targets[-1])
    assert channels.to(targets[0]) is first
    assert channels.to(targets[1]) is not second
    await channels.close()


async def test_a_port_in_use_is_an_error(tmp_path: Path) -> None:
    """Two agents on one port would each get a share of the calls."""
    async with serving(tmp_path) as world:
        second = network_server(IdentityInterceptor(world.trust.admit))
        with pytest.raises(SocketInUseError, match=f"{world.port} cannot be listened on"):
            bind_network(second, world.address, world.keyring.current)
        await second.stop(None)
