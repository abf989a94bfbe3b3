"""What signers may do to a registry, and what is refused before anything is written."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.errors import FederationInputError, NotAdmittedError, RegistryError
from federation.identity.authority import SiteAuthority
from federation.registry.documents import GatewayAddress
from federation.registry.keys import load_keys, make_keys, parse_pin, read_pin, write_pin
from federation.registry.membership import ModelBinding
from federation.registry.models import sign_models
from federation.registry.repository import Consortium
from federation.registry.request import SiteRequest
from federation.registry.signing import RoleKeys
from federation.registry.tuf_api import CryptoSigner

NOW, DAY_S = 1_800_000_000.0, 86400.0


class MakeSite(Protocol):
    def __call__(self, name: str, *, trust_domain: str = "", now_s: float = NOW) -> Any: ...


def state(folder: Path) -> dict[str, str]:
    """Return every file of a registry with its digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_a_site_is_admitted_by_enough_signers(world: Any) -> None:
    """Two of three; its document is a target, its key is trusted for its models alone."""
    site = world.admit("site-a")
    assert world.consortium.sites() == (site.document,)
    members = json.loads((world.folder / "metadata" / "2.targets.json").read_bytes())
    assert len(members["signatures"]) == 2
    assert list(members["signed"]["targets"]) == ["sites/site-a/site.json"]
    policy, role = members["signed"]["delegations"]["roles"]
    assert policy["name"] == "policy"
    assert (role["name"], role["paths"], role["terminating"]) == ("site-site-a", ["models/site-a/*"], True)


@pytest.mark.parametrize("which", [[0], [0, 0], [], ["stranger", "stranger2"]])
def test_fewer_signers_than_it_takes_are_refused(world: Any, make_site: MakeSite, which: list[Any]) -> None:
    """One of two, the same one twice, none, or strangers: nothing is written."""
    before = state(world.folder)
    signers = [world.members[one] if one == 0 else CryptoSigner.generate_ed25519() for one in which]
    with pytest.raises(FederationInputError, match="this needs 2 of the keys for the membership"):
        world.consortium.admit(make_site("site-a").request(), [*signers, world.online], now_s=NOW)
    assert state(world.folder) == before


def test_what_is_signed_without_the_online_key_waits_for_it(world: Any, make_site: MakeSite) -> None:
    """Membership signers can work offline; the change is seen once it is published."""
    site = make_site("site-a")
    assert world.consortium.admit(site.request(), world.members[:2], now_s=NOW) is False
    assert world.client().refresh(now_s=NOW).sites == ()
    world.publish()
    assert world.client().refresh(now_s=NOW).sites == (site.document,)


def test_a_new_gateway_needs_no_replacement(world: Any) -> None:
    """The CA that the site had proves the request."""
    site = world.admit("site-a")
    site.document = replace(site.document, gateways=(GatewayAddress("gpu09", "gpu09.site-a.example:7443"),))
    world.consortium.admit(site.request(), world.signers, now_s=NOW)
    assert world.consortium.sites() == (site.document,)


def test_another_ca_of_a_member_must_be_meant(world: Any, make_site: MakeSite) -> None:
    """Whoever takes a member's name with keys of his own is refused, unless the signers say otherwise."""
    world.admit("site-a")
    impostor = make_site("site-a")
    before = state(world.folder)
    with pytest.raises(FederationInputError, match="another trust domain, other CAs or another receipts key"):
        world.consortium.admit(impostor.request(), world.signers, now_s=NOW)
    assert state(world.folder) == before
    world.consortium.admit(impostor.request(), world.signers, now_s=NOW, replace=True)
    assert world.consortium.sites() == (impostor.document,)


