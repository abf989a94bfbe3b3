"""From pageable memory to a CUDA device through pinned memory that is allocated once.

A copy from pageable memory runs at a seventh of the bus; pinning the image itself costs seconds per gigabyte.
So a few pinned slots are reused: threads fill them (``memmove`` without the GIL) while earlier slots travel
on a stream of their own. A slot is filled again only after the event behind its last copy has happened.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import torch

from pyrdma.limits import MIB

SLOT_BYTES: Final = 8 * MIB
"""One copy to the device. Measured on an H200 (PCIe 5): 4 MiB gave half the rate, 32 MiB two thirds."""
SLOTS: Final = 24
"""192 MiB pinned in all: two for each copying thread, so that one fills while the other travels."""
MAX_THREADS: Final = 12
"""Threads that copy: one moves 5.8 GB/s there, and 12 are the fewest that keep a bus of 55 GB/s busy."""


class Staging:
    """Pinned slots for one device; reusable, for one upload at a time.

    Args:
        device: a CUDA device.
        slot_bytes: the size of a slot.
        slots: how many, at least two.
    """

    def __init__(self, device: torch.device, *, slot_bytes: int = SLOT_BYTES, slots: int = SLOTS) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._slots = [torch.empty(slot_bytes, dtype=torch.uint8, pin_memory=True) for _ in range(slots)]
        self._sent = [torch.cuda.Event() for _ in range(slots)]  # type: ignore[no-untyped-call]
        threads = max(1, min(MAX_THREADS, os.cpu_count() or 1, slots - 1))
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="staging")

    def upload(self, source: memoryview, target: torch.Tensor) -> None:
        """Copy bytes to the device; when it returns they are there, for every stream.

        Args:
            source: flat, writable bytes (a private mapping is).
            target: a flat uint8 tensor of the same size on the device.

        Raises:
            ValueError: the sizes differ.
        """
        if source.nbytes != target.nbytes:
            raise ValueError(f"{source.nbytes} bytes do not fit a tensor of {target.nbytes}")
        if not source.nbytes:
            return
        start = ctypes.addressof(ctypes.c_ubyte.from_buffer(source))
        step = self._slots[0].nbytes
        offsets = deque(range(0, source.nbytes, step))
        # What was allocated on the current stream must be there before ours writes to it.
        self._stream.wait_stream(torch.cuda.current_stream(target.device))
        filling: deque[tuple[int, int, int, Future[None]]] = deque()

        def fill_next(slot: int) -> None:
            if offsets:
                offset = offsets.popleft()
                nbytes = min(step, source.nbytes - offset)
                future = self._threads.submit(self._fill, slot, start + offset, nbytes)
                filling.append((slot, offset, nbytes, future))

        try:
            for slot in range(len(self._slots)):
                fill_next(slot)
            while filling:
                slot, offset, nbytes, future = filling.popleft()
                future.result()
                with torch.cuda.stream(self._stream):
                    target[offset : offset + nbytes].copy_(self._slots[slot][:nbytes], non_blocking=True)
                    self._sent[slot].record(self._stream)
                fill_next(slot)
        finally:
            for *_, future in filling:
                future.cancel()
            self._stream.synchronize()

    def close(self) -> None:
        """End the threads and free the pinned memory."""
        self._threads.shutdown()
        self._slots.clear()

    def _fill(self, slot: int, address: int, nbytes: int) -> None:
        self._sent[slot].synchronize()  # at once for an event that was never recorded
        ctypes.memmove(self._slots[slot].data_ptr(), address, nbytes)
