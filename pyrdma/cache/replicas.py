"""The replicas of one node: which images lie where, and what holds them there."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from pyrdma.cache.filling import Filling
from pyrdma.errors import LocalError
from pyrdma.image import ImageId, Manifest
from pyrdma.memory import ExtentPool, Region


@dataclass(slots=True)
class Replica:
    """An image, or some of its pieces, in the pool.

    ``kept`` replicas were published here and go only on demand, or when their owner wants the memory; the
    others make room when memory is short.
    ``users`` counts pulls into it and sessions from it, ``pins`` processes that map it.
    """

    manifest: Manifest
    region: Region
    kept: bool
    proven: set[int] = field(default_factory=set)
    pins: int = 0
    users: int = 0
    used_at: int = 0
    filling: Filling | None = None
    """The pull that fills it just now."""

    @property
    def complete(self) -> bool:
        """Whether every piece is proven."""
        return len(self.proven) == self.manifest.layout.piece_count

    @property
    def idle(self) -> bool:
        """Whether nothing reads or writes its memory."""
        return not self.pins and not self.users


class Replicas:
    """The table, over a pool."""

    def __init__(self, pool: ExtentPool) -> None:
        self._pool = pool
        self._by_id: dict[ImageId, Replica] = {}
        self._clock = itertools.count(1)

    def __iter__(self) -> itertools.chain[Replica]:
        return itertools.chain(self._by_id.values())

    def find(self, image_id: ImageId) -> Replica | None:
        """Return the replica, whole or not, and count it as used now."""
        replica = self._by_id.get(image_id)
        if replica is not None:
            replica.used_at = next(self._clock)
        return replica

    def whole(self, image_id: ImageId) -> Replica:
        """Return the replica if every piece of it is proven.

        Raises:
            LocalError: it is not here, or not whole.
        """
        replica = self.find(image_id)
        if replica is None or not replica.complete:
            raise LocalError(
                f"image {image_id.hex()[:12]} is not whole in this node's memory.",
                fix="run the model to pull it, or publish it again",
            )
        return replica

    def readable(self, image_id: ImageId) -> Replica:
        """Return the replica if peers may pull from it: every piece is proven, or a pull is bringing them.

        Raises:
            LocalError: it is not here, or pieces are missing that nobody brings.
        """
        replica = self.find(image_id)
        return replica if replica is not None and replica.filling is not None else self.whole(image_id)

    def make_room(self, nbytes: int) -> Region:
        """Return a region, letting go of idle replicas that were not published here, longest unused first.

        Raises:
            BudgetError: what is in use or kept leaves too little; nothing was let go.
        """
        needed = self._pool.extents_for(nbytes)
        free = (self._pool.lent_bytes - self._pool.used_bytes) // self._pool.extent_bytes
        idle = sorted(
            (replica for replica in self if replica.idle and not replica.kept), key=lambda one: one.used_at
        )
        if needed > free + sum(len(replica.region.extents) for replica in idle):
            return self._pool.allocate(nbytes)  # raises, and says what there is
        for replica in idle:
            if needed <= free:
                break
            free += len(replica.region.extents)
            self.remove(replica)
        return self._pool.allocate(nbytes)

    def lend(self, nbytes: int) -> None:
        """Hold at most this much from now on; idle replicas go until they fit, published ones last.

        What is in use stays, and goes with the next call after its end.
        """
        idle = sorted((one for one in self if one.idle), key=lambda one: (one.kept, one.used_at))
        for replica in idle:
            if self._pool.used_bytes <= nbytes:
                break
            self.remove(replica)
        self._pool.lend(nbytes)

    def add(self, replica: Replica) -> Replica:
        """Enter a replica."""
        self._by_id[replica.manifest.image_id] = replica
        replica.used_at = next(self._clock)
        return replica

    def remove(self, replica: Replica) -> None:
        """Let go of a replica's memory.

        Raises:
            LocalError: something still uses it.
        """
        if not replica.idle:
            raise LocalError(
                f"image {replica.manifest.image_id.hex()[:12]} is in use by"
                f" {replica.pins + replica.users} process(es) on this node.",
                fix="stop its leases first",
            )
        del self._by_id[replica.manifest.image_id]
        self._pool.release(replica.region)