@pytest.mark.parametrize("domain", ["site-a.example", "lab.site-a.example", "example.org", "xsite-a.example"])
@pytest.mark.parametrize("replaces", [False, True])
def test_no_two_sites_share_a_trust_domain(
    world: Any, make_site: MakeSite, domain: str, replaces: bool
) -> None:
    """Neither the same nor one below the other, said or not: a CA vouches for every name below its own."""
    world.admit("site-a")
    new = make_site("site-b", trust_domain=domain)
    if domain in ("example.org", "xsite-a.example"):
        assert world.consortium.admit(new.request(), world.signers, now_s=NOW, replace=replaces)
        return
    with pytest.raises(FederationInputError, match="is that of the site site-a"):
        world.consortium.admit(new.request(), world.signers, now_s=NOW, replace=replaces)


def test_a_trust_domain_above_a_members_is_refused(world: Any, make_site: MakeSite) -> None:
    """The CA of ``example.org`` would vouch for every node of ``a.example.org``."""
    low = make_site("site-a", trust_domain="a.example.org")
    world.consortium.admit(low.request(), world.signers, now_s=NOW)
    with pytest.raises(FederationInputError, match="or above or below"):
        world.consortium.admit(
            make_site("site-b", trust_domain="example.org").request(), world.signers, now_s=NOW
        )


def test_no_two_sites_share_a_key(world: Any, make_site: MakeSite) -> None:
    """With one models key, one site would sign for both, and the removal of one would take it from both."""
    first = world.admit("site-a")
    second = make_site("site-b")
    second.models_key = first.models_key
    second.document = replace(second.document, models_key=first.document.models_key)
    with pytest.raises(FederationInputError, match="belongs to the site site-a already"):
        world.consortium.admit(second.request(), world.signers, now_s=NOW)


@pytest.mark.parametrize("fault", ["other domain", "expired", "not yet"])
def test_a_ca_of_another_shape_is_refused(world: Any, make_site: MakeSite, fault: str) -> None:
    """It is made for its own trust domain and valid now; signers need not know how to read certificates."""
    site = make_site("site-a", now_s=NOW + {"expired": -400, "not yet": 2, "other domain": 0}[fault] * DAY_S)
    if fault == "other domain":
        site.authority = SiteAuthority.create("site-b.example", now_s=NOW)
        site.document = replace(site.document, authorities=(site.authority.certificate_pem.decode(),))
    with pytest.raises(FederationInputError, match="CA certificate of site-a"):
        world.consortium.admit(site.request(), world.signers, now_s=NOW)


def test_a_removed_site_is_gone_with_its_key(world: Any) -> None:
    """Its list stays in the snapshot, where nothing may vanish, but nobody vouches for it."""
    site = world.admit("site-a")
    world.publish(site.models("m"))
    world.consortium.remove("site-a", world.signers, now_s=NOW)
    members = json.loads((world.folder / "metadata" / "3.targets.json").read_bytes())["signed"]
    assert members["targets"] == {}
    assert set(members["delegations"]["keys"]) == {one.public_key.keyid for one in world.members}
    snapshot = sorted((world.folder / "metadata").glob("*.snapshot.json"))[-1]
    assert "site-site-a.json" in json.loads(snapshot.read_bytes())["signed"]["meta"]
    with pytest.raises(NotAdmittedError, match="site-a"):
        world.consortium.remove("site-a", world.signers, now_s=NOW)
    with pytest.raises(FederationInputError, match="no site"):
        world.publish(site.models("m", version=2))


def test_removal_takes_as_many_signers(world: Any) -> None:
    """One of two cannot throw a member out."""
    world.admit("site-a")
    with pytest.raises(FederationInputError, match="this needs 2"):
        world.consortium.remove("site-a", [world.members[0], world.online], now_s=NOW)
    assert len(world.consortium.sites()) == 1


