"""What the daemon is put together from, as interfaces: the weight cache, runners and peers.

The real ones are ``pyrdma.cache.client.CacheClient``, ``agent.launch.RunnerLauncher`` and
``agent.rpc.peer.PeerClient``; tests of the daemon bring their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.resolve import ModelRef, Offer
from pyrdma.cache.client import CacheStatus, Progress, PullReport, PullSource, SourceGrant
from pyrdma.image.manifest import ImageId, Manifest
from pyrdma.wire import Channel


class Parcel(Protocol):
    """A mapping of an image on its way to a runner."""

    def send_to(self, channel: Channel) -> None:
        """Pass the mapping on; blocks while the channel is full."""

    async def asend_to(self, channel: Channel) -> None:
        """The same without blocking the event loop."""

    def close(self) -> None:
        """Let go of it."""


class Cache(Protocol):
    """A running weight cache; after ``closed`` every call raises ChannelError."""

    pid: int
    closed: asyncio.Event

    async def status(self) -> CacheStatus:
        """Return what it holds."""

    async def publish(self, folder: Path, progress: Callable[[Progress], None]) -> Manifest:
        """Read a folder into memory."""

    async def lane_address(self) -> bytes:
        """Return the address that sources answer to."""

    async def open_source(
        self, image_id: ImageId, peer_address: bytes, *, metered: bool = False
    ) -> SourceGrant:
        """Let a peer pull an image; what it gets counts if ``metered``."""

    async def egress(self, bytes_per_s: int, until_bytes: int | None) -> int:
        """Bound what metered sources send from now on; return what they have sent since this cache began."""

    async def close_source(self, session: int) -> None:
        """End what ``open_source`` began."""

    async def pull(
        self, manifest: Manifest, sources: Sequence[PullSource], progress: Callable[[Progress], None]
    ) -> PullReport:
        """Bring an image here, every piece verified."""

    async def attach(self, image_id: ImageId) -> Parcel:
        """Return the mapping of a whole image."""

    async def drop(self, image_id: ImageId) -> None:
        """Let go of an image's memory."""

    async def lend(self, nbytes: int) -> CacheStatus:
        """Hold at most this much memory from now on, but for what is in use; return what is held then."""

    async def close(self) -> None:
        """End the process."""


StartCache = Callable[[], Awaitable[Cache]]


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a runner needs to serve one lease; the key goes to the runner only."""

    lease_id: str
    model: str
    api_key: str
    listener_fd: int


class Runner(Protocol):
    """A runner process, from its start as a spare to its end."""

    pid: int
    ended: asyncio.Event

    async def ready(self) -> None:
        """Wait until it can be assigned. Raises RunnerError."""

    async def assign(
        self, assignment: Assignment, parcel: Parcel, on_phase: Callable[[str, float], None]
    ) -> Mapping[str, float]:
        """Give it a lease and wait until it answers; return its phases' seconds. Raises RunnerError."""

    def end_reason(self) -> str:
        """Say in half a sentence how it ended."""

    async def drain(self, left_s: float) -> None:
        """Let it take nothing new, and end when what it has begun is done; it is killed in ``left_s``."""

    async def undrain(self) -> bool:
        """Let it take requests again after ``drain``; whether it does: one that has begun to end does not."""

    def kill(self) -> None:
        """End it and everything that it started at once, without waiting."""

    async def stop(self) -> None:
        """End it and everything that it started; a second call does nothing."""


class Launcher(Protocol):
    """What starts runners."""

    async def spawn(self, gpus: str = "") -> Runner:
        """Start a spare, which sees these GPUs if any are named. Raises RunnerError where none can run."""

    async def check(self, folder: Path) -> str:
        """Check that a folder's model can run from an image; return a note for the caller, or nothing.

        Raises:
            UnsupportedModelError: it cannot.
        """


class Lender(Protocol):
    """Another agent that may hold images. Every method raises PeerNodeError."""

    address: str

    async def find(self, ref: ModelRef) -> Offer | None:
        """Return what the node has under the reference."""

    async def manifest(self, image_id: ImageId) -> Manifest:
        """Return an image's manifest, checked by its id."""

    def open_source(
        self, image_id: ImageId, lane_address: bytes, limit_s: float
    ) -> AbstractAsyncContextManager[SourceGrant]:
        """Keep a source open as long as the context is."""


class Peer(Lender, Protocol):
    """A static peer of this machine."""

    async def describe(self) -> str:
        """Return the node's name. Raises PeerNodeError."""

    async def close(self) -> None:
        """Let go of the connection."""


class NodeFace(Protocol):
    """What the Node service needs of this node, to answer peers."""

    name: str

    async def find_image(self, ref: ModelRef | None, image_id: ImageId | None) -> tuple[ImageId, int] | None:
        """Return the image that is asked for, if it can be pulled from here, and its size."""

    async def manifest_of(self, image_id: ImageId) -> Manifest:
        """Return the manifest of a known image."""

    def lend(self, image_id: ImageId, peer_address: bytes) -> AsyncGenerator[SourceGrant, None]:
        """Yield a grant, and close the source when the iterator is closed."""
