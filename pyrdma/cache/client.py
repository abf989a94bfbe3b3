"""The weight cache as its owner uses it: a child process and calls to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pyrdma.cache.messages import (
    CacheStatus,
    ReplicaStatus,
    WorkerStatus,
    grant_from_json,
    grant_to_json,
    progress_from_json,
    report_from_json,
    status_from_json,
)
from pyrdma.errors import ChannelError, LocalError, from_code
from pyrdma.image import ImageId, Manifest
from pyrdma.limits import MAX_MANIFEST_BYTES
from pyrdma.memory import read_bulk, sealed_bytes
from pyrdma.pull.engine import Progress, PullReport, PullSource, SourceProgress
from pyrdma.transport import SourceGrant
from pyrdma.wire import Channel, Message

START_DEADLINE_S: Final = 30.0
STOP_DEADLINE_S: Final = 5.0

__all__ = [
    "CacheClient",
    "CacheConfig",
    "CacheStatus",
    "Parcel",
    "Progress",
    "PullReport",
    "PullSource",
    "ReplicaStatus",
    "SourceGrant",
    "SourceProgress",
    "WorkerStatus",
]


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """How a weight cache is run.

    ``memory_bytes`` is the donated budget, ``interfaces`` the ones declared protected (the UCX lane uses the
    first), ``prefault`` whether the budget is touched at start rather than by the first image.
    """

    memory_bytes: int
    interfaces: tuple[str, ...] = ("lo",)
    prefault: bool = True


@dataclass(slots=True)
class Parcel:
    """A mapping on its way to the process that will use it; holds descriptors until sent or closed."""

    messages: list[tuple[Message, list[int]]] = field(default_factory=list)

    def send_to(self, channel: Channel) -> None:
        """Pass the mapping on and let go of it here."""
        try:
            for message, fds in self.messages:
                channel.send(message, fds)
        finally:
            self.close()

    async def asend_to(self, channel: Channel) -> None:
        """Pass the mapping on without blocking the event loop, and let go of it here."""
        try:
            for message, fds in self.messages:
                await channel.asend(message, fds)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the descriptors; a parcel that was never sent pins nothing afterwards."""
        for _, fds in self.messages:
            for fd in fds:
                os.close(fd)
        self.messages.clear()


@dataclass(slots=True)
class _Call:
    done: asyncio.Future[tuple[Any, list[int]]]
    on_progress: Callable[[Progress], None] | None
    parcel: Parcel = field(default_factory=Parcel)


