"""A site that answers our calls wrongly: it cancels nobody, and nobody waits for it for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from gateway_world import IMAGE, World
from waiting import until

from agent.errors import PeerNodeError
from agent.limits import MAX_START_EVENTS
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.identity import IdentityInterceptor
from agent.rpc.leasing import SiteClient
from agent.rpc.network import Channels, bind_network, network_server
from agent.rpc.pyrdma_pb2_grpc import SiteServicer, SiteStub, add_SiteServicer_to_server

pytestmark = pytest.mark.asyncio


class HostileSite(SiteServicer):
    """Another site's gateway that does what the protocol does not foresee."""

    async def DescribeSite(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.CANCELLED, "ha")

    async def AttendLease(self, request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    async def Commit(self, request: Any, context: Any) -> Any:
        if request.offer_id == "quiet":
            return
        for at in range(100 * MAX_START_EVENTS):
            if request.offer_id == "progress" and at == 10 * MAX_START_EVENTS:
                yield pb.RunEvent(
                    granted=pb.Granted(lease=pb.Lease(id="l1", image_id=bytes(IMAGE)), api_key="k")
                )
            elif request.offer_id == "progress":
                yield pb.RunEvent(progress=pb.Progress(done_bytes=at))
            else:
                yield pb.RunEvent(note="x" * 1000)


@asynccontextmanager
async def asking_a_hostile_site(folder: Path) -> AsyncIterator[tuple[SiteClient, Channels]]:
    """Our gateway's client of a site that answers wrongly."""
    world = World(folder)
    server = network_server(IdentityInterceptor(world.trust.admit))
    add_SiteServicer_to_server(HostileSite(), server)  # type: ignore[no-untyped-call]
    world.port = bind_network(server, "127.0.0.1:0", world.keyring.current)
    await server.start()
    shown = world.credentials("uni-b", "gate")
    channels = Channels(lambda: shown)
    target = world.target()
    try:
        async with asyncio.timeout(60):
            yield SiteClient("uni-a", lambda: SiteStub(channels.to(target))), channels  # type: ignore[no-untyped-call]
    finally:
        await channels.close()
        await server.stop(None)


async def test_a_peer_cannot_cancel_our_tasks(tmp_path: Path) -> None:
    """It may call its own call cancelled; for us that is a peer that failed."""
    async with asking_a_hostile_site(tmp_path) as (site, _):
        with pytest.raises(PeerNodeError, match="CANCELLED"):
            await site.describe()


async def test_a_channel_that_is_closed_under_a_call_is_an_error_and_cancels_nobody(tmp_path: Path) -> None:
    """What attends a lease would else end without a word when its channel is let go."""
    async with asking_a_hostile_site(tmp_path) as (site, channels):
        attending = asyncio.create_task(site.attend("l1"))
        await until(lambda: channels._open)
        await asyncio.sleep(0)
        await channels.close()
        with pytest.raises(PeerNodeError, match="the channel to uni-a was closed"):
            await attending


async def test_who_waits_for_a_lease_can_stop_waiting(tmp_path: Path) -> None:
    """To be cancelled is to be cancelled."""
    async with asking_a_hostile_site(tmp_path) as (site, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await site.attend("l1")


async def test_a_start_that_never_stops_talking_is_given_up(tmp_path: Path) -> None:
    """A donor cannot fill our memory; progress may come as often as it likes."""
    async with asking_a_hostile_site(tmp_path) as (site, _):
        heard: list[Any] = []
        with pytest.raises(PeerNodeError, match="without end"):
            await site.commit("notes", heard.append)
        assert len(heard) == MAX_START_EVENTS
        assert (await site.commit("progress", lambda _: None)).api_key == "k"
        with pytest.raises(PeerNodeError, match="without a word"):
            await site.commit("quiet", heard.append)
