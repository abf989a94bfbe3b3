"""What a node donates, put together: memory with a weight cache, spare runners, and the leases on them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.catalogue import Catalogue
from agent.daemon.config import ServeConfig
from agent.daemon.devices import Devices, cpu_devices
from agent.daemon.faces import Emit, Order
from agent.daemon.image_socket import ImageSocket
from agent.daemon.leases import Leases
from agent.daemon.lending import Lending
from agent.daemon.parts import Launcher, Lender, StartCache
from agent.daemon.pipes import Pipe
from agent.daemon.reports import LeaseEnd, Report, ReportedImage
from agent.daemon.spares import Spares
from agent.daemon.supply import Found, Supply
from agent.daemon.transfers import Transfers
from agent.devices.nvml import open_nvml
from agent.limits import MAX_REPORTED_IMAGES, MAX_REPORTED_NAMES
from agent.local.views import GrantedView
from agent.state import Store
from agent.state.donations import Donations
from pyrdma.errors import Error

_log = logging.getLogger(__name__)


class Host:
    """One node's donation. Made by ``start``, ended by ``close``.

    Args:
        here: this node as ``SITE/NODE``; empty outside a site.
        forwards: whether images on their way here are offered to this site's nodes.
        lenders: returns who may hold images that this node lacks.
    """

    def __init__(
        self,
        config: ServeConfig,
        store: Store,
        keeper: CacheKeeper,
        launcher: Launcher,
        *,
        here: str,
        forwards: bool,
        lenders: Callable[[], Sequence[Lender]],
        devices: Callable[[Spares], Devices],
    ) -> None:
        self._store = store
        self.keeper = keeper
        self.transfers = Transfers()
        self.spares = Spares(launcher, config.spares)
        self.devices = devices(self.spares)
        self.catalogue = Catalogue(store, keeper, launcher, self.transfers)
        self.supply = Supply(self.catalogue, keeper, self.transfers, lenders)
        self.leases = Leases(
            store,
            self.supply,
            keeper,
            self.spares,
            config.paths,
            here,
            devices=self.devices,
            grace_s=config.grace_s,
        )
        self.lending = Lending(config.name, self.catalogue, keeper, forwards=forwards)
        self.devices.on_more_memory = self._read_again
        self._reading: asyncio.Task[None] | None = None
        self.images = ImageSocket(config.paths.image_socket, self.catalogue, keeper)

    @classmethod
    async def start(
        cls,
        config: ServeConfig,
        store: Store,
        *,
        donations: Donations,
        start_cache: StartCache,
        launcher: Launcher,
        here: str,
        forwards: bool,
        lenders: Callable[[], Sequence[Lender]],
    ) -> Host:
        """Start the cache, the first spare, and the look at devices.

        Raises:
            LocalError: this node cannot give what it was told to.
        """
        async with AsyncExitStack() as undo:
            keeper = CacheKeeper(start_cache)
            undo.push_async_callback(keeper.close)
            await keeper.start()
            settings = await donations.load()
            budget_bytes = (await keeper.view()).budget_bytes
            gpus = open_nvml() if not config.devices else None
            undo.pop_all()
        specs = gpus.devices() if gpus is not None else cpu_devices(config.devices or 1, budget_bytes)

        def devices(spares: Spares) -> Devices:
            return Devices(
                specs,
                gpus,
                keeper=keeper,
                spares=spares,
                donations=donations,
                settings=settings,
                quiet_s=config.quiet_s,
            )

        host = cls(
            config, store, keeper, launcher, here=here, forwards=forwards, lenders=lenders, devices=devices
        )
        host.spares.start(specs[0].gpu)
        host.devices.start(host.leases)
        return host

    def _read_again(self) -> None:
        """Bring back the published images that the owner's need of memory has cost."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_folders(), name="read-again")

    async def _read_folders(self) -> None:
        for record in await self._store.names():
            if record.folder and not await self.catalogue.in_memory(record.image_id):
                try:
                    await self.supply.provide(
                        record.name, Found(record.image_id, ()), lambda _: None, remember_as=""
                    )
                except Error as error:
                    _log.warning("%s is not in memory again: %s", record.name, error.message)

    async def close(self) -> None:
        """End leases, spares and cache, in this order."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self.leases.close()
        await self.devices.close()
        await self.spares.close()
        await self.keeper.close()

    async def report(self, address: str, ended: tuple[LeaseEnd, ...]) -> Report:
        """Return this node's word on itself, for its gateway."""
        cache = await self.keeper.view()
        names: dict[bytes, list[str]] = {}
        for record in await self._store.names():
            if record.folder:
                names.setdefault(bytes(record.image_id), []).append(record.name)
        replicas = (await self.keeper.replicas())[:MAX_REPORTED_IMAGES]
        return Report(
            address=address,
            devices=self.devices.reported() if cache.up else (),
            images=tuple(
                ReportedImage(
                    one.image_id,
                    one.total_bytes,
                    one.verified_pieces == one.pieces,
                    tuple(names.get(bytes(one.image_id), ())[:MAX_REPORTED_NAMES]),
                )
                for one in replicas
            ),
            leases=self.leases.lent,
            spares_ready=self.spares.view().ready,
            transfer_bytes_per_s=self.transfers.pace(),
            donating=cache.up,
            ended=ended,
            uses=self.devices.used([*self.leases.lent, *(one.lease_id for one in ended)]),
        )

    # --- as the gateway's ``Host`` ------------------------------------------------------------------------

    async def start_runner(self, order: Order, emit: Emit) -> GrantedView:
        """Start a lease here; returns when it answers."""
        return await self.leases.start_runner(order, emit)

    async def stop_runner(self, lease_id: str, reason: str) -> None:
        """End a lease here."""
        await self.leases.stop_runner(lease_id, reason)

    async def notice_runner(self, lease_id: str, left_s: float, reason: str) -> None:
        """Let a lease here finish what it has begun, since it is stopped soon."""
        self.leases.notice(lease_id, left_s, reason)

    async def withdraw_notice(self, lease_id: str) -> None:
        """Let a lease here go on, unless the owner of its devices wants them."""
        self.leases.withdraw(lease_id)

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to a runner here."""
        return await self.leases.connect(lease_id)
