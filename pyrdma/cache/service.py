"""What the weight cache does for its owner: one method per operation, on one event loop."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyrdma.attach import parcel_messages
from pyrdma.cache.filling import Filling
from pyrdma.cache.messages import CacheStatus, ReplicaStatus, WorkerStatus
from pyrdma.cache.reading import read_folder
from pyrdma.cache.replicas import Replica, Replicas
from pyrdma.errors import BudgetError, LaneError, LocalError
from pyrdma.image import ImageId, Manifest, scan_folder
from pyrdma.limits import MAX_MESSAGE_BYTES
from pyrdma.memory import ExtentPool, sealed_bytes
from pyrdma.pull.engine import Progress, Pull, PullReport, PullSource
from pyrdma.transport import SourceGrant
from pyrdma.transport.ucx import UcxTransport
from pyrdma.wire import Message

Report = Callable[[Progress], None]


class CacheService:
    """The weight cache of one node.

    Args:
        pool: the donated memory.
        interface: the protected interface that the UCX lane may listen on.
        threads: how many cores copy and digest at a time.
    """

    def __init__(self, pool: ExtentPool, interface: str, *, threads: int) -> None:
        self._pool = pool
        self._replicas = Replicas(pool)
        self._interface = interface
        self._proving = ThreadPoolExecutor(threads, thread_name_prefix="prove")
        self._lane: UcxTransport | None = None
        self._lane_lock = asyncio.Lock()
        self._pull_lock = asyncio.Lock()
        self._pull_run: asyncio.Future[PullReport] | None = None
        self._sessions: dict[int, Replica] = {}
        self._pins: dict[socket.socket, Replica] = {}
        self._egress: tuple[int, int | None] = (0, None)
        self._sent_before = 0
        """By lane workers that are gone."""

    def status(self) -> CacheStatus:
        """Return what lies in memory and which workers run."""
        lane = self._lane
        return CacheStatus(
            budget_bytes=self._pool.budget_bytes,
            used_bytes=self._pool.used_bytes,
            faulted_bytes=self._pool.faulted_bytes,
            replicas=tuple(
                ReplicaStatus(
                    image_id=one.manifest.image_id,
                    total_bytes=one.manifest.layout.total_bytes,
                    pieces=one.manifest.layout.piece_count,
                    verified_pieces=len(one.proven),
                    attached=one.pins,
                    pulling=one.filling is not None,
                )
                for one in self._replicas
            ),
            workers=(WorkerStatus(lane.lane, lane.pid),) if lane is not None and lane.alive else (),
        )

    async def publish(self, folder: Path, report: Report) -> Manifest:
        """Read a model folder into memory and return its manifest; one that is here already stays."""
        scan = await asyncio.to_thread(scan_folder, folder)
        total = scan.layout.total_bytes
        region = self._replicas.make_room(total)
        loop = asyncio.get_running_loop()

        def on_bytes(done: int) -> None:
            loop.call_soon_threadsafe(report, Progress(done, total, "disk"))

        try:
            await asyncio.to_thread(self._pool.fault_in, region)
            manifest = await asyncio.to_thread(read_folder, scan, region, self._proving, on_bytes)
        except BaseException:
            self._pool.release(region)
            raise
        known = self._replicas.find(manifest.image_id)
        if known is not None and not known.complete and not known.idle:
            async with self._pull_lock:  # a pull fills it just now: it makes it whole, or leaves it to us
                known = self._replicas.find(manifest.image_id)
        if known is not None and known.complete:
            self._pool.release(region)
            known.kept = True
            return manifest
        if known is not None:
            try:
                self._replicas.remove(known)
            except LocalError:
                self._pool.release(region)
                raise
        self._replicas.add(
            Replica(manifest, region, kept=True, proven=set(range(manifest.layout.piece_count)))
        )
        return manifest

    async def lane(self) -> UcxTransport:
        """Return the UCX lane, started if there is none that works."""
        async with self._lane_lock:
            if self._lane is None or not self._lane.alive:
                if self._lane is not None:
                    await self._lane.close()
                    self._sent_before += self._lane.sent_bytes
                    self._lane = None
                self._lane = await UcxTransport.start(self._interface)
                await self._bound(self._lane)
            return self._lane

    async def egress(self, bytes_per_s: int, until_bytes: int | None) -> int:
        """Bound what metered sessions send from now on; return what they have sent since the cache began.

        Args:
            bytes_per_s: the pace of all together; 0: no bound.
            until_bytes: of the same count as is returned; ``None``: no bound.
        """
        self._egress = (bytes_per_s, until_bytes)
        lane = self._lane
        if lane is None:
            return self._sent_before
        await self._bound(lane)
        return self._sent_before + lane.sent_bytes

    async def _bound(self, lane: UcxTransport) -> None:
        bytes_per_s, until_bytes = self._egress
        left = None if until_bytes is None else max(0, until_bytes - self._sent_before)
        await lane.bound_egress(bytes_per_s, left)

    async def open_source(
        self, image_id: ImageId, peer_address: bytes, *, metered: bool = False
    ) -> SourceGrant:
        """Let one peer read an image that is whole, or that a pull brings: then each piece once it is proven.

        Raises:
            LocalError: pieces are missing here that nobody brings.
            LaneError: the lane cannot serve.
        """
        replica = self._replicas.readable(image_id)
        filling = None if replica.complete else replica.filling
        session = secrets.randbits(64)
        replica.users += 1  # before anything is awaited: its memory must not go to another image meanwhile
        self._sessions[session] = replica
        try:
            lane = await self.lane()
            await lane.serve(
                session,
                peer_address,
                replica.region,
                replica.manifest.layout.total_bytes,
                gated=filling is not None,
                metered=metered,
                on_end=lambda: self._end_session(session),
            )
        except BaseException:
            self._end_session(session)
            raise
        if filling is not None:
            filling.tell(lane, session)  # which ends the session if the pull has failed meanwhile
        return SourceGrant(session, lane.lane, lane.address)

    async def close_source(self, session: int) -> None:
        """End a session; one that is gone is no error."""
        if session in self._sessions and self._lane is not None:
            await self._lane.withdraw(session)

    def _end_session(self, session: int) -> None:
        replica = self._sessions.pop(session, None)
        if replica is not None:
            replica.users -= 1

    async def pull(self, manifest: Manifest, sources: list[PullSource], report: Report) -> PullReport:
        """Bring an image here; pulls of one node run one after the other, since they share one ring.

        Raises:
            LaneError: the lane worker that the sources were opened for is gone; they are to be opened again.
            BudgetError: there is no room, or its owner took the memory back.
        """
        lane = self._lane
        async with self._pull_lock:
            replica = self._replicas.find(manifest.image_id)
            if replica is None:
                region = self._replicas.make_room(manifest.layout.total_bytes)
                replica = self._replicas.add(Replica(manifest, region, kept=False))
            replica.users += 1
            filling = replica.filling = Filling(replica.proven)
            try:
                await asyncio.to_thread(self._pool.fault_in, replica.region)
                if lane is None or not lane.alive:
                    raise LaneError("the UCX lane worker died before the pull began.")
                pull = Pull(
                    manifest,
                    replica.region,
                    replica.proven,
                    transport=lane,
                    threads=self._proving,
                    on_proven=filling.add,
                )
                self._pull_run = asyncio.ensure_future(pull.run(sources, report))
                return await self._pull_run
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise  # by who asked for it
                raise BudgetError(
                    "the owner of this node took its memory back during the pull.", fix="try another node"
                ) from error
            finally:
                self._pull_run = None
                replica.filling = None
                replica.users -= 1
                await filling.end(whole=replica.complete)

    def attach(self, image_id: ImageId) -> list[tuple[Message, list[int]]]:
        """Return the parcel of a whole image; its descriptors are the receiver's, but for the region's own.

        The first message's first two descriptors (pin, manifest) are to be closed by the caller once sent.
        """
        replica = self._replicas.whole(image_id)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._pins[ours] = replica
        replica.pins += 1
        asyncio.get_running_loop().add_reader(ours, self._unpin, ours)
        manifest_fd = sealed_bytes("manifest", replica.manifest.encode())
        return parcel_messages(theirs.detach(), manifest_fd, replica.region.fds, replica.region.extent_bytes)

    def _unpin(self, ours: socket.socket) -> None:
        try:
            if ours.recv(MAX_MESSAGE_BYTES):
                return  # whatever a holder writes means nothing; only the end counts
        except BlockingIOError:
            return
        except OSError:
            pass  # reset: the holder ended with something of ours unread
        asyncio.get_running_loop().remove_reader(ours)
        ours.close()
        self._pins.pop(ours).pins -= 1

    def drop(self, image_id: ImageId) -> None:
        """Let go of an image's memory.

        Raises:
            LocalError: it is not here, or in use.
        """
        replica = self._replicas.find(image_id)
        if replica is None:
            raise LocalError(f"image {image_id.hex()[:12]} is not in this node's memory.")
        self._replicas.remove(replica)

    async def lend(self, nbytes: int) -> CacheStatus:
        """Hold at most this much memory from now on, but for what is mapped; return what is held then.

        Peers that read from an image beyond it have to go on elsewhere, and a pull into one ends; what that
        frees goes with the next call.
        """
        self._replicas.lend(nbytes)
        if self._pool.used_bytes > nbytes:
            if self._pull_run is not None:
                self._pull_run.cancel()
            for session in [one for one, replica in self._sessions.items() if not replica.pins]:
                await self.close_source(session)
            self._replicas.lend(nbytes)
        return self.status()

    async def close(self) -> None:
        """End the lane worker."""
        if self._lane is not None:
            await self._lane.close()
        self._proving.shutdown(wait=False, cancel_futures=True)