def test_a_list_of_models_is_taken_from_its_site_alone(world: Any, make_site: MakeSite) -> None:
    """A stranger's signature, another site's folder, an old version, no list at all: nothing is published."""
    first, second = world.admit("site-a"), world.admit("site-b")
    world.publish(first.models("m", version=5))
    before = state(world.folder)
    forged = sign_models(second.models_key, "site-a", {"m": ModelBinding("cd" * 32, 1)}, version=6, now_s=NOW)
    refusals = {
        "no site": make_site("site-c").models("m"),
        "outside models/site-b/": forged,
        "5 is published already": first.models("m", version=5),
        "no signed list": b"{}",
        "at most": b" " * (1 << 20),
    }
    for reason, data in refusals.items():
        with pytest.raises(FederationInputError, match=reason):
            world.publish(data)
    assert state(world.folder) == before


def test_a_list_says_only_what_it_may(make_site: MakeSite) -> None:
    """Names, images, sizes and numbers have bounds, where the list is made."""
    key = Ed25519PrivateKey.generate()
    good = ModelBinding("ab" * 32, 1000)
    for bindings in (
        {"../site-a/m": good},
        {"m" * 65: good},
        {"": good},
        {"m": ModelBinding("AB" * 32, 1000)},
        {"m": ModelBinding("ab", 1000)},
        {"m": ModelBinding("ab" * 32, 0)},
        {"m": ModelBinding("ab" * 32, 1 << 43)},
        {f"m{at}": good for at in range(257)},
    ):
        with pytest.raises(FederationInputError):
            sign_models(key, "site-a", bindings, version=1, now_s=NOW)
    for version in (0, (1 << 53) + 1):
        with pytest.raises(FederationInputError, match="version"):
            sign_models(key, "site-a", {"m": good}, version=version, now_s=NOW)
    assert sign_models(key, "site-a", {f"m{'x' * 60}{at}": good for at in range(256)}, version=1, now_s=NOW)


def test_nothing_is_signed_over_a_folder_that_was_changed(world: Any, make_site: MakeSite) -> None:
    """An evil site, entered into the members on the web server, is not adopted by the next signature."""
    world.admit("site-a")
    path = world.folder / "metadata" / "2.targets.json"
    members = json.loads(path.read_bytes())
    members["signed"]["targets"]["sites/evil/site.json"] = members["signed"]["targets"][
        "sites/site-a/site.json"
    ]
    path.write_text(json.dumps(members))
    before = state(world.folder)
    for change in (
        lambda: world.consortium.admit(make_site("site-b").request(), world.signers, now_s=NOW),
        lambda: world.consortium.remove("site-a", world.signers, now_s=NOW),
        world.publish,
    ):
        with pytest.raises(RegistryError, match="not signed by those who may"):
            change()
    assert state(world.folder) == before


def test_nothing_is_signed_over_a_changed_document(world: Any, make_site: MakeSite) -> None:
    """A site's document in the folder is held against its digest."""
    world.admit("site-a")
    (path,) = world.folder.glob("targets/sites/site-a/*.site.json")
    path.write_bytes(path.read_bytes().replace(b"7443", b"7444"))
    with pytest.raises(RegistryError, match="was altered"):
        world.consortium.admit(make_site("site-b").request(), world.signers, now_s=NOW)


def test_keys_are_not_led_to_another_registry(world: Any) -> None:
    """The pin beside the keys says which one they sign."""
    other = Consortium(world.folder, root_pin=b"\0" * 32)
    with pytest.raises(RegistryError, match="another registry"):
        other.publish((world.online,), now_s=NOW)


def test_a_clock_that_is_behind_does_not_publish(world: Any) -> None:
    """Members would take it for an older registry."""
    world.publish(now_s=NOW + 60)
    with pytest.raises(FederationInputError, match="clock is behind"):
        world.publish(now_s=NOW)


def test_a_registry_is_not_made_twice(world: Any) -> None:
    """The first root is what everybody has pinned."""
    keys = RoleKeys((world.online,), 1)
    with pytest.raises(FederationInputError, match="holds a registry already"):
        Consortium.init(world.folder, "lab", root=keys, membership=keys, online=world.online, now_s=NOW)