class CacheClient:
    """A running weight cache. Made by ``start``; safe for one event loop."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel) -> None:
        self.pid = process.pid
        self.closed = asyncio.Event()
        self._process = process
        self._channel = channel
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count(1)
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, config: CacheConfig) -> CacheClient:
        """Start the weight-cache process.

        Raises:
            LocalError: it did not come up.
        """
        channel, theirs = Channel.pair()
        with theirs:
            command = [sys.executable, "-m", "pyrdma.cache", "--control-fd", str(theirs.fileno())]
            command += ["--memory", str(config.memory_bytes), "--interface", config.interfaces[0]]
            command += ["--prefault"] if config.prefault else []
            # A session of its own: a terminal's Ctrl-C is for the owner, who decides when the cache ends.
            process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        self = cls(process, channel)
        try:
            await asyncio.wait_for(channel.arecv(), START_DEADLINE_S)
        except (ChannelError, TimeoutError) as error:
            process.kill()
            process.wait()
            channel.close()
            raise LocalError("the weight cache did not start.", fix="see its message above") from error
        self._reader = asyncio.create_task(self._read(), name="weight-cache")
        return self

    async def status(self) -> CacheStatus:
        """Return what lies in memory and which workers run."""
        _, fds = await self._call({"op": "status"})
        return status_from_json(json.loads(read_bulk(fds[0], MAX_MANIFEST_BYTES)))

    async def publish(self, folder: Path, progress: Callable[[Progress], None]) -> Manifest:
        """Read a folder into donated memory and digest it; raises ImageFormatError, BudgetError."""
        _, fds = await self._call({"op": "publish", "folder": str(folder.absolute())}, on_progress=progress)
        return Manifest.decode(read_bulk(fds[0], MAX_MANIFEST_BYTES))

    async def lane_address(self) -> bytes:
        """Return the address of this node's UCX worker, for a source to answer to; raises LaneError."""
        result, _ = await self._call({"op": "lane_address"})
        return bytes.fromhex(result)

    async def open_source(
        self, image_id: ImageId, peer_address: bytes, *, metered: bool = False
    ) -> SourceGrant:
        """Let the peer at this address pull an image that is whole here, or that a pull is bringing here.

        What it gets counts, and is bounded, if ``metered``; see ``egress``.

        Raises:
            LocalError: pieces are missing here that nobody brings.
            LaneError: the lane cannot serve.
        """
        peer = peer_address.hex()
        call = {"op": "open_source", "image": image_id.hex(), "peer": peer, "metered": metered}
        result, _ = await self._call(call)
        return grant_from_json(result)

    async def egress(self, bytes_per_s: int, until_bytes: int | None) -> int:
        """Bound what metered sources send from now on; return what they have sent since this cache began.

        Args:
            bytes_per_s: the pace of all together; 0: no bound.
            until_bytes: of the same count as is returned; ``None``: no bound. Beyond it requests are refused.
        """
        call = {"op": "egress", "bytes_per_s": bytes_per_s, "until_bytes": until_bytes}
        result, _ = await self._call(call)
        return int(result)

    async def close_source(self, session: int) -> None:
        """End a session; one that is gone is no error."""
        await self._call({"op": "close_source", "session": session})

    async def pull(
        self, manifest: Manifest, sources: Sequence[PullSource], progress: Callable[[Progress], None]
    ) -> PullReport:
        """Pull an image until it is whole here; raises NoSourceError, BudgetError, LaneError."""
        told = [{"name": one.name, "grant": grant_to_json(one.grant)} for one in sources]
        fd = sealed_bytes("manifest", manifest.encode())
        try:
            result, _ = await self._call({"op": "pull", "sources": told}, fds=[fd], on_progress=progress)
        finally:
            os.close(fd)
        return report_from_json(result)

    async def attach(self, image_id: ImageId) -> Parcel:
        """Return the mapping of a whole image, to be passed on; raises LocalError."""
        message: Message = {"op": "attach", "image": image_id.hex()}
        call = self._begin(message)
        await self._channel.asend(message)
        await call.done
        return call.parcel

    async def drop(self, image_id: ImageId) -> None:
        """Let go of an image's memory; raises LocalError while something uses it."""
        await self._call({"op": "drop", "image": image_id.hex()})

    async def lend(self, nbytes: int) -> CacheStatus:
        """Hold at most this much of the budget from now on; return what is held then.

        Idle replicas beyond it go, published ones last, and their memory goes back to the system. What is in
        use stays; call it again after its end.
        """
        _, fds = await self._call({"op": "lend", "nbytes": nbytes})
        return status_from_json(json.loads(read_bulk(fds[0], MAX_MANIFEST_BYTES)))

    async def close(self) -> None:
        """End the process; regions that others map live on until they let go."""
        self._channel.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_DEADLINE_S):
                while self._process.poll() is None:
                    await asyncio.sleep(0.01)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        self._fail()

    # --- calls --------------------------------------------------------------------------------------------

    async def _call(
        self,
        message: Message,
        *,
        fds: Sequence[int] = (),
        on_progress: Callable[[Progress], None] | None = None,
    ) -> tuple[Any, list[int]]:
        call = self._begin(message, on_progress)
        await self._channel.asend(message, fds)
        try:
            return await call.done
        except asyncio.CancelledError:
            if self._calls.pop(message["id"], None) is not None and not self.closed.is_set():
                # Nobody waits for it any more: a pull stops, everything else runs to its end unheard.
                with contextlib.suppress(ChannelError):
                    await self._channel.asend({"op": "cancel", "id": message["id"]})
            raise

    def _begin(self, message: Message, on_progress: Callable[[Progress], None] | None = None) -> _Call:
        if self.closed.is_set():
            raise self._gone()
        message["id"] = next(self._numbers)
        call = _Call(asyncio.get_running_loop().create_future(), on_progress)
        self._calls[message["id"]] = call
        return call

    async def _read(self) -> None:
        try:
            while True:
                message, fds = await self._channel.arecv()
                self._take(message, fds)
        except (ChannelError, OSError):
            self._process.poll()
            self._fail()

    def _take(self, message: Message, fds: list[int]) -> None:
        call = self._calls.get(message["id"])
        if call is None:
            for fd in fds:
                os.close(fd)
        elif "progress" in message:
            if call.on_progress is not None:
                call.on_progress(progress_from_json(message["progress"]))
        elif "part" in message:
            call.parcel.messages.append((message["part"], fds))
        else:
            del self._calls[message["id"]]
            if call.done.done():  # its caller was cancelled: what came for it is let go of
                call.parcel.close()
                for fd in fds:
                    os.close(fd)
            elif "error" in message:
                call.parcel.close()
                call.done.set_exception(from_code(**message["error"]))
            else:
                call.done.set_result((message["result"], fds))

    def _fail(self) -> None:
        self.closed.set()
        for call in self._calls.values():
            call.parcel.close()
            if not call.done.done():
                call.done.set_exception(self._gone())
        self._calls.clear()

    @staticmethod
    def _gone() -> ChannelError:
        return ChannelError(
            "the weight cache of this node is not running.", fix="it is started again by itself"
        )
