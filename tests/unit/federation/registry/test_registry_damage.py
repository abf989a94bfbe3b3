"""A registry whose files are torn, endless, altered or nowhere: a member's cache stays what it was."""

from __future__ import annotations

from typing import Any

import pytest
from registry_attacks import DAY_S, NOW, put, refused, signed

from federation.errors import RegistryError, RegistryRollbackError, RegistryUnreachableError
from federation.registry.cache import Cached
from federation.registry.fetching import SourceFetcher
from federation.registry.marks import MemoryMarks
from federation.registry.reader import RegistryReader
from federation.registry.signing import sign
from federation.registry.sources import FolderSource


def test_an_altered_document_is_refused(world: Any) -> None:
    """Another CA in a site's document, put there by the mirror."""
    world.admit("site-a")
    (path,) = world.folder.glob("targets/sites/site-a/*.site.json")
    path.write_bytes(path.read_bytes().replace(b"7443", b"7444"))
    refused(world.client(), RegistryError, "not as its signers left it")


@pytest.mark.parametrize(
    "missing", ["timestamp.json", "3.snapshot.json", "2.targets.json", "1.site-site-a.json"]
)
def test_a_torn_folder_is_refused_and_the_cache_stays(world: Any, missing: str) -> None:
    """A mirror in the middle of a copy: the next refresh heals it."""
    site = world.admit("site-a")
    client = world.client()
    client.refresh(now_s=NOW)
    world.publish(site.models("m"))
    path = world.folder / "metadata" / missing
    if missing == "2.targets.json":
        client = world.client()
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(RegistryUnreachableError, match="holds no registry, or a part of one"):
        client.refresh(now_s=NOW)
    path.write_bytes(data[:-50])
    with pytest.raises(RegistryError):
        client.refresh(now_s=NOW)
    path.write_bytes(data)
    assert list(client.refresh(now_s=NOW).models) == ["site-a/m"]


def test_a_failed_refresh_leaves_a_cache_that_loads(world: Any) -> None:
    """The new timestamp is there, the new members are not: the cache still holds all of the old ones."""
    world.admit("site-a")
    client = world.client()
    membership = client.refresh(now_s=NOW)
    world.admit("site-b")
    (world.folder / "metadata" / "3.targets.json").unlink()
    refused(client, RegistryUnreachableError, "a part of one")
    assert client.load(now_s=NOW) == membership


@pytest.mark.parametrize(
    "name", ["timestamp.json", "1.root.json", "3.snapshot.json", "2.targets.json", "1.site-site-a.json"]
)
def test_an_endless_file_is_cut_off(world: Any, name: str) -> None:
    """No file takes more than its bound, whatever the mirror sends after it."""
    site = world.admit("site-a")
    world.publish(site.models("m"))
    with (world.folder / "metadata" / name).open("ab") as file:
        file.truncate(64 << 20)
    refused(world.client(), RegistryError, r"of more than \d+ bytes")


def test_versions_that_nobody_reaches_are_refused(world: Any) -> None:
    """A store of marks must be able to keep them."""
    stamp = signed(world, "timestamp.json")
    stamp.version = 1 << 70
    put(world, "timestamp.json", sign(stamp, [world.online], now_s=NOW))
    refused(world.client(), RegistryError, "which nobody reaches")


def test_the_next_source_is_asked(world: Any) -> None:
    """One is gone, one is behind, one lies: the fourth is right."""
    world.admit("site-a")
    behind = world.copy("behind")
    world.admit("site-b")
    lies = world.copy("lies")
    (lies / "metadata" / "timestamp.json").write_bytes(b"{}")
    marks = MemoryMarks()
    world.client(marks=marks).refresh(now_s=NOW)
    client = world.client(world.base / "gone", behind, lies, world.folder, marks=marks)
    assert len(client.refresh(now_s=NOW).sites) == 2
    refused(world.client(world.base / "gone", lies, behind, marks=marks), RegistryRollbackError, "older")
    refused(world.client(world.base / "gone", lies, marks=marks), RegistryError, "not as its signers")


def test_a_disk_that_is_full_changes_nothing(world: Any) -> None:
    """The cache cannot be written, so the marks do not rise, and the reason is said."""
    world.admit("site-a")
    client = world.client()
    client.refresh(now_s=NOW)
    world.admit("site-b")
    marks = client._marks.load()
    (client._cache_dir / "registry.json").unlink()
    (client._cache_dir / "registry.json").mkdir()
    with pytest.raises(RegistryError, match="cannot be kept on this node's disk"):
        client.refresh(now_s=NOW)
    assert client._marks.load() == marks
    assert [path.name for path in client._cache_dir.iterdir() if path.name.startswith(".")] == []


def test_python_tuf_takes_the_time_from_us(world: Any) -> None:
    """The contract with python-tuf 7: expiry is judged by the attribute that the reader sets."""
    root = (world.folder / "metadata" / "1.root.json").read_bytes()

    def read(now_s: float) -> RegistryReader:
        fetcher = SourceFetcher(FolderSource(world.folder))
        reader = RegistryReader(world.base / "roots", fetcher, root=root, held=Cached(), now_s=now_s)
        assert reader._trusted_set.reference_time.timestamp() == now_s
        reader.refresh()
        return reader

    assert read(NOW + 3 * DAY_S - 1)._trusted_set.timestamp.version == 1
    with pytest.raises(Exception, match=r"timestamp\.json is expired"):
        read(NOW + 3 * DAY_S)
