"""The table of replicas: what stays, what makes room, in which order."""

from __future__ import annotations

import pytest

from pyrdma.cache.replicas import Replica, Replicas
from pyrdma.errors import BudgetError, LocalError
from pyrdma.image import ImageId, Manifest, lay_out
from pyrdma.limits import PIECE_BYTES
from pyrdma.memory import ExtentPool


@pytest.fixture
def pool() -> ExtentPool:
    """Four extents of one piece; no page of them is ever touched."""
    return ExtentPool(4 * PIECE_BYTES, PIECE_BYTES)


def enter(
    replicas: Replicas, name: str, *, kept: bool = False, extents: int = 1, whole: bool = True
) -> Replica:
    """Enter a replica of so many extents."""
    layout = lay_out([(name, "U8", (extents * PIECE_BYTES,))])
    manifest = Manifest(layout, (b"d" * 32,) * extents)
    region = replicas.make_room(layout.total_bytes)
    return replicas.add(Replica(manifest, region, kept=kept, proven=set(range(extents if whole else 0))))


def names(replicas: Replicas) -> list[str]:
    """The replicas that are there."""
    return sorted(one.manifest.layout.tensors[0].name for one in replicas)


def test_the_longest_unused_makes_room_first(pool: ExtentPool) -> None:
    """A look-up counts as use; only as many go as the new image needs."""
    replicas = Replicas(pool)
    first = enter(replicas, "a")
    for name in "bcd":
        enter(replicas, name)
    replicas.find(first.manifest.image_id)
    enter(replicas, "e", extents=2)
    assert names(replicas) == ["a", "d", "e"]


def test_what_was_published_here_or_is_in_use_never_makes_room(pool: ExtentPool) -> None:
    """Kept, pinned and used replicas stay; when they leave too little, nothing is let go at all."""
    replicas = Replicas(pool)
    enter(replicas, "kept", kept=True)
    pinned, used = enter(replicas, "pinned"), enter(replicas, "used")
    pinned.pins, used.users = 1, 1
    enter(replicas, "idle")
    with pytest.raises(BudgetError, match="0 of 64 MiB"):
        replicas.make_room(2 * PIECE_BYTES)
    assert names(replicas) == ["idle", "kept", "pinned", "used"]
    enter(replicas, "new")
    assert names(replicas) == ["kept", "new", "pinned", "used"]


def test_a_replica_in_use_cannot_be_removed(pool: ExtentPool) -> None:
    """The sentence says by how many; its memory stays with it until they are gone."""
    replicas = Replicas(pool)
    one = enter(replicas, "a")
    one.pins, one.users = 2, 1
    with pytest.raises(LocalError, match=r"in use by 3 process\(es\)") as caught:
        replicas.remove(one)
    assert "leases" in caught.value.fix
    one.pins = one.users = 0
    replicas.remove(one)
    assert names(replicas) == []
    assert pool.used_bytes == 0


def test_only_a_whole_replica_is_given_out(pool: ExtentPool) -> None:
    """Neither an unknown image nor one with missing pieces counts as whole."""
    replicas = Replicas(pool)
    part = enter(replicas, "part", whole=False)
    with pytest.raises(LocalError, match="not whole"):
        replicas.whole(part.manifest.image_id)
    with pytest.raises(LocalError, match="not whole"):
        replicas.whole(ImageId(b"x" * 32))
    part.proven.add(0)
    assert replicas.whole(part.manifest.image_id) is part


def test_what_nobody_uses_goes_when_the_owner_wants_the_memory(pool: ExtentPool) -> None:
    """Published images last, and only as many as needed; what is in use stays until its end."""
    replicas = Replicas(pool)
    enter(replicas, "kept", kept=True)
    pinned = enter(replicas, "pinned")
    pinned.pins = 1
    enter(replicas, "idle")
    replicas.lend(2 * PIECE_BYTES)
    assert names(replicas) == ["kept", "pinned"]
    replicas.lend(0)
    assert names(replicas) == ["pinned"]
    with pytest.raises(BudgetError):
        replicas.make_room(PIECE_BYTES)
    pinned.pins = 0
    replicas.lend(0)
    assert names(replicas) == []
    replicas.lend(4 * PIECE_BYTES)
    enter(replicas, "again", extents=4)
