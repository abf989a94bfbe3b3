"""How a lease comes to a runner that answers: its image into memory, then mapped into a spare runner.

It may be cancelled at any point: what it has taken by then stands in the lease, whose end lets go of it.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, field, replace
from typing import Literal

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.faces import Emit
from agent.daemon.parts import Assignment, Runner
from agent.daemon.relay import Relay
from agent.daemon.spares import Spares
from agent.daemon.supply import Found, Supplied, Supply
from agent.errors import RunnerError
from agent.limits import ASSIGN_S, RUNNER_BACKLOG, SPARE_WAIT_SHOWN_S
from agent.local.views import PhaseView, StartView
from agent.paths import Paths
from agent.state import LeaseRecord, Store

Notifier = Literal["owner", "gateway"]
"""Who may give a lease notice: the owner of its devices, or the gateway for another guest or for its time."""


@dataclass(slots=True)
class OpenLease:
    """A lease that has not ended, with what has to be undone.

    ``until_s`` is when it ends unless it is renewed, on the clock of boots; ``over`` rings then.
    """

    record: LeaseRecord
    work: asyncio.Task[StartView] | None = None
    runner: Runner | None = None
    relay: Relay | None = None
    watch: asyncio.Task[None] | None = None
    over: asyncio.TimerHandle | None = None
    until_s: float | None = None
    gpus: str = ""
    """What CUDA calls its devices; empty: they are none of CUDA's."""
    notices: dict[Notifier, str] = field(default_factory=dict)
    """Who says that it will end, and why; the first of them counts."""
    notice: str = ""
    """Why it will end, as its runner was told last; empty while the runner serves."""
    undraining: asyncio.Task[None] | None = None
    """What tells its runner to serve again; a notice that comes meanwhile goes before it."""
    ordered: bool = False
    """Whether the gateway ordered it."""
    reason: str = ""
    """Why it ends; empty while it does not."""
    for_owner: bool = False
    """Whether it ends, or will, because the owner of its devices wants them."""
    ending: asyncio.Task[LeaseRecord] | None = None


class Starting:
    """What starts leases on one node."""

    def __init__(
        self, store: Store, supply: Supply, keeper: CacheKeeper, spares: Spares, paths: Paths
    ) -> None:
        self._store = store
        self._supply = supply
        self._keeper = keeper
        self._spares = spares
        self._paths = paths

    async def start(
        self, lease: OpenLease, found: Found, key: str, emit: Emit, *, remember_as: str
    ) -> StartView:
        """Write a lease down and start it; returns when its runner answers.

        Raises:
            Error: any of the tree.
        """
        begun = time.monotonic()
        await self._store.put_lease(lease.record)
        supplied = await self._supply.provide(lease.record.model, found, emit, remember_as=remember_as)
        phases = await self._run(lease, key, emit)
        return _start_view(supplied, phases, time.monotonic() - begun)

    async def _run(self, lease: OpenLease, key: str, emit: Emit) -> tuple[PhaseView, ...]:
        asked = time.monotonic()
        lease.runner = runner = await self._spares.take(lease.gpus)
        waited_s = time.monotonic() - asked
        record = lease.record = replace(lease.record, state="starting")
        await self._store.put_lease(record)
        path = self._paths.runner_socket(record.id)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen(RUNNER_BACKLOG)
            assignment = Assignment(record.id, record.model, key, listener.fileno())
            parcel = await self._keeper.cache.attach(record.image_id)
            try:
                async with asyncio.timeout(ASSIGN_S):
                    phases = await runner.assign(
                        assignment, parcel, lambda name, seconds: emit(PhaseView(name, seconds))
                    )
            except TimeoutError as error:
                raise RunnerError(
                    f"a runner did not answer within {ASSIGN_S:.0f} s.", fix="see the agent's log"
                ) from error
        lease.record = replace(lease.record, state="active")
        await self._store.put_lease(lease.record)
        waited = (PhaseView("spare", waited_s),) if waited_s >= SPARE_WAIT_SHOWN_S else ()
        return (*waited, *(PhaseView(name, seconds) for name, seconds in phases.items()))


def _start_view(supplied: Supplied, phases: tuple[PhaseView, ...], ready_s: float) -> StartView:
    connect = (PhaseView("connect", supplied.connect_s),) if supplied.connect_s else ()
    return StartView(
        lane=supplied.lane,
        bytes=supplied.bytes,
        pull_s=supplied.pull_s,
        verify_s=supplied.verify_s,
        ready_s=ready_s,
        verified=supplied.verified,
        phases=(*connect, *phases),
        sources=supplied.sources,
    )
