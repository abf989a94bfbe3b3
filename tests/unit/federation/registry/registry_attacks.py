"""What an attacker with a mirror or a stolen key writes into a registry, and the check that it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federation.errors import RegistryError
from federation.registry.client import RegistryClient
from federation.registry.signing import sign
from federation.registry.tuf_api import Metadata, MetaFile

NOW, HOUR_S, DAY_S = 1_800_000_000.0, 3600.0, 86400.0


def signed(world: Any, name: str) -> Any:
    """Return what a metadata file says."""
    return Metadata.from_bytes((world.folder / "metadata" / name).read_bytes()).signed


def put(world: Any, name: str, data: bytes) -> bytes:
    """Write a metadata file as an attacker with the mirror can."""
    (world.folder / "metadata" / name).write_bytes(data)
    return data


def forge(world: Any, **meta: MetaFile | None) -> None:
    """Publish another snapshot, as a thief of the online key can; ``None`` removes a line."""
    stamp = signed(world, "timestamp.json")
    snapshot = signed(world, f"{stamp.version}.snapshot.json")
    snapshot.version += 1
    for name, line in meta.items():
        snapshot.meta.pop(f"{name.replace('_', '-')}.json")
        if line is not None:
            snapshot.meta[f"{name.replace('_', '-')}.json"] = line
    data = put(world, f"{snapshot.version}.snapshot.json", sign(snapshot, [world.online], now_s=NOW))
    stamp.version += 1
    stamp.snapshot_meta = MetaFile.from_data(snapshot.version, data, ["sha256"])
    put(world, "timestamp.json", sign(stamp, [world.online], now_s=NOW))


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file of a cache but the chain of roots, which a refused registry may have led further."""
    return {one.name: one.read_bytes() for one in folder.glob("*") if one.is_file() and not one.is_symlink()}


def refused(client: RegistryClient, kind: type[RegistryError], match: str, *, now_s: float = NOW) -> None:
    """Check that a refresh is refused with this error, and that cache and marks are what they were."""
    before, marks = tree(client._cache_dir), client._marks.load()
    with pytest.raises(kind, match=match) as caught:
        client.refresh(now_s=now_s)
    assert type(caught.value) is kind
    assert (tree(client._cache_dir), client._marks.load()) == (before, marks)
