"""GPUs as NVIDIA's management library shows them. Machines without it have none.

Rules: the library is imported when somebody asks for GPUs and not before; what it cannot say is nothing (no
counter, no process), never a guess. Its calls may hang with the driver: whoever calls bounds them.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Mapping
from typing import Any, Protocol

from agent.devices.processes import tree
from agent.devices.provider import DeviceSpec

_log = logging.getLogger(__name__)


class Gpus(Protocol):
    """What is asked of GPUs; each is named as CUDA does."""

    def devices(self) -> tuple[DeviceSpec, ...]:
        """Return the GPUs."""

    def processes(self, gpu: str) -> frozenset[int]:
        """Return the processes that compute or draw on a GPU."""

    def energy_mj(self, gpu: str) -> int | None:
        """Return the energy that a GPU has used since its driver was loaded, in mJ; ``None``: no counter."""


class Nvml:
    """The GPUs of this machine. Made by ``open_nvml``."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._handles: dict[str, Any] = {}
        self._specs: list[DeviceSpec] = []
        for index in range(library.nvmlDeviceGetCount()):
            handle = library.nvmlDeviceGetHandleByIndex(index)
            gpu = _text(library.nvmlDeviceGetUUID(handle))
            memory = int(library.nvmlDeviceGetMemoryInfo(handle).total)
            kind = device_class(_text(library.nvmlDeviceGetName(handle)))
            self._handles[gpu] = handle
            self._specs.append(DeviceSpec(f"gpu{index}", "gpu", kind, memory, gpu))

    def devices(self) -> tuple[DeviceSpec, ...]:
        """Return the GPUs."""
        return tuple(self._specs)

    def processes(self, gpu: str) -> frozenset[int]:
        """Return the processes that compute or draw on a GPU."""
        handle = self._handles[gpu]
        lists = (
            self._library.nvmlDeviceGetComputeRunningProcesses,
            self._library.nvmlDeviceGetGraphicsRunningProcesses,
        )
        return frozenset(int(one.pid) for read in lists for one in self._asked(read, handle) or ())

    def energy_mj(self, gpu: str) -> int | None:
        """Return the energy that a GPU has used since its driver was loaded, in mJ."""
        used = self._asked(self._library.nvmlDeviceGetTotalEnergyConsumption, self._handles[gpu])
        return None if used is None else int(used)

    def _asked(self, read: Any, handle: Any) -> Any:
        try:
            return read(handle)
        except self._library.NVMLError as error:
            _log.debug("NVML does not say: %s", error)
            return None


def open_nvml() -> Nvml | None:
    """Return the GPUs of this machine; ``None`` where there are none, or no driver or library."""
    try:
        library = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        library.nvmlInit()
        found = Nvml(library)
    except library.NVMLError as error:
        _log.info("no GPUs here: %s", error)
        return None
    return found if found.devices() else None


def device_class(name: str) -> str:
    """Return the class of a GPU by its product's name: ``NVIDIA H100 80GB HBM3`` is ``h100-80gb``."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-").split("-")
    kept = [
        one for one in words if one not in ("nvidia", "tesla", "geforce", "graphics") and "hbm" not in one
    ]
    return "-".join(kept) or "gpu"


class GpuUse:
    """Local use of GPUs: whatever runs on one and does not descend from this agent; a ``LocalUse``."""

    def __init__(self, gpus: Gpus) -> None:
        self._gpus = gpus

    def look(self, now_s: float) -> Mapping[str, str]:
        """Return the GPUs that others use."""
        del now_s
        own = tree(os.getpid())
        used = {}
        for one in self._gpus.devices():
            others = self._gpus.processes(one.gpu) - own
            if others:
                used[one.id] = f"the process {min(others)} of this machine uses it"
        return used


def _text(said: str | bytes) -> str:
    return said.decode() if isinstance(said, bytes) else said
