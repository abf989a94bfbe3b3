"""Warm spare runners: started ahead, handed out one per lease, replaced afterwards.

A spare that dies is replaced after a growing pause; with none wanted, a runner starts when one is needed.
While the owner of the node takes devices back there are no spares: they are let go of at once. On a machine
with GPUs they stand by on the first, since a process that has begun to use one stays there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any

from agent.daemon.parts import Launcher, Runner
from agent.errors import RunnerError
from agent.limits import RESTART_FIRST_S, RESTART_LAST_S, SPARE_START_S
from agent.local.views import SparesView
from pyrdma.errors import Error

_log = logging.getLogger(__name__)


class Spares:
    """The spare runners of this node."""

    def __init__(self, launcher: Launcher, wanted: int) -> None:
        self._launcher = launcher
        self._wanted = wanted
        self._gpu = ""
        self._standing_by = asyncio.Event()
        self._standing_by.set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._ready: deque[Runner] = deque()
        self._going: set[Runner] = set()
        self._starting: Runner | None = None
        self._changed = asyncio.Condition()
        self._fault = ""
        self._start_error: Error | None = None
        self._watches: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None

    def start(self, gpu: str = "") -> None:
        """Begin to keep the wanted number of spares, on this GPU if there is one; returns at once."""
        self._gpu = gpu
        if self._wanted:
            self._keeper = asyncio.create_task(self._keep(), name="spares")

    async def close(self) -> None:
        """End every spare and start no other."""
        tasks = [*self._watches, *self._leaving, *([self._keeper] if self._keeper is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(runner.stop() for runner in (*self._ready, *self._going)))
        self._ready.clear()

    def view(self) -> SparesView:
        """Return the spares' part of the node's status."""
        alive = [runner.pid for runner in self._ready if not runner.ended.is_set()]
        starting = [self._starting.pid] if self._starting is not None else []
        return SparesView(self._wanted, len(alive), (*alive, *starting), self._fault)

    def pause(self) -> None:
        """Let go of every spare, and keep none until ``resume``; returns at once."""
        self._standing_by.clear()
        for runner in (*self._ready, *([self._starting] if self._starting is not None else [])):
            self._going.add(runner)
            self._do(self._stop(runner), f"stop-spare-{runner.pid}")
        self._ready.clear()
        self._do(self._tell(), "spares-paused")

    def resume(self) -> None:
        """Keep spares again."""
        if not self._standing_by.is_set():
            self._standing_by.set()
            self._do(self._tell(), "spares-resumed")

    def _do(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _stop(self, runner: Runner) -> None:
        await runner.stop()
        self._going.discard(runner)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def take(self, gpu: str = "") -> Runner:
        """Return a runner that can be assigned, on this GPU if one is named, waiting for one that starts.

        Raises:
            RunnerError: none comes up.
        """
        if not self._wanted or not self._standing_by.is_set() or gpu != self._gpu:
            return await self._spawn(gpu)
        try:
            async with asyncio.timeout(SPARE_START_S), self._changed:
                while True:
                    while self._ready:
                        runner = self._ready.popleft()
                        self._changed.notify_all()
                        if not runner.ended.is_set():
                            return runner
                    if not self._standing_by.is_set():
                        break
                    if self._start_error is not None and self._starting is None:
                        # Waiting out the pause would only delay the same sentence.
                        raise RunnerError(self._start_error.message, fix=self._start_error.fix)
                    await self._changed.wait()
        except TimeoutError as error:
            raise RunnerError(
                f"no runner became ready within {SPARE_START_S:.0f} s.", fix="see the agent's log"
            ) from error
        return await self._spawn(gpu)

    async def _keep(self) -> None:
        pause_s = RESTART_FIRST_S
        while True:
            async with self._changed:
                await self._changed.wait_for(
                    lambda: len(self._ready) < self._wanted and self._standing_by.is_set()
                )
            if self._fault:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RESTART_LAST_S)
            else:
                pause_s = RESTART_FIRST_S
            try:
                runner = await self._spawn(self._gpu, spare=True)
            except Error as error:
                if not self._standing_by.is_set():
                    continue  # it was let go of
                self._fault, self._start_error = error.message, error
                _log.warning("a spare runner did not start: %s", error.message)
                async with self._changed:
                    self._changed.notify_all()
                continue
            self._fault, self._start_error = "", None
            if not self._standing_by.is_set():
                await runner.stop()
                continue
            self._ready.append(runner)
            _log.info("a spare runner is ready (pid %d)", runner.pid)
            watch = asyncio.create_task(self._forget(runner), name=f"spare-{runner.pid}")
            self._watches.add(watch)
            watch.add_done_callback(self._watches.discard)
            async with self._changed:
                self._changed.notify_all()

    async def _forget(self, runner: Runner) -> None:
        await runner.ended.wait()
        async with self._changed:
            if runner in self._ready:
                self._ready.remove(runner)
                self._fault = f"a spare runner {runner.end_reason()}"
                _log.warning("%s", self._fault)
                self._changed.notify_all()

    async def _spawn(self, gpu: str, *, spare: bool = False) -> Runner:
        runner = await (self._launcher.spawn(gpu) if gpu else self._launcher.spawn())
        if spare:
            self._starting = runner
        try:
            async with asyncio.timeout(SPARE_START_S):
                await runner.ready()
        except BaseException as error:
            await runner.stop()
            if isinstance(error, TimeoutError):
                raise RunnerError(
                    f"a runner was not ready within {SPARE_START_S:.0f} s.", fix="see the agent's log"
                ) from error
            raise
        finally:
            if spare:
                self._starting = None
        return runner