def test_a_threshold_can_be_reached_by_different_keys(tmp_path: Path) -> None:
    """Neither more than there are keys, nor one key counted twice, nor none."""
    one, two = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
    good = RoleKeys((one,), 1)
    for bad in (RoleKeys((one,), 2), RoleKeys((one, one), 2), RoleKeys((), 0), RoleKeys((one, two), 0)):
        for root, membership in ((bad, good), (good, bad)):
            with pytest.raises(FederationInputError, match="different keys"):
                Consortium.init(
                    tmp_path / "r", "lab", root=root, membership=membership, online=two, now_s=NOW
                )
    assert not (tmp_path / "r" / "metadata").exists()


def test_publishing_renews_what_ages(world: Any) -> None:
    """With enough keys at hand, the members and the root never run out; without them, they are left alone."""
    world.admit("site-a")
    later = NOW + 300 * DAY_S
    world.publish(now_s=later)
    assert not (world.folder / "metadata" / "2.root.json").exists()
    world.consortium.publish((*world.root[:2], *world.members[:2], world.online), now_s=later)
    assert (world.folder / "metadata" / "2.root.json").exists()
    membership = world.client().refresh(now_s=later)
    assert membership.expires_at == later + 3 * DAY_S
    assert [site.site for site in membership.sites] == ["site-a"]


def test_an_interrupted_admission_harms_nobody(world: Any, make_site: MakeSite) -> None:
    """Files that no timestamp names yet are not seen, and what is not whole is not published."""
    site = make_site("site-a")
    world.consortium.admit(site.request(), world.members[:2], now_s=NOW)
    shutil.move(world.folder / "targets", world.folder / "elsewhere")
    assert world.client().refresh(now_s=NOW).sites == ()
    with pytest.raises(RegistryError, match="cannot be read"):
        world.publish()
    shutil.move(world.folder / "elsewhere", world.folder / "targets")
    world.publish()
    assert world.client().refresh(now_s=NOW).sites == (site.document,)


def test_old_snapshots_are_cleared_away(world: Any) -> None:
    """A registry that is signed anew every six hours does not grow for ever."""
    for at in range(70):
        world.publish(now_s=NOW + at)
    assert len(list((world.folder / "metadata").glob("*.snapshot.json"))) == 64


def test_keys_are_files_for_their_owner_alone(tmp_path: Path) -> None:
    """Mode 0600 in a folder of mode 0700; never overwritten; refused when others can read them."""
    folder = tmp_path / "keys"
    made = make_keys(folder, ["root-1", "online"])
    assert [path.stat().st_mode & 0o777 for path in (folder, *sorted(folder.iterdir()))] == [
        0o700,
        0o600,
        0o600,
    ]
    assert {one.public_key.keyid for one in load_keys(folder)} == {
        one.public_key.keyid for one in made.values()
    }
    with pytest.raises(FederationInputError, match="never overwritten"):
        make_keys(folder, ["other", "online"])
    assert not (folder / "other.pem").exists()
    (folder / "online.pem").chmod(0o640)
    with pytest.raises(FederationInputError, match="others may read"):
        load_keys(folder)


def test_a_pin_lies_beside_the_keys(tmp_path: Path) -> None:
    """It is read as it was written; anything else is refused."""
    write_pin(tmp_path, b"\xab" * 32)
    assert read_pin(tmp_path) == b"\xab" * 32
    for text in ("", "ab" * 31, "xy" * 32, "ab " * 21 + "a"):
        with pytest.raises(FederationInputError, match="64 hexadecimal digits"):
            parse_pin(text)
    (tmp_path / "root-pin").unlink()
    with pytest.raises(FederationInputError, match="not known which registry"):
        read_pin(tmp_path)


def test_a_request_is_what_was_signed(world: Any, make_site: MakeSite) -> None:
    """The signers enter the document of the request and nothing else of its file."""
    site = make_site("site-a")
    request = site.request()
    assert isinstance(request, SiteRequest)
    world.consortium.admit(request, world.signers, now_s=NOW)
    (path,) = world.folder.glob("targets/sites/site-a/*.site.json")
    assert path.read_bytes() == request.text
