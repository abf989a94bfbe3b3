"""What a member believes: attacks on a registry's files, and what stands afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from registry_attacks import DAY_S, HOUR_S, NOW, forge, put, refused, signed, tree

from federation.errors import (
    RegistryError,
    RegistryExpiredError,
    RegistryRollbackError,
    RegistryUnreachableError,
)
from federation.registry.marks import CLOCK, MemoryMarks
from federation.registry.membership import ModelBinding, freshness
from federation.registry.models import sign_models
from federation.registry.repository import Consortium
from federation.registry.signing import ISSUED_FIELD, RoleKeys, sign
from federation.registry.tuf_api import CryptoSigner, Metadata, MetaFile, Targets


def test_a_member_reads_who_belongs_to_it(world: Any) -> None:
    """Sites, their models, the consortium's name, and until when it counts."""
    first, second = world.admit("site-b"), world.admit("site-a")
    world.publish(first.models("m1", "m2"), now_s=NOW + 60)
    membership = world.client().refresh(now_s=NOW + 61)
    assert (membership.consortium, membership.issued_at) == ("lab", NOW + 60)
    assert membership.sites == (second.document, first.document)
    assert membership.models == {f"site-b/m{at}": ModelBinding("ab" * 32, 1000) for at in (1, 2)}
    assert membership.faults == {}
    assert membership.expires_at == NOW + 60 + 3 * DAY_S


def test_the_cache_says_the_same_without_any_source(world: Any) -> None:
    """Verified again, after a restart, with the sources gone; before the first refresh there is nothing."""
    site = world.admit("site-a")
    world.publish(site.models("m1"))
    marks, cache = MemoryMarks(), world.base / "cache"
    client = world.client(marks=marks, cache=cache)
    assert client.load(now_s=NOW) is None
    assert client.refreshed_at_s() is None
    membership = client.refresh(now_s=NOW)
    shutil.rmtree(world.folder)
    again = world.client(marks=marks, cache=cache)
    assert again.load(now_s=NOW + 60) == membership
    assert again.refreshed_at_s() == NOW
    refused(again, RegistryUnreachableError, "there is no such folder")


def test_a_second_refresh_changes_only_the_clock(world: Any) -> None:
    """Nothing new is written but when it was looked at."""
    world.admit("site-a")
    client = world.client()
    client.refresh(now_s=NOW)
    before, marks = tree(client._cache_dir), client._marks.load()
    client.refresh(now_s=NOW + HOUR_S)
    after = client._marks.load()
    assert tree(client._cache_dir) == before
    assert {name for name in after if after[name] != marks[name]} == {CLOCK}


def test_another_pin_is_another_consortium(world: Any, tmp_path: Path) -> None:
    """There is no trust on first use: the first root must be the pinned one, from whichever source."""
    keys = [CryptoSigner.generate_ed25519() for _ in range(3)]
    one = [RoleKeys((key,), 1) for key in keys]
    other = tmp_path / "other"
    Consortium.init(other, "lab", root=one[0], membership=one[1], online=keys[2], now_s=NOW)
    fresh = world.client(other)
    refused(fresh, RegistryRollbackError, "another consortium")
    assert not fresh._cache_dir.exists()
    known = world.client(cache=tmp_path / "cache", marks=(marks := MemoryMarks()))
    known.refresh(now_s=NOW)
    moved = world.client(other, cache=tmp_path / "cache", marks=marks)
    refused(moved, RegistryError, "not as its signers left it")


def test_an_older_copy_is_refused(world: Any) -> None:
    """All of yesterday's files, each rightly signed, to a member who has seen today's."""
    world.admit("site-a")
    old = world.copy("old")
    world.consortium.remove("site-a", world.signers, now_s=NOW + 60)
    marks, cache = MemoryMarks(), world.base / "cache"
    world.client(marks=marks, cache=cache).refresh(now_s=NOW + 60)
    refused(world.client(old, marks=marks, cache=cache), RegistryRollbackError, "older", now_s=NOW + 61)


