"""The devices of this node put together: what there is, who has it, what is held for it, what people say.

What is decided about a device is ``agent.devices.ownership``; this joins it to memory, spares, books and
reports.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.clocks import boot_time_s
from agent.daemon.leases import Leases
from agent.daemon.reports import LeaseUse, ReportedDevice
from agent.daemon.spares import Spares
from agent.devices.choice import Choosable, choose
from agent.devices.nvml import Gpus, GpuUse
from agent.devices.owner import Owner
from agent.devices.ownership import Held, Phase
from agent.devices.processes import tree
from agent.devices.processor import ProcessorUse
from agent.devices.provider import DeviceSpec, Idle, Moment, Provider, Static, Wants, Window
from agent.devices.settings import DeviceSettings, Will
from agent.devices.uses import Uses
from agent.devices.wishes import Claim, DeviceChange
from agent.errors import RequestError
from agent.local.device_views import GuestView, HandedOverView, OwnDeviceView, TakingView
from agent.state.donations import Donations
from federation.policy.hours import minutes_of

_COMMAND = "mine-"
"""How the claims of commands begin: their devices are not given to another one, unless it names them."""


def cpu_devices(count: int, budget_bytes: int) -> tuple[DeviceSpec, ...]:
    """Return the processor as so many devices, each with its part of the memory."""
    return tuple(DeviceSpec(f"cpu{one}", "cpu", "cpu", budget_bytes // count) for one in range(count))


class Devices:
    """The devices of one node. ``start`` when the leases on them are known.

    Args:
        specs: what there is.
        gpus: how GPUs are seen; ``None`` where the devices are none.
        keeper: the memory of those that are the processor.
        spares: runners that stand by.
        donations: what the owner said before, kept.
        settings: the same, read.
        quiet_s: how long a device must have been idle before it is lent, where it is lent only then.
    """

    def __init__(
        self,
        specs: Sequence[DeviceSpec],
        gpus: Gpus | None,
        *,
        keeper: CacheKeeper,
        spares: Spares,
        donations: Donations,
        settings: Mapping[str, DeviceSettings],
        quiet_s: float,
    ) -> None:
        self._gpus = gpus
        self._keeper = keeper
        self._spares = spares
        self._donations = donations
        self._energy_mj: dict[str, int | None] = {}
        self._names = itertools.count(1)
        self._specs = {one.id: one for one in specs}
        self.uses = Uses(self._energy_mj.get, boot_time_s)
        use = GpuUse(gpus) if gpus is not None else ProcessorUse(list(self._specs), os.cpu_count() or 1)
        inner: Provider = _Counting(Static(specs), self._count_energy)
        idle = Idle(inner, use, lambda one: self.owner.settings[one].only_idle, quiet_s=quiet_s)
        window = Window(idle, lambda one: self.owner.settings[one].hours)
        self.owner = Owner(window, self, settings, clock=boot_time_s)
        self._leases: Leases | None = None
        self._lent_bytes = sum(self.owner.lent_spec(one).memory_bytes for one in self._specs)
        self.on_more_memory: Callable[[], None] = lambda: None
        """Told when more host memory is lent again than before."""

    def start(self, leases: Leases) -> None:
        """Begin to look after the devices, for these leases."""
        self._leases = leases
        self.owner.guests = leases
        self.owner.on_change = lambda: leases.on_change()
        self.owner.start()

    async def close(self) -> None:
        """Stop looking."""
        await self.owner.close()

    # --- what leases ask ----------------------------------------------------------------------------------

    def place(self, lease_id: str, wanted: Sequence[str], grace_s: float) -> str:
        """Give a lease its devices; return what CUDA calls them. Raises RequestError, OwnedError."""
        devices = self.owner.place(lease_id, wanted, grace_s)
        self.uses.begin(lease_id, devices)
        return ",".join(gpu for one in devices if (gpu := self._specs[one].gpu))

    def left(self, lease_id: str, group: int | None) -> None:
        """Note that nothing of a lease runs any more; ``group``: the process group that its runner had."""
        self.uses.end(lease_id)
        self.owner.left(lease_id, group)

    def sent(self, lease_id: str, nbytes: int) -> None:
        """Count what a lease's runner sent."""
        self.uses.sent(lease_id, nbytes)

    # --- what is held for guests to come: a ``Room`` ------------------------------------------------------

    def pause(self) -> None:
        """Let go of spare runners, and start none."""
        self._spares.pause()

    def resume(self) -> None:
        """Keep spare runners again."""
        self._spares.resume()

    async def fit(self, lent: Sequence[DeviceSpec]) -> bool:
        """Hold no more host memory than that of the processor's devices that are lent."""
        if self._gpus is not None:
            return True  # images lie in host memory, which is not these devices'
        nbytes = sum(one.memory_bytes for one in lent)
        more, self._lent_bytes = nbytes > self._lent_bytes, nbytes
        fits = await self._keeper.lend(nbytes)
        if more:
            self.on_more_memory()
        return fits

    def in_use(self, device: DeviceSpec) -> bool:
        """Say whether a process of ours is still on a GPU."""
        if self._gpus is None or not device.gpu:
            return False
        return bool(self._gpus.processes(device.gpu) & tree(os.getpid()))

    def _count_energy(self) -> None:
        if self._gpus is not None:
            for one in self._specs.values():
                self._energy_mj[one.id] = self._gpus.energy_mj(one.gpu)

    # --- what the gateway hears ---------------------------------------------------------------------------

    def reported(self) -> tuple[ReportedDevice, ...]:
        """Return the devices as the gateway is told of them; withdrawn ones are none."""
        found = []
        for device in self._specs:
            held, settings = self.owner.held(device), self.owner.settings[device]
            if settings.will is Will.WITHDRAWN and not held.guests:
                continue
            found.append(_reported(self.owner.lent_spec(device), held, draining=settings.draining))
        return tuple(found)

    def used(self, leases: Sequence[str]) -> tuple[LeaseUse, ...]:
        """Return what these leases have used so far."""
        return tuple(LeaseUse(one, self.uses.energy_wh(one), self.uses.sent_bytes(one)) for one in leases)

    # --- what the owner says ------------------------------------------------------------------------------

    def views(self, devices: Sequence[str] | None = None) -> tuple[OwnDeviceView, ...]:
        """Return devices as their owner sees them."""
        return tuple(self._view(one) for one in (self._specs if devices is None else devices))

    async def change(self, wish: DeviceChange) -> tuple[OwnDeviceView, ...]:
        """Do what the owner says; return the devices that it is about, as they are then.

        It takes effect before it is written down: a full disk must not keep a device from its owner.

        Raises:
            RequestError: there is no such device, or what is said of it makes no sense.
            OwnedError: so many devices are not left.
            StateError: it took effect, and will be forgotten with this agent.
        """
        chosen = self._choose(wish.devices, wish.count)
        changed = {one: self._changed(self.owner.settings[one], self._specs[one], wish) for one in chosen}
        if not wish.dry_run:
            for device, settings in changed.items():
                self.owner.lend_as(device, settings)
            await self._donations.save(changed)
        return self.views(chosen)

    async def claim(self, wish: Claim, emit: Callable[[TakingView | HandedOverView], None]) -> HandedOverView:
        """Take devices back for a command of the owner's; returns when they are his.

        Raises:
            RequestError, OwnedError, BusyError: they cannot be had.
        """
        chosen = self._choose(wish.devices, wish.count or 1)
        name = f"{_COMMAND}{next(self._names)}"
        emit(TakingView(self.views(chosen)))
        reason = f"the owner runs {wish.command or 'a command'} (pid {wish.pid})"
        seconds = await self.owner.commands.take(name, chosen, reason, pid=wish.pid, started=wish.started)
        doubts = [self._doubt(one, self.owner.held(one)) for one in chosen]
        gpus = tuple(gpu for one in chosen if (gpu := self._specs[one].gpu))
        return HandedOverView(chosen, gpus, seconds, " ".join(filter(None, doubts)))

    def _choose(self, named: Sequence[str], count: int) -> tuple[str, ...]:
        self.owner.commands.forget_ended()
        now_s = boot_time_s()
        choosable = []
        for device in self._specs:
            held = self.owner.held(device)
            ages = {one: self._age_s(one, now_s) for one in held.guests}
            free = held.phase is Phase.OWNED and not held.doubt
            taken = any(one.startswith(_COMMAND) for one in held.claims)
            choosable.append(Choosable(device, taken, free, ages))
        return choose(choosable, named, count)

    def _age_s(self, lease_id: str, now_s: float) -> float:
        began_s = self.uses.began_s(lease_id)
        return now_s - began_s if began_s is not None else 0.0

    def _changed(self, was: DeviceSettings, spec: DeviceSpec, wish: DeviceChange) -> DeviceSettings:
        match wish.change:
            case "donate":
                new = replace(was, will=Will.DONATED, draining=False)
            case "withdraw":
                new = replace(was, will=Will.WITHDRAWN)
            case "reclaim":
                new = replace(was, will=Will.RECLAIMED)
            case "drain" | "undrain":
                new = replace(was, draining=wish.change == "drain")
            case other:
                raise RequestError(f"devices cannot be changed by {other[:32]!r}.")
        if wish.only_idle is not None:
            new = replace(new, only_idle=wish.only_idle)
        if wish.hours is not None:
            try:
                minutes_of(wish.hours)
            except ValueError as error:
                raise RequestError(f"{error}.", fix="write hours such as mon-fri 20:00-06:00") from error
            new = replace(new, hours=wish.hours)
        if wish.headroom_bytes is not None:
            if wish.headroom_bytes >= spec.memory_bytes:
                raise RequestError(
                    f"{spec.id} has {spec.memory_bytes} bytes: nothing would be left to lend.",
                    fix="name a smaller headroom, or withdraw the device",
                )
            new = replace(new, headroom_bytes=wish.headroom_bytes)
        return new

    def _view(self, device: str) -> OwnDeviceView:
        held, settings, now_s = self.owner.held(device), self.owner.settings[device], boot_time_s()
        spec = self.owner.lent_spec(device)
        return OwnDeviceView(
            id=device,
            kind=spec.kind,
            device_class=spec.device_class,
            memory_bytes=spec.memory_bytes,
            state=str(held.phase),
            wanted=tuple(held.claims.values()),
            left_s=_left_s(held, now_s),
            guests=tuple(self._guest(one, grace_s, now_s) for one, grace_s in held.guests.items()),
            donated=settings.will is not Will.WITHDRAWN,
            draining=settings.draining,
            only_idle=settings.only_idle,
            hours=settings.hours,
            headroom_bytes=settings.headroom_bytes,
            doubt=self._doubt(device, held),
            last_reclaim_s=held.last_reclaim_s,
        )

    def _guest(self, lease_id: str, grace_s: float, now_s: float) -> GuestView:
        record = self._leases.record(lease_id) if self._leases is not None else None
        model, borrower = (record.model, record.borrower) if record is not None else ("", "")
        return GuestView(lease_id, model, borrower, self._age_s(lease_id, now_s), grace_s)

    @staticmethod
    def _doubt(device: str, held: Held) -> str:
        return f"the memory of {device} was not seen free of guests; it is not lent." if held.doubt else ""


