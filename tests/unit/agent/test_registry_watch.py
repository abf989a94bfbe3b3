"""How far a node believes the registry: read from a folder with real signatures, by a clock of the test's."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from waiting import until

from agent.errors import StateError
from agent.local.federation_views import RegistryView
from agent.site.config import SiteConfig
from agent.site.registry_watch import RegistryWatch
from agent.site.trust import Trust
from federation.errors import RegistryRollbackError, RegistryUnreachableError
from federation.identity.authority import SiteAuthority
from federation.identity.keys import key_from_pem
from federation.registry.client import RegistryClient
from federation.registry.documents import GatewayAddress, SiteDocument
from federation.registry.marks import MemoryMarks
from federation.registry.membership import Membership, ModelBinding
from federation.registry.models import sign_models
from federation.registry.repository import Consortium
from federation.registry.request import make_request
from federation.registry.signing import RoleKeys
from federation.registry.tuf_api import CryptoSigner

pytestmark = pytest.mark.asyncio

NOW, HOUR_S, DAY_S = 1_800_000_000.0, 3600.0, 86400.0
CAS = {site: SiteAuthority.create(f"{site}.example", now_s=NOW) for site in ("uni-a", "uni-b")}
MODELS = {site: Ed25519PrivateKey.generate() for site in CAS}
KEYS = [CryptoSigner.generate_ed25519() for _ in range(3)]


@dataclass
class World:
    """A consortium in a folder, and the gateway of uni-a, which reads it."""

    base: Path
    now_s: float = NOW
    changes: int = 0
    marks: MemoryMarks = field(default_factory=MemoryMarks)

    def __post_init__(self) -> None:
        self.folder, self.cache = self.base / "registry", self.base / "cache"
        one = [RoleKeys((key,), 1) for key in KEYS]
        self.consortium = Consortium.init(
            self.folder, "lab", root=one[0], membership=one[1], online=KEYS[2], now_s=NOW
        )
        config = SiteConfig(
            site="uni-a",
            trust_domain="uni-a.example",
            node="gw",
            role="gateway",
            address="127.0.0.1:7443",
            listen="127.0.0.1:7443",
            gateway_node="gw",
            gateway_address="127.0.0.1:7443",
            join_address="127.0.0.1:7444",
            join_listen="127.0.0.1:7444",
        )
        self.trust = Trust(config, CAS["uni-a"].certificate_pem, lambda _: True)

    def admit(self, site: str) -> None:
        """Enter a site and publish that."""
        pem = MODELS[site].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        gateways = (GatewayAddress("gw", f"gw.{site}.example:7443"),)
        authorities = (CAS[site].certificate_pem.decode(),)
        document = SiteDocument(site, f"{site}.example", authorities, gateways, pem, "")
        request = make_request(document, [key_from_pem(CAS[site].key_pem)], MODELS[site])
        assert self.consortium.admit(request, KEYS, now_s=self.now_s)

    def client(self) -> RegistryClient:
        return RegistryClient(
            self.cache, root_pin=self.consortium.root_pin, sources=[str(self.folder)], marks=self.marks
        )

    def watch(self, client: RegistryClient | None = None) -> RegistryWatch:
        """Return a watch as after a start of the agent."""

        def changed() -> None:
            self.changes += 1

        return RegistryWatch(client or self.client(), self.trust, "uni-a", changed, clock=lambda: self.now_s)

    def others(self) -> list[str]:
        """The other sites that are trusted now."""
        return [one.site for one in self.trust.others()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A consortium of both sites."""
    made = World(tmp_path)
    made.admit("uni-a")
    made.admit("uni-b")
    return made


@asynccontextmanager
async def started(watch: RegistryWatch) -> AsyncIterator[RegistryWatch]:
    """Start a watch, and end it."""
    await watch.start()
    try:
        yield watch
    finally:
        await watch.close()


async def test_outside_a_consortium_there_is_nothing_to_read(world: World) -> None:
    """And it is said so."""
    watch = RegistryWatch(None, world.trust, "uni-a", lambda: None)
    async with started(watch):
        await watch.refresh()
    assert watch.view() == RegistryView("", "none", "this site belongs to no consortium", 0, None, None)


