"""A connection to a lease's runner that ends with the lease, whatever is still in its buffers.

An agent that was stopped for longer than a lease has bytes of its holder waiting when it goes on, and its
timers have not run yet. No byte passes here without a look at the lease.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.daemon.pipes import Pipe


class FencedPipe:
    """A ``Pipe``.

    Args:
        pipe: the way to the runner.
        check: raises OSError once the lease is over.
        count: told how many bytes the runner sent.
    """

    def __init__(self, pipe: Pipe, check: Callable[[], None], count: Callable[[int], None]) -> None:
        self._pipe = pipe
        self._check = check
        self._count = count

    async def read(self) -> bytes:
        """Return what came."""
        data = await self._pipe.read()
        self._check()
        self._count(len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Send."""
        self._check()
        await self._pipe.write(data)

    async def end(self) -> None:
        """End this half."""
        await self._pipe.end()

    async def close(self) -> None:
        """End both halves once what was written is out."""
        await self._pipe.close()

    def abort(self) -> None:
        """Let go at once."""
        self._pipe.abort()