class _Counting:
    """A provider that reads counters at each look: a driver that hangs must not stop the loop."""

    def __init__(self, inner: Provider, count: Callable[[], None]) -> None:
        self._inner = inner
        self._count = count

    def devices(self) -> tuple[DeviceSpec, ...]:
        """Return the devices."""
        return self._inner.devices()

    def wants(self, moment: Moment) -> Wants:
        """Count, and return what the inner one wants."""
        self._count()
        return self._inner.wants(moment)


def _left_s(held: Held, now_s: float) -> float:
    if held.phase is not Phase.RECLAIMING or held.deadline_s is None:
        return 0.0
    return max(0.0, held.deadline_s - now_s)


def _reported(spec: DeviceSpec, held: Held, *, draining: bool) -> ReportedDevice:
    reported = ReportedDevice(
        spec.id,
        spec.kind,
        spec.memory_bytes,
        device_class=spec.device_class,
        reclaims=held.reclaims,
        last_reclaim_s=held.last_reclaim_s or 0.0,
    )
    if held.phase is Phase.LENT:
        # A guest stays on a device that drains; when it has gone, nobody gets it.
        return replace(reported, state="owned") if draining and not held.guests else reported
    if held.phase is Phase.OWNED:
        return replace(reported, state="owned")
    return replace(reported, state="reclaiming", reclaim_left_s=_left_s(held, boot_time_s()))