@pytest.mark.parametrize("loss", ["gone", "empty", "torn", "of yesterday", "garbage", "another schema"])
def test_a_lost_cache_does_not_open_the_way_back(world: Any, loss: str) -> None:
    """python-tuf alone would begin anew at version 1; the marks stand elsewhere and remember."""
    world.admit("site-a")
    old = world.copy("old")
    marks, cache = MemoryMarks(), world.base / "cache"
    world.client(cache=cache).refresh(now_s=NOW)
    yesterday = (cache / "registry.json").read_bytes()
    world.consortium.remove("site-a", world.signers, now_s=NOW + 60)
    world.client(marks=marks, cache=cache).refresh(now_s=NOW + 60)
    file = cache / "registry.json"
    content = {
        "empty": b"",
        "torn": file.read_bytes()[:-100],
        "of yesterday": yesterday,
        "garbage": b'{"schema": 1, "roles": [], "documents": 7}',
        "another schema": file.read_bytes().replace(b'"schema": 1', b'"schema": 2'),
    }
    if loss == "gone":
        shutil.rmtree(cache)
    else:
        file.write_bytes(content[loss])
    client = world.client(old, marks=marks, cache=cache)
    if loss == "of yesterday":
        with pytest.raises(RegistryRollbackError, match="older"):
            client.load(now_s=NOW + 61)
    else:
        assert client.load(now_s=NOW + 61) is None
    with pytest.raises(RegistryRollbackError, match="older than the one known here"):
        client.refresh(now_s=NOW + 61)
    assert world.client(marks=marks, cache=cache).refresh(now_s=NOW + 61).sites == ()


def test_a_frozen_registry_expires(world: Any) -> None:
    """A mirror that shows the same for ever is believed for 72 hours, and says so afterwards."""
    world.admit("site-a")
    client = world.client()
    client.refresh(now_s=NOW)
    client.refresh(now_s=NOW + 3 * DAY_S - 1)
    refused(client, RegistryExpiredError, "has expired", now_s=NOW + 3 * DAY_S)


def test_a_clock_set_back_revives_nothing(world: Any) -> None:
    """Two days back, and the expired registry would count again: the last verified refresh is the floor."""
    world.admit("site-a")
    old = world.copy("old")
    world.publish(now_s=NOW + 5 * DAY_S)
    marks = MemoryMarks()
    world.client(marks=marks).refresh(now_s=NOW + 5 * DAY_S)
    refused(world.client(marks=marks), RegistryExpiredError, "expired", now_s=NOW + 8 * DAY_S)
    lost = world.client(old, marks=marks)
    with pytest.raises(RegistryExpiredError, match="expired"):
        lost.refresh(now_s=NOW)
    assert lost.refreshed_at_s() == NOW + 5 * DAY_S


def test_a_clock_that_jumped_ahead_heals(world: Any) -> None:
    """Ahead, everything seems expired and nothing is kept; after the correction all is as before."""
    world.admit("site-a")
    client = world.client()
    client.refresh(now_s=NOW)
    refused(client, RegistryExpiredError, "expired", now_s=NOW + 3650 * DAY_S)
    client.refresh(now_s=NOW + 2 * DAY_S)
    world.publish(now_s=NOW + HOUR_S)
    assert client.refresh(now_s=NOW + HOUR_S).issued_at == NOW + HOUR_S


def test_a_signature_from_the_future_is_refused(world: Any) -> None:
    """Else a stolen online key could push the floor of time ahead, where all that is honest has expired."""
    client = world.client()
    client.refresh(now_s=NOW)
    world.publish(now_s=NOW + HOUR_S)
    refused(client, RegistryError, "later than this node's clock shows")
    assert client.refresh(now_s=NOW + HOUR_S - 500).issued_at == NOW + HOUR_S


def test_the_cache_outlives_its_expiry_in_steps(world: Any) -> None:
    """Eight days without a source: fresh, stale, local; the members are known throughout."""
    world.admit("site-a")
    client = world.client()
    client.refresh(now_s=NOW)
    shutil.rmtree(world.folder)
    seen = []
    for hours in (1, 71, 72, 167, 169, 192):
        membership = client.load(now_s=NOW + hours * HOUR_S)
        assert membership is not None
        assert [site.site for site in membership.sites] == ["site-a"]
        seen.append(freshness(membership, client.refreshed_at_s() or 0.0, NOW + hours * HOUR_S))
    assert seen == ["fresh", "fresh", "stale", "stale", "local", "local"]


def test_a_snapshot_cannot_be_rolled_back_with_the_online_key(world: Any) -> None:
    """Its thief signs a newer snapshot that names the members before a removal."""
    world.admit("site-a")
    members = (world.folder / "metadata" / "2.targets.json").read_bytes()
    client = world.client()
    world.consortium.remove("site-a", world.signers, now_s=NOW)
    client.refresh(now_s=NOW)
    forge(world, targets=MetaFile.from_data(2, members, ["sha256"]))
    refused(client, RegistryRollbackError, "version")
    marks = client._marks
    lost = world.client(marks=marks)
    with pytest.raises(RegistryRollbackError, match="targets has version 2, and version 3 was seen"):
        lost.refresh(now_s=NOW)


