"""One node: its parts put together, started and stopped in order. What the Operator service talks to."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from agent import __version__
from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.catalogue import Catalogue
from agent.daemon.config import ServeConfig
from agent.daemon.image_socket import ImageSocket
from agent.daemon.leases import Leases
from agent.daemon.lending import Lending
from agent.daemon.parts import Launcher, Peer, StartCache
from agent.daemon.spares import Spares
from agent.daemon.supply import Supply
from agent.daemon.transfers import Transfers
from agent.errors import PeerNodeError
from agent.local.views import (
    GrantedView,
    LeaseView,
    ModelView,
    PeerView,
    PublishedView,
    PublishEvent,
    RunEvent,
    StatusView,
    TransferView,
)
from agent.state import Store

_log = logging.getLogger(__name__)


class Node:
    """A running node. Made by ``start``, ended by ``close``."""

    def __init__(
        self,
        config: ServeConfig,
        store: Store,
        keeper: CacheKeeper,
        launcher: Launcher,
        peers: Sequence[Peer],
    ) -> None:
        self._config = config
        self._store = store
        self._keeper = keeper
        self._peers = peers
        self._transfers = Transfers()
        self._spares = Spares(launcher, config.spares)
        self._catalogue = Catalogue(store, keeper, launcher, self._transfers)
        supply = Supply(self._catalogue, keeper, self._transfers, peers)
        self._leases = Leases(store, supply, keeper, self._spares, config.paths)
        self.lending = Lending(config.name, self._catalogue, keeper)
        self.images = ImageSocket(config.paths.image_socket, self._catalogue, keeper)
        self._begun = time.monotonic()

    @classmethod
    async def start(
        cls, config: ServeConfig, *, start_cache: StartCache, launcher: Launcher, peers: Sequence[Peer]
    ) -> Node:
        """Open the state, start the cache and the first spare.

        Raises:
            StateError, LocalError: this node cannot run.
        """
        async with AsyncExitStack() as undo:
            store = await Store.open(config.paths.database)
            undo.push_async_callback(store.close)
            left = await store.end_open_leases("the agent ended without stopping it", time.time())
            if left:
                _log.warning("%d leases of an earlier agent are closed in the books", left)
            keeper = CacheKeeper(start_cache)
            await keeper.start()
            undo.pop_all()
        node = cls(config, store, keeper, launcher, peers)
        node._spares.start()
        return node

    async def close(self) -> None:
        """End leases, spares and cache, in this order, and close the state."""
        await self._leases.close()
        await self._spares.close()
        await self._keeper.close()
        await asyncio.gather(*(peer.close() for peer in self._peers))
        await self._store.close()

    async def status(self) -> StatusView:
        """Return the node at a glance; peers are asked now."""
        asking = asyncio.gather(*map(_peer_view, self._peers))
        cache, peers = await asyncio.gather(self._keeper.view(), asking)
        return StatusView(
            name=self._config.name,
            version=__version__,
            uptime_s=time.monotonic() - self._begun,
            pid=os.getpid(),
            cache=cache,
            spares=self._spares.view(),
            peers=tuple(peers),
            leases=self._leases.count,
            state_fault=self._store.fault,
        )

    async def models(self) -> tuple[ModelView, ...]:
        """Return the models known here."""
        return await self._catalogue.models()

    async def leases(self, *, include_ended: bool) -> tuple[LeaseView, ...]:
        """Return leases, newest first."""
        return await self._leases.list(include_ended=include_ended)

    def transfers(self) -> tuple[TransferView, ...]:
        """Return transfers, running ones first."""
        return self._transfers.list()

    async def publish(self, folder: Path, name: str, emit: Callable[[PublishEvent], None]) -> PublishedView:
        """Publish a folder; see ``Catalogue.publish``."""
        return await self._catalogue.publish(folder, name, emit)

    async def run(self, model: str, emit: Callable[[RunEvent], None]) -> GrantedView:
        """Start a model; see ``Leases.grant``."""
        return await self._leases.grant(model, emit)

    async def stop(self, lease_id: str) -> LeaseView:
        """End a lease; see ``Leases.stop``."""
        return await self._leases.stop(lease_id)


async def _peer_view(peer: Peer) -> PeerView:
    try:
        return PeerView(peer.address, await peer.describe(), True, "")
    except PeerNodeError as error:
        return PeerView(peer.address, "", False, error.message)
