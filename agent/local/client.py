"""A thin client of the agent's Unix sockets; returns the values of ``agent.local.views`` and its siblings.

Every call has a deadline and raises the same errors, with the same sentence and fix, as the agent did.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from grpc import aio

from agent.errors import NotAllowedError, UnreachableError
from agent.limits import LONG_CALL_S, REFRESH_CALL_S, SHORT_CALL_S, STOP_CALL_S
from agent.local import federation_views, people_views, views
from agent.local.devices import DeviceClient
from agent.local.door import DoorPass
from agent.local.queue_views import QueueView
from agent.paths import Paths
from agent.rpc import convert, convert_federation, convert_people, convert_queue
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.errors import local_error
from agent.rpc.passes import with_pass
from agent.rpc.pyrdma_pb2_grpc import OperatorStub
from agent.rpc.server import OPTIONS

_T = TypeVar("_T")
_POLL_S = 0.05


class AgentClient(DeviceClient):
    """One connection to the local agent. Use as an async context manager.

    Args:
        paths: whose agent.
        change: whether calls that change something will be made; without it the view socket suffices.
        person: whether they are those that a person makes for itself: then the user socket will do as well.
    """

    def __init__(self, paths: Paths, *, change: bool = False, person: bool = False) -> None:
        self._socket = _usable_socket(paths, change=change, person=person)
        self._pass = DoorPass(paths.door_socket) if self._socket == paths.user_socket else None
        options = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        self._channel = aio.insecure_channel(f"unix:{self._socket}", options=options)
        self._stub: Any = OperatorStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pass is not None:
            self._pass.close()
        await self._channel.close(None)

    async def status(self) -> views.StatusView:
        """Return the node at a glance."""
        request = pb.GetStatusRequest()
        return convert.status_from(await self._answer(self._stub.GetStatus(request, timeout=SHORT_CALL_S)))

    async def models(self) -> tuple[views.ModelView, ...]:
        """Return the models known on this node."""
        request = pb.ListModelsRequest()
        answer = await self._answer(self._stub.ListModels(request, timeout=SHORT_CALL_S))
        return tuple(map(convert.model_from, answer.models))

    async def leases(self, *, include_ended: bool = False) -> tuple[views.LeaseView, ...]:
        """Return leases, newest first."""
        request = pb.ListLeasesRequest(include_ended=include_ended)
        answer = await self._answer(self._stub.ListLeases(request, timeout=SHORT_CALL_S))
        return tuple(map(convert.lease_from, answer.leases))

    async def transfers(self) -> tuple[views.TransferView, ...]:
        """Return transfers, running ones first."""
        request = pb.ListTransfersRequest()
        answer = await self._answer(self._stub.ListTransfers(request, timeout=SHORT_CALL_S))
        return tuple(map(convert.transfer_from, answer.transfers))

    async def federation(self) -> federation_views.FederationView:
        """Return this node's place in its site, and its site's in the consortium."""
        request = pb.GetFederationRequest()
        answer = await self._answer(self._stub.GetFederation(request, timeout=SHORT_CALL_S))
        return convert_federation.federation_from(answer)

    async def queue(self) -> QueueView:
        """Return what waits at this node's site, and what the site publishes."""
        answer = await self._answer(self._stub.GetQueue(pb.GetQueueRequest(), timeout=SHORT_CALL_S))
        return convert_queue.queue_from(answer)

    async def refresh(self) -> federation_views.FederationView:
        """Have the registry read now; return what is known then."""
        request = pb.RefreshRegistryRequest()
        answer = await self._answer(self._stub.RefreshRegistry(request, timeout=REFRESH_CALL_S))
        return convert_federation.federation_from(answer)

    async def create_invite(self, node: str, lifetime_s: float, cidr: str) -> federation_views.InviteView:
        """Make an invite for a node of this site."""
        request = pb.CreateInviteRequest(node=node, lifetime_s=lifetime_s, cidr=cidr)
        answer = await self._answer(self._stub.CreateInvite(request, timeout=SHORT_CALL_S))
        return federation_views.InviteView(answer.invite, answer.expires_at)

    async def leave_site(self, node: str) -> str:
        """Let this node, or at the gateway another one, leave the site; return a sentence about it."""
        request = pb.LeaveSiteRequest(node=node)
        return str((await self._answer(self._stub.LeaveSite(request, timeout=STOP_CALL_S))).sentence)

    async def publish(
        self, folder: Path, name: str, *, licence: str = "", timeout_s: float = LONG_CALL_S
    ) -> AsyncIterator[views.PublishEvent]:
        """Publish a folder; yields notes and progress, last the outcome."""
        request = pb.PublishRequest(folder=str(folder.resolve()), name=name, licence=licence)
        call = self._stub.Publish(request, timeout=timeout_s)
        events: AsyncIterator[views.PublishEvent] = self._events(call, convert.publish_event_from)
        async for event in events:
            yield event

    async def run(
        self, wanted: people_views.Wanted, *, timeout_s: float = LONG_CALL_S
    ) -> AsyncIterator[views.RunEvent]:
        """Start a model; yields notes, progress and phases, last the lease. Ending early calls it off."""
        request, metadata = convert_people.wanted_to(wanted), await self._metadata()
        call = self._stub.Run(request, timeout=timeout_s, metadata=metadata)
        events: AsyncIterator[views.RunEvent] = self._events(call, convert.run_event_from)
        async for event in events:
            yield event

    async def stop(self, lease_id: str) -> views.LeaseView:
        """End a lease; return how it ended."""
        request = pb.StopLeaseRequest(lease_id=lease_id)
        metadata = await self._metadata()
        answer = await self._answer(self._stub.StopLease(request, timeout=STOP_CALL_S, metadata=metadata))
        return convert.lease_from(answer.lease)

    async def whoami(self) -> people_views.WhoAmIView:
        """Return who the caller is for the agent."""
        metadata = await self._metadata()
        call = self._stub.WhoAmI(pb.WhoAmIRequest(), timeout=2 * SHORT_CALL_S, metadata=metadata)
        return convert_people.whoami_from(await self._answer(call))

    async def usage(self, accounts: Sequence[str] = ()) -> people_views.UsageView:
        """Return what the caller's accounts have used, or these of them."""
        metadata = await self._metadata()
        request = pb.GetUsageRequest(accounts=accounts)
        call = self._stub.GetUsage(request, timeout=2 * SHORT_CALL_S, metadata=metadata)
        return convert_people.usage_from(await self._answer(call))

    async def create_token(self, name: str, account: str, lifetime_s: float) -> people_views.NewTokenView:
        """Make a token for a laptop."""
        request = pb.CreateTokenRequest(name=name, account=account, lifetime_s=lifetime_s)
        answer = await self._answer(self._stub.CreateToken(request, timeout=SHORT_CALL_S))
        return people_views.NewTokenView(answer.token, answer.expires_at)

    async def tokens(self) -> tuple[people_views.TokenView, ...]:
        """Return the tokens that may be used."""
        call = self._stub.ListTokens(pb.ListTokensRequest(), timeout=SHORT_CALL_S)
        return convert_people.tokens_from(await self._answer(call))

    async def revoke_token(self, name: str) -> tuple[people_views.TokenView, ...]:
        """End a token; return those that are left."""
        call = self._stub.RevokeToken(pb.RevokeTokenRequest(name=name), timeout=SHORT_CALL_S)
        return convert_people.tokens_from(await self._answer(call))

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self._pass is None else with_pass(await self._pass.text())

    async def _answer(self, call: Awaitable[_T]) -> _T:
        try:
            return await call
        except aio.AioRpcError as error:
            raise local_error(error, str(self._socket)) from error

    async def _events(self, call: Any, read: Callable[[Any], _T | None]) -> AsyncIterator[_T]:
        try:
            async for message in call:
                event = read(message)
                if event is not None:
                    yield event
        except aio.AioRpcError as error:
            raise local_error(error, str(self._socket)) from error
        finally:
            call.cancel()


async def wait_until_ready(paths: Paths, timeout_s: float) -> views.StatusView:
    """Wait until an agent answers on these paths; return its status.

    Raises:
        UnreachableError: none does within ``timeout_s``.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            async with AgentClient(paths) as client:
                return await client.status()
        except UnreachableError:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(_POLL_S)


def _usable_socket(paths: Paths, *, change: bool, person: bool) -> Path:
    if person:
        candidates = [paths.admin_socket, paths.user_socket]
    elif change:
        candidates = [paths.admin_socket]
    else:
        candidates = [paths.admin_socket, paths.view_socket]
    found = [path for path in candidates if _exists(path)]
    for path in found:
        if os.access(path, os.W_OK):
            return path
    if not found:
        raise UnreachableError(
            f"no agent answers on {candidates[0]}.",
            fix="start one with: pyrdma-agent serve; or name its directory with --run-dir",
        )
    raise NotAllowedError(
        f"you may not open {found[0]}.", fix="run this as the agent's own user, for example with sudo -u"
    )


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it may be there; we may not look
    return True