def test_one_version_with_two_contents_is_refused(world: Any) -> None:
    """A member with the cache lost is shown another snapshot under the version that it has seen."""
    site = world.admit("site-a")
    world.publish(site.models("m"))
    marks = MemoryMarks()
    world.client(marks=marks).refresh(now_s=NOW)
    stamp = signed(world, "timestamp.json")
    snapshot = signed(world, f"{stamp.version}.snapshot.json")
    del snapshot.meta["site-site-a.json"]
    data = put(world, f"{snapshot.version}.snapshot.json", sign(snapshot, [world.online], now_s=NOW))
    stamp.snapshot_meta = MetaFile.from_data(snapshot.version, data, ["sha256"])
    put(world, "timestamp.json", sign(stamp, [world.online], now_s=NOW))
    with pytest.raises(RegistryRollbackError, match="another content"):
        world.client(marks=marks).refresh(now_s=NOW)


def test_nothing_vanishes_from_a_snapshot(world: Any) -> None:
    """The thief of the online key cannot hide that a site has a list."""
    site = world.admit("site-a")
    world.publish(site.models("m"))
    client = world.client()
    client.refresh(now_s=NOW)
    forge(world, site_site_a=None)
    refused(client, RegistryError, "missing info")


def test_files_of_two_days_do_not_mix(world: Any) -> None:
    """Today's timestamp with yesterday's snapshot under today's name."""
    world.admit("site-a")
    old = (world.folder / "metadata" / "2.snapshot.json").read_bytes()
    world.admit("site-b")
    put(world, "3.snapshot.json", old)
    refused(world.client(), RegistryError, "not as its signers left it")


def test_a_site_says_nothing_about_another(world: Any) -> None:
    """Site B's key signs a model of site A and a document for it: neither counts, and A is untouched."""
    first, second = world.admit("site-a"), world.admit("site-b")
    world.publish(first.models("m1"))
    evil = sign_models(second.models_key, "site-a", {"m1": ModelBinding("66" * 32, 1)}, version=7, now_s=NOW)
    put(world, "7.site-site-b.json", evil)
    world.publish()
    membership = world.client().refresh(now_s=NOW)
    assert membership.models == {"site-a/m1": ModelBinding("ab" * 32, 1000)}
    assert membership.faults == {"site-b": "the list of site-b names a model outside models/site-b/."}
    document = signed(world, "3.targets.json").targets["sites/site-a/site.json"]
    targets = Targets(version=8, targets={"sites/site-a/site.json": document})
    put(world, "8.site-site-b.json", sign(targets, [CryptoSigner(second.models_key)], now_s=NOW))
    world.publish()
    again = world.client().refresh(now_s=NOW)
    assert again.site("site-a") == first.document
    assert set(again.faults) == {"site-b"}


def test_a_site_cannot_sign_for_another(world: Any) -> None:
    """Site B's key under site A's role: A's list is left out, and nothing of B takes its place."""
    world.admit("site-a")
    second = world.admit("site-b")
    evil = sign_models(second.models_key, "site-a", {"m1": ModelBinding("66" * 32, 1)}, version=7, now_s=NOW)
    put(world, "7.site-site-a.json", evil)
    world.publish()
    membership = world.client().refresh(now_s=NOW)
    assert membership.models == {}
    assert "present key has not signed" in membership.faults["site-a"]


@pytest.mark.parametrize(
    "custom",
    [
        None,
        7,
        {},
        {"image": "zz", "bytes": 1},
        {"image": "ab" * 32},
        {"image": "ab" * 32, "bytes": True},
        {"image": "ab" * 32, "bytes": -1},
        {"image": ["ab"], "bytes": 1},
    ],
)
def test_a_malformed_list_is_its_own_sites_loss(world: Any, custom: Any) -> None:
    """A site signs what it likes; the others' models are there all the same."""
    first, second = world.admit("site-a"), world.admit("site-b")
    fields = json.loads(second.models("m"))
    fields["signed"]["targets"]["models/site-b/m"]["custom"] = custom
    targets = Metadata.from_bytes(json.dumps(fields).encode()).signed
    put(world, "1.site-site-b.json", sign(targets, [CryptoSigner(second.models_key)], now_s=NOW))
    world.publish(first.models("m"))
    membership = world.client().refresh(now_s=NOW)
    assert list(membership.models) == ["site-a/m"]
    assert set(membership.faults) == {"site-b"}


def test_an_expired_list_leaves_the_others_alone(world: Any) -> None:
    """From a source and from the cache; a list that nobody signs for a month is no longer shown."""
    first, second = world.admit("site-a"), world.admit("site-b")
    world.publish(first.models("m", now_s=NOW), second.models("m", now_s=NOW + 20 * DAY_S))
    later = NOW + 30 * DAY_S
    world.publish(now_s=later)
    client = world.client()
    membership = client.refresh(now_s=later)
    assert list(membership.models) == ["site-b/m"]
    assert set(membership.faults) == {"site-a"}
    assert client.load(now_s=later) == membership
    shutil.rmtree(world.folder)
    much_later = client.load(now_s=NOW + 51 * DAY_S)
    assert much_later is not None
    assert much_later.models == {}
    assert len(much_later.sites) == 2


