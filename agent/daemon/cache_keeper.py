"""Keeps one weight cache running: started again when it dies, with growing pauses, and said in the status.

Leases that run keep their memory when the cache dies, since a mapping outlives the process that made it;
images that nobody maps are gone and come back from their folder or a peer at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from agent.daemon.parts import Cache, StartCache
from agent.limits import RESTART_FIRST_S, RESTART_LAST_S
from agent.local.views import CacheView, WorkerView
from pyrdma.cache.client import ReplicaStatus
from pyrdma.errors import ChannelError, Error

_log = logging.getLogger(__name__)


class CacheKeeper:
    """The weight cache of this node, whichever process it is at the moment."""

    def __init__(self, start: StartCache) -> None:
        self._start = start
        self._cache: Cache | None = None
        self._watch: asyncio.Task[None] | None = None
        self._restarts = 0
        self._lent_bytes: int | None = None
        self._fault = ""

    async def start(self) -> None:
        """Start the first one. Raises what its start raises: an agent without memory to give is none."""
        self._cache = await self._start()
        self._watch = asyncio.create_task(self._keep(), name="cache-keeper")

    async def close(self) -> None:
        """End it and start no other."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        if self._cache is not None:
            await self._cache.close()
            self._cache = None

    @property
    def cache(self) -> Cache:
        """The running cache.

        Raises:
            ChannelError: it is down at the moment.
        """
        if self._cache is None or self._cache.closed.is_set():
            raise ChannelError(
                "the weight cache of this node is starting again.", fix="try again in a few seconds"
            )
        return self._cache

    async def lend(self, nbytes: int) -> bool:
        """Have the cache hold at most this much, also one that is started later; say whether it does now.

        Raises:
            Error: the cache does not say.
        """
        self._lent_bytes = nbytes
        cache = self._cache
        if cache is None or cache.closed.is_set():
            return True  # its memory has gone with it
        return (await cache.lend(nbytes)).used_bytes <= nbytes

    async def replicas(self) -> tuple[ReplicaStatus, ...]:
        """Return what lies in memory; nothing while the cache is down."""
        try:
            return (await self.cache.status()).replicas
        except ChannelError:
            return ()

    async def view(self) -> CacheView:
        """Return the cache's part of the node's status."""
        try:
            cache = self.cache
            status = await cache.status()
        except ChannelError:
            return CacheView(False, None, 0, 0, 0, self._restarts, self._fault, ())
        return CacheView(
            up=True,
            pid=cache.pid,
            budget_bytes=status.budget_bytes,
            used_bytes=status.used_bytes,
            faulted_bytes=status.faulted_bytes,
            restarts=self._restarts,
            last_fault=self._fault,
            workers=tuple(WorkerView(worker.lane, worker.pid) for worker in status.workers),
        )

    async def _keep(self) -> None:
        pause_s = RESTART_FIRST_S
        while True:
            if self._cache is not None:
                begun = asyncio.get_running_loop().time()
                await self._cache.closed.wait()
                self._fault = f"the weight cache (pid {self._cache.pid}) ended by itself"
                _log.error("%s; it is started again", self._fault)
                with contextlib.suppress(Error, OSError):
                    await self._cache.close()
                self._cache = None
                if asyncio.get_running_loop().time() - begun > RESTART_LAST_S:
                    pause_s = RESTART_FIRST_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RESTART_LAST_S)
            try:
                self._cache = await self._start()
                if self._lent_bytes is not None:
                    await self._cache.lend(self._lent_bytes)
            except Error as error:
                self._fault = error.message
                _log.error("the weight cache did not start: %s", error.message)
            else:
                self._restarts += 1
