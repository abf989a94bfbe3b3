"""One node, as its own people see it: what the Operator service talks to.

A node donates (``Host``) or not, and belongs to a site (``Place``) or not. Without a site it serves itself
and static peers of its machine; without a donation it borrows.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from agent import __version__
from agent.daemon.borrowed import BorrowedLeases
from agent.daemon.config import ServeConfig
from agent.daemon.desk import AccountPlace, Desk
from agent.daemon.devices import Devices
from agent.daemon.faces import Wish
from agent.daemon.host import Host
from agent.daemon.lease_views import view_of
from agent.daemon.parts import Peer
from agent.errors import NotGatewayError, PeerNodeError, RequestError, UnknownLeaseError
from agent.local.federation_views import FederationView, InviteView, PolicyView, RegistryView
from agent.local.queue_views import QueueView
from agent.local.views import (
    CacheView,
    GrantedView,
    LeaseView,
    ModelView,
    PeerView,
    PublishedView,
    PublishEvent,
    RunEvent,
    SparesView,
    StatusView,
    TransferView,
)
from agent.people.model import Who
from agent.people.roster import Roster
from agent.state import StateFile, Store

_NO_REGISTRY = RegistryView("", "none", "this node belongs to no site", 0, None, None)
_NO_CACHE = CacheView(False, None, 0, 0, 0, 0, "", ())


class Place(AccountPlace, Protocol):
    """This node's place in a site."""

    async def federation(self) -> FederationView:
        """Return the site's view of itself and of the consortium."""

    async def refresh(self) -> FederationView:
        """Read the registry now; return what is known then."""

    async def queue(self) -> QueueView:
        """Return what waits at the site, and what it publishes."""

    def policy(self) -> PolicyView | None:
        """Return what policy is in force; the gateway alone knows."""

    async def create_invite(self, node: str, lifetime_s: float, cidr: str) -> InviteView:
        """Make an invite; the gateway alone can."""

    async def leave(self, node: str) -> str:
        """Let this node, or at the gateway another one, leave; return a sentence."""

    async def published(self) -> None:
        """Note that the names which this node gives to images have changed."""