def test_a_site_under_a_new_key_begins_a_new_list(world: Any, make_site: Callable[..., Any]) -> None:
    """Removed and admitted again: the old list no longer counts, the new one does."""
    old = world.admit("site-a")
    world.publish(old.models("m", version=9))
    client = world.client()
    client.refresh(now_s=NOW)
    world.consortium.remove("site-a", world.signers, now_s=NOW)
    assert client.refresh(now_s=NOW).models == {}
    new = make_site("site-a")
    world.consortium.admit(new.request(), world.signers, now_s=NOW)
    membership = client.refresh(now_s=NOW)
    assert (membership.sites, membership.models) == ((new.document,), {})
    assert client.load(now_s=NOW) == membership
    world.publish(new.models("n", version=10))
    assert list(client.refresh(now_s=NOW).models) == ["site-a/n"]


def test_a_removed_site_is_gone(world: Any) -> None:
    """With its models, at the next refresh, and in the cache."""
    site = world.admit("site-a")
    world.admit("site-b")
    world.publish(site.models("m"))
    client = world.client()
    assert len(client.refresh(now_s=NOW).sites) == 2
    world.consortium.remove("site-a", world.signers, now_s=NOW)
    membership = client.refresh(now_s=NOW)
    assert [one.site for one in membership.sites] == ["site-b"]
    assert membership.models == {}
    assert client.load(now_s=NOW) == membership
    assert b"site-a.example" not in (client._cache_dir / "registry.json").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [(b'"schema":1', b'"schema":2', "schema"), (b'"site":"site-b"', b'"site":"site-c"', "is that of site-c")],
)
def test_a_document_that_is_not_understood_is_its_own_sites_loss(
    world: Any, old: bytes, new: bytes, reason: str
) -> None:
    """Of a newer schema, or of another site: members go on with everybody whom they understand."""
    world.admit("site-a")
    world.admit("site-b")
    members = signed(world, "3.targets.json")
    (path,) = world.folder.glob("targets/sites/site-b/*.site.json")
    data = path.read_bytes().replace(old, new)
    target = type(members.targets["sites/site-b/site.json"]).from_data(
        "sites/site-b/site.json", data, ["sha256"]
    )
    (world.folder / "targets" / target.get_prefixed_paths()[0]).write_bytes(data)
    members.targets["sites/site-b/site.json"] = target
    members.version = 4
    file = put(world, "4.targets.json", sign(members, world.members[:2], now_s=NOW))
    forge(world, targets=MetaFile.from_data(4, file, ["sha256"]))
    membership = world.client().refresh(now_s=NOW)
    assert [site.site for site in membership.sites] == ["site-a"]
    assert reason in membership.faults["site-b"]


@pytest.mark.parametrize("issued", [None, "1800000000", -1, True, [1]])
def test_a_registry_says_when_it_was_signed(world: Any, issued: Any) -> None:
    """Without it, a clock that was set back could not be told."""
    stamp = signed(world, "timestamp.json")
    stamp.unrecognized_fields[ISSUED_FIELD] = issued
    put(world, "timestamp.json", sign(stamp, [world.online], now_s=NOW))
    refused(world.client(), RegistryError, "when it was signed")


def test_the_time_of_issue_never_falls(world: Any) -> None:
    """Not even under a higher version, which a thief of the online key can sign."""
    world.publish(now_s=NOW + HOUR_S)
    client = world.client()
    client.refresh(now_s=NOW + HOUR_S)
    stamp = signed(world, "timestamp.json")
    stamp.version += 1
    stamp.unrecognized_fields[ISSUED_FIELD] = int(NOW)
    put(world, "timestamp.json", sign(stamp, [world.online], now_s=NOW + DAY_S))
    refused(client, RegistryRollbackError, "signed before", now_s=NOW + HOUR_S)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_change_of_a_byte_is_believed(world: Any, data: st.DataObject) -> None:
    """Whatever is flipped or cut in the folder: the same members, or a refusal by name."""
    if not (world.base / "good").exists():
        site = world.admit("site-a")
        world.publish(site.models("m"))
        world.copy("good")
    good = world.base / "good"
    honest = world.client(good).refresh(now_s=NOW)
    files = sorted(str(one.relative_to(good)) for one in good.rglob("*.json"))
    name = data.draw(st.sampled_from(files))
    content = bytearray((good / name).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    shutil.rmtree(world.folder)
    shutil.copytree(good, world.folder)
    (world.folder / name).write_bytes(content)
    with suppress(RegistryError):
        assert world.client().refresh(now_s=NOW) == honest
