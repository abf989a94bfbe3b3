"""Checks many signatures on all cores, in processes of their own: threads would wait for one another.

Rules: a few receipts are checked in a thread at once, without a process. Processes are started for one piece
of work (a sync, a verification), know the keys from their start and nothing else, and end with it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import Final, Self

from federation.ledger.items import Item, check_items
from federation.ledger.signing import Keys

_FEW: Final = 300
"""Below this a process is not worth its start, which takes about as long."""

_keys: Keys | None = None


class SignatureChecks:
    """Checks against one set of keys; use it as a context, so that its processes end."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; what they still have to do is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def check(self, items: Sequence[Item]) -> bytes:
        """Return what ``check_items`` says of each item."""
        if len(items) < _FEW and self._pool is None:
            return await asyncio.to_thread(check_items, items, self._keys)
        return await asyncio.wrap_future(self.submit(items))

    def submit(self, items: Sequence[Item]) -> Future[bytes]:
        """Begin to check items, without a loop."""
        if self._pool is None:
            # Not fork: the agent has threads, and gRPC's do not survive one.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                os.cpu_count() or 1, context, initializer=_begin, initargs=(self._keys,)
            )
        return self._pool.submit(_check, [tuple(item) for item in items])


def _begin(keys: Keys) -> None:
    global _keys  # a worker's one piece of state, set before its first task
    _keys = keys


def _check(items: list[tuple[bytes, ...]]) -> bytes:
    # Plain tuples cross to the process in a third of the time that named ones take.
    assert _keys is not None
    return check_items((Item(*one) for one in items), _keys)