async def test_the_first_reading_comes_by_itself(world: World) -> None:
    """A node that has just joined knows the other sites soon after its start."""
    watch = world.watch()
    assert watch.view().state == "none"
    async with started(watch):
        await until(lambda: world.changes)
    assert world.others() == ["uni-b"]
    view = watch.view()
    assert (view.consortium, view.state, view.detail, view.sites) == ("lab", "fresh", "", 2)
    assert (view.refreshed_at, view.expires_at) == (NOW, NOW + 3 * DAY_S)


async def test_what_is_trusted_is_told_and_told_again_when_it_changes(world: World) -> None:
    """A site that was removed is no neighbour from the next reading on."""
    watch = world.watch()
    await watch.refresh()
    assert (world.others(), world.changes) == (["uni-b"], 1)
    world.now_s += 60
    world.consortium.remove("uni-b", KEYS, now_s=world.now_s)
    await watch.refresh()
    assert (world.others(), world.changes) == ([], 2)


async def test_a_site_that_is_not_admitted_yet_is_told_so_until_it_is(tmp_path: Path) -> None:
    """It knows the others meanwhile; they do not know it."""
    world = World(tmp_path)
    world.admit("uni-b")
    watch = world.watch()
    await watch.refresh()
    assert watch.view().detail == "uni-a is not admitted yet"
    assert world.others() == ["uni-b"]
    world.now_s += 60
    world.admit("uni-a")
    await watch.refresh()
    assert (watch.view().detail, watch.view().sites) == ("", 2)


async def test_a_source_that_is_gone_ends_nothing(world: World) -> None:
    """What was verified goes on, also after a start; the view says what is wrong until it is not."""
    watch = world.watch()
    await watch.refresh()
    away = world.folder.rename(world.base / "away")

    async def fails(now: RegistryWatch) -> None:
        with pytest.raises(RegistryUnreachableError):
            await now.refresh()
        assert world.others() == ["uni-b"]
        assert now.view().state == "fresh"
        assert "no such folder" in now.view().detail

    await fails(watch)
    world.trust.learn(None)
    async with started(world.watch()) as after_a_start:
        await fails(after_a_start)
    away.rename(world.folder)
    await watch.refresh()
    assert watch.view().detail == ""


async def test_an_older_copy_at_the_source_is_refused_and_said_and_ends_nothing(world: World) -> None:
    """A mirror must not be able to stop a site, nor to bring a removed one back."""
    old = shutil.copytree(world.folder, world.base / "old")
    world.now_s += 60
    world.consortium.remove("uni-b", KEYS, now_s=world.now_s)
    watch = world.watch()
    await watch.refresh()
    shutil.rmtree(world.folder)
    old.rename(world.folder)
    with pytest.raises(RegistryRollbackError):
        await watch.refresh()
    assert "older" in watch.view().detail
    assert (watch.view().state, watch.view().sites) == ("fresh", 1)
    assert world.others() == []


async def test_an_older_cache_of_ours_ends_the_trust_in_others_until_a_source_is_verified(
    world: World,
) -> None:
    """Somebody has been at our files: a site that was removed must not come back by that."""
    await world.watch().refresh()
    yesterday = (world.cache / "registry.json").read_bytes()
    world.now_s += 60
    world.consortium.remove("uni-b", KEYS, now_s=world.now_s)
    await world.watch().refresh()
    (world.cache / "registry.json").write_bytes(yesterday)
    away = world.folder.rename(world.base / "away")
    world.trust.learn(None)
    watch = world.watch()
    async with started(watch):
        assert "older" in watch.view().detail
        assert (watch.view().state, world.others()) == ("none", [])
        away.rename(world.folder)
        await watch.refresh()
        assert (watch.view().state, watch.view().detail) == ("fresh", "")
        assert world.others() == []


async def test_a_damaged_cache_is_as_none(world: World) -> None:
    """A torn file is no attack, and is no trust either."""
    await world.watch().refresh()
    (world.cache / "registry.json").write_bytes(b"{")
    world.folder.rename(world.base / "away")
    world.trust.learn(None)
    watch = world.watch()
    async with started(watch):
        await until(lambda: "no such folder" in watch.view().detail)
        assert (watch.view().state, world.others()) == ("none", [])