class Node:
    """A running node.

    Args:
        config: what its operator decided.
        file: its state.
        host: what it donates, if anything.
        peers: static peers of this machine.
        people: who may use which accounts.
    """

    def __init__(
        self,
        config: ServeConfig,
        file: StateFile,
        store: Store,
        host: Host | None,
        *,
        peers: Sequence[Peer],
        people: Roster,
    ) -> None:
        self._config = config
        self._file = file
        self._store = store
        self.host = host
        self._peers = peers
        self.desk = Desk(people, store, self._in_site, self._borrower_of)
        self.place: Place | None = None
        self.borrowed: BorrowedLeases | None = None
        self._begun = time.monotonic()

    async def status(self) -> StatusView:
        """Return the node at a glance; peers are asked now."""
        peers = await asyncio.gather(*map(_peer_view, self._peers))
        host = self.host
        borrowed = self.borrowed.count if self.borrowed is not None else 0
        return StatusView(
            name=self._config.name,
            version=__version__,
            uptime_s=time.monotonic() - self._begun,
            pid=os.getpid(),
            cache=await host.keeper.view() if host is not None else _NO_CACHE,
            spares=host.spares.view() if host is not None else SparesView(0, 0, (), ""),
            peers=tuple(peers),
            leases=(host.leases.count if host is not None else 0) + borrowed,
            state_fault=self._file.fault,
            donates=host is not None,
            policy=self.place.policy() if self.place is not None else None,
        )

    async def federation(self) -> FederationView:
        """Return this node's place in its site, and its site's in the consortium."""
        if self.place is None:
            return FederationView("", "", self._config.name, "", "", None, _NO_REGISTRY, (), ())
        return await self.place.federation()

    async def queue(self) -> QueueView:
        """Return what waits at this node's site, and what the site publishes."""
        return await self._in_site().queue()

    async def refresh(self) -> FederationView:
        """Read the registry now."""
        return await self._in_site().refresh()

    async def create_invite(self, node: str, lifetime_s: float, cidr: str) -> InviteView:
        """Make an invite for a node of this site."""
        return await self._in_site().create_invite(node, lifetime_s, cidr)

    async def leave(self, node: str) -> str:
        """Let this node, or at the gateway another one, leave the site."""
        return await self._in_site().leave(node)

    async def models(self) -> tuple[ModelView, ...]:
        """Return the models known here."""
        return await self.host.catalogue.models() if self.host is not None else ()

    async def leases(self, *, include_ended: bool) -> tuple[LeaseView, ...]:
        """Return leases, newest first: those that run here, and those that are used here."""
        if self.host is not None:
            return await self.host.leases.list(include_ended=include_ended)
        records = await self._store.leases(include_ended=include_ended)
        return tuple(view_of(record, None) for record in records)

    def transfers(self) -> tuple[TransferView, ...]:
        """Return transfers, running ones first."""
        return self.host.transfers.list() if self.host is not None else ()

    async def publish(
        self, folder: Path, name: str, emit: Callable[[PublishEvent], None], *, licence: str = ""
    ) -> PublishedView:
        """Publish a folder; see ``Catalogue.publish``."""
        if self.host is None:
            raise RequestError(
                "this node donates no memory, so it cannot hold an image.",
                fix="publish on a node that donates, or start this one without --no-donate",
            )
        done = await self.host.catalogue.publish(folder, name, emit, licence=licence)
        if self.place is not None:
            await self.place.published()
        return done

    async def run(self, wish: Wish, who: Who, emit: Callable[[RunEvent], None]) -> GrantedView:
        """Start a model for a caller: in a site wherever a device is granted, else here.

        Raises:
            AccountError: the caller may not use the account.
            Error, FederationError: it cannot be started.
        """
        wish = await self.desk.admit(wish, who)
        if self.borrowed is not None:
            return await self.borrowed.run(wish, emit, who.key)
        if wish.site or wish.node:
            self._in_site()
        assert self.host is not None, "a node without a site donates"
        return await self.host.leases.grant(wish.model, emit, account=wish.account, who=who.key)

    async def stop(self, lease_id: str, who: Who) -> LeaseView:
        """End a lease that is used or runs here.

        Raises:
            NotAllowedError: it is another person's, and the caller is not the agent's own user.
            UnknownLeaseError: there is none.
        """
        await self.desk.refuse_strangers(lease_id, who)
        reason = "stopped by request"
        if self.borrowed is not None and await self.borrowed.stop(lease_id, reason) is not None:
            if self.host is not None:
                await self.host.leases.stop_runner(
                    lease_id, reason
                )  # one that runs here too: wait for its end
            record = await self._store.lease(lease_id)
            if record is not None:
                return view_of(record, None)
        if self.host is None:
            raise UnknownLeaseError(
                f"no lease {lease_id[:32]!r} is used on this node.", fix="see them with: pyrdma-agent leases"
            )
        return await self.host.leases.stop(lease_id, reason)

    @property
    def devices(self) -> Devices:
        """The devices of this node.

        Raises:
            RequestError: it donates nothing.
        """
        if self.host is None:
            raise RequestError(
                "this node donates no devices.", fix="start it without --no-donate to lend some"
            )
        return self.host.devices

    def _borrower_of(self, lease_id: str) -> str | None:
        return self.borrowed.whose(lease_id) if self.borrowed is not None else None

    def _in_site(self) -> Place:
        if self.place is None:
            raise NotGatewayError(
                "this node belongs to no site.",
                fix="make one with: pyrdma-agent init --site NAME; or join one with: pyrdma-agent join",
            )
        return self.place


async def _peer_view(peer: Peer) -> PeerView:
    try:
        return PeerView(peer.address, await peer.describe(), True, "")
    except PeerNodeError as error:
        return PeerView(peer.address, "", False, error.message)