async def test_trust_ends_in_steps_when_nobody_signs(world: World) -> None:
    """Fresh for three days, stale until a week after the last reading, then this site alone; and back."""
    watch = world.watch()
    await watch.refresh()
    folder = world.folder.rename(world.base / "away")
    seen = []
    for hours in (1, 71, 73, 167, 169):
        world.now_s = NOW + hours * HOUR_S
        with pytest.raises(RegistryUnreachableError):
            await watch.refresh()
        seen.append((watch.view().state, world.others()))
    trusted = ["uni-b"]
    assert seen == [
        ("fresh", trusted),
        ("fresh", trusted),
        ("stale", trusted),
        ("stale", trusted),
        ("local", []),
    ]
    assert world.changes == 2
    folder.rename(world.folder)
    world.consortium.publish((KEYS[2],), now_s=world.now_s)
    await watch.refresh()
    assert (watch.view().state, world.others(), world.changes) == ("fresh", trusted, 3)


async def test_a_start_after_a_long_outage_trusts_this_site_alone(world: World) -> None:
    """The cache is there and verified, and too old to be believed."""
    await world.watch().refresh()
    world.folder.rename(world.base / "away")
    world.trust.learn(None)
    world.now_s += 8 * DAY_S
    watch = world.watch()
    async with started(watch):
        assert (watch.view().state, watch.view().sites, world.others()) == ("local", 2, [])


async def test_a_list_of_ours_that_cannot_be_used_is_told(world: World) -> None:
    """And is no reason to read again and again: that mends nothing."""
    binding = {"m": ModelBinding("ab" * 32, 1)}
    models = sign_models(MODELS["uni-a"], "uni-a", binding, version=1, now_s=NOW)
    world.consortium.publish((KEYS[2],), now_s=NOW, models=[models])
    world.now_s += 400 * DAY_S
    world.consortium.publish(KEYS, now_s=world.now_s)
    watch = world.watch()
    await watch.refresh()
    assert "list of models has expired" in watch.view().detail
    assert world.others() == ["uni-b"]
    assert watch._known is not None
    assert watch._is_admitted(watch._known)


class SlowClient(RegistryClient):
    """A client whose source takes its time; counts readings at once."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.go_on = threading.Event()
        self.reading = self.most = self.count = 0

    def refresh(self, *, now_s: float) -> Membership:
        self.reading += 1
        self.count += 1
        self.most = max(self.most, self.reading)
        try:
            assert self.go_on.wait(20)
            return super().refresh(now_s=now_s)
        finally:
            self.reading -= 1


async def test_one_reading_goes_on_at_a_time_even_if_whoever_asked_has_gone(world: World) -> None:
    """The client's cache and marks are written by one thread; what was begun still counts."""
    client = SlowClient(
        world.cache, root_pin=world.consortium.root_pin, sources=[str(world.folder)], marks=world.marks
    )
    watch = world.watch(client)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await watch.refresh()
    second = asyncio.create_task(watch.refresh())
    await asyncio.sleep(0)
    assert client.reading == 1
    client.go_on.set()
    await second
    assert (client.most, client.count) == (1, 2)
    assert world.others() == ["uni-b"]


class BrokenMarks(MemoryMarks):
    """A state file that cannot be written."""

    broken = False

    def save(self, marks: Any) -> None:
        if self.broken:
            raise StateError("the disk is full.", fix="make room")
        super().save(marks)


async def test_a_full_disk_ends_no_trust_and_is_said(world: World) -> None:
    """What was verified goes on in memory; nothing newer is believed that could not be kept."""
    world.marks = marks = BrokenMarks()
    watch = world.watch()
    await watch.refresh()
    marks.broken = True
    world.now_s += 60
    world.consortium.remove("uni-b", KEYS, now_s=world.now_s)
    with pytest.raises(StateError):
        await watch.refresh()
    assert (watch.view().detail, world.others()) == ("the disk is full.", ["uni-b"])
    marks.broken = False
    await watch.refresh()
    assert (watch.view().detail, world.others()) == ("", [])


async def test_a_site_is_told_that_its_receipts_key_is_not_entered(world: World) -> None:
    """It signs with a key that nobody else knows: nobody lends to it or borrows from it under a policy."""
    key = Ed25519PrivateKey.generate()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    watch = RegistryWatch(
        world.client(), world.trust, "uni-a", lambda: None, receipts_key=pem, clock=lambda: world.now_s
    )
    async with started(watch):
        await watch.refresh()
        assert "uni-a is admitted without a receipts key" in watch.view().detail
        assert watch.known is not None
        document = replace(watch.known.site("uni-a"), receipts_key=pem)
        request = make_request(document, [key_from_pem(CAS["uni-a"].key_pem)], MODELS["uni-a"], key)
        assert world.consortium.admit(request, KEYS, now_s=world.now_s)
        await watch.refresh()
        assert watch.view().detail == ""
