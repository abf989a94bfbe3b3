"""Policies and auditors in the registry: who may sign which version, and what readers believe of it."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import FederationInputError, RegistryError, RegistryRollbackError
from federation.limits import MAX_PENDING_POLICIES, MAX_POLICY_BYTES
from federation.registry.marks import MemoryMarks
from federation.registry.membership import Auditor, PolicyText
from federation.registry.policies import (
    AUDITORS_PATH,
    PolicyDraft,
    add_policy,
    decode_auditors,
    encode_auditors,
    policy_path,
    read_policies,
)
from federation.registry.policy_signing import PolicySigning
from federation.registry.repository import Consortium
from federation.registry.signing import RoleKeys, sign
from federation.registry.tuf_api import CryptoSigner, Metadata, MetaFile, TargetFile, Targets

NOW, HOUR_S, DAY_S = 1_800_000_000.0, 3600.0, 86400.0
NOTICE_S = 24 * 3600


def draft(
    version: int,
    effective_at_s: float = NOW,
    *,
    name: str = "lab",
    text: str = "",
    notice_s: int = NOTICE_S,
) -> PolicyDraft:
    """Return a version to be published; the registry does not read the file."""
    data = (text or f"version: {version}\n").encode()
    return PolicyDraft(name, version, int(effective_at_s), notice_s, data)


def text_of(one: PolicyDraft) -> PolicyText:
    """Return what a reader gets of it."""
    return PolicyText(one.version, one.effective_at_s, one.data, hashlib.sha256(one.data).hexdigest())


class Desk:
    """A consortium whose policies take two of three keys of their own."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "registry"
        self.keys = [CryptoSigner.generate_ed25519() for _ in range(3)]
        self.member, self.online = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
        root = CryptoSigner.generate_ed25519()
        self.consortium = Consortium.init(
            self.folder,
            "lab",
            root=RoleKeys((root,), 1),
            membership=RoleKeys((self.member,), 1),
            policy=RoleKeys(tuple(self.keys), 2),
            online=self.online,
            now_s=NOW,
        )
        self.pin = self.consortium.root_pin
        self.policies = PolicySigning(self.folder, root_pin=self.pin)

    def publish(self, one: PolicyDraft, *, now_s: float = NOW) -> None:
        assert self.policies.publish(one, (*self.keys[:2], self.online), now_s=now_s)

    def metadata(self, name: str) -> Any:
        return Metadata.from_bytes((self.folder / "metadata" / name).read_bytes()).signed

    def put(self, name: str, data: bytes) -> bytes:
        (self.folder / "metadata" / name).write_bytes(data)
        return data

    def forge(self, line: MetaFile | None) -> None:
        """Publish another snapshot, as a thief of the online key can; ``None`` leaves the policies out."""
        stamp = self.metadata("timestamp.json")
        snapshot = self.metadata(f"{stamp.version}.snapshot.json")
        snapshot.version += 1
        snapshot.meta.pop("policy.json", None)
        if line is not None:
            snapshot.meta["policy.json"] = line
        data = self.put(f"{snapshot.version}.snapshot.json", sign(snapshot, [self.online], now_s=NOW))
        stamp.version += 1
        stamp.snapshot_meta = MetaFile.from_data(snapshot.version, data, ["sha256"])
        self.put("timestamp.json", sign(stamp, [self.online], now_s=NOW))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A consortium without sites and policies."""
    return Desk(tmp_path / "desk")


def files(folder: Path) -> dict[str, bytes]:
    """Return every file of a registry."""
    return {
        str(one.relative_to(folder)): one.read_bytes()
        for one in folder.rglob("*")
        if one.is_file() and one.name != ".lock"
    }


def test_a_member_reads_every_version(desk: Desk, world: Any) -> None:
    """In order, as bytes with their digest, from a source and from the cache; those to come as well."""
    first, second = draft(3, NOW - DAY_S), draft(7, NOW + 2 * DAY_S)
    client = world.client(desk.folder, pin=desk.pin)
    assert client.refresh(now_s=NOW).policies == ()
    desk.publish(first)
    desk.publish(second, now_s=NOW + 60)
    membership = client.refresh(now_s=NOW + 60)
    assert membership.policies == (text_of(first), text_of(second))
    assert (membership.faults, membership.auditors) == ({}, ())
    assert client.load(now_s=NOW + 61) == membership


def test_a_registry_of_before_there_were_policies_is_read(desk: Desk, world: Any) -> None:
    """Without the role; the membership signers name the first policy signers later."""
    members = desk.metadata("1.targets.json")
    del members.delegations.roles["policy"]
    members.delegations.keys.clear()
    members.version = 2
    desk.put("2.targets.json", sign(members, [desk.member], now_s=NOW))
    desk.consortium.publish((desk.online,), now_s=NOW)
    client = world.client(desk.folder, pin=desk.pin)
    membership = client.refresh(now_s=NOW)
    assert (membership.policies, membership.auditors, membership.faults) == ((), (), {})
    with pytest.raises(FederationInputError, match="names nobody who may sign policies") as refused:
        desk.publish(draft(1))
    assert "consortium policy keys" in refused.value.fix
    desk.policies.replace_keys(RoleKeys(tuple(desk.keys), 2), (desk.member, desk.online), now_s=NOW)
    desk.publish(draft(1))
    assert client.refresh(now_s=NOW).policies == (text_of(draft(1)),)


def test_without_signers_of_their_own_the_membership_signs_policies(world: Any) -> None:
    """As many of them as it takes for a member: two of three here."""
    policies = PolicySigning(world.folder, root_pin=world.consortium.root_pin)
    with pytest.raises(FederationInputError, match="this needs 2 of the keys for the policy, and 1 of them"):
        policies.publish(draft(1), (world.members[0], world.online), now_s=NOW)
    assert policies.publish(draft(1), world.signers, now_s=NOW)
    assert world.client().refresh(now_s=NOW).policies == (text_of(draft(1)),)


@pytest.mark.parametrize("which", ["one", "twice", "none", "strangers", "members"])
def test_fewer_policy_signers_than_it_takes_are_refused(desk: Desk, which: str) -> None:
    """One of two, the same one twice, none, strangers, or whoever admits sites: nothing is written."""
    stranger = [CryptoSigner.generate_ed25519() for _ in range(3)]
    signers = {
        "one": desk.keys[:1],
        "twice": [desk.keys[0], desk.keys[0]],
        "none": [],
        "strangers": stranger,
        "members": [desk.member],
    }[which]
    before = files(desk.folder)
    with pytest.raises(FederationInputError, match="this needs 2 of the keys for the policy"):
        desk.policies.publish(draft(1), [*signers, desk.online], now_s=NOW)
    with pytest.raises(FederationInputError, match="this needs 2 of the keys for the policy"):
        desk.policies.set_auditors((), [*signers, desk.online], now_s=NOW)
    assert files(desk.folder) == before


def test_policy_signers_admit_nobody(desk: Desk, make_site: Any) -> None:
    """Their role is theirs alone, and so is that of the membership."""
    with pytest.raises(FederationInputError, match="this needs 1 of the keys for the membership"):
        desk.consortium.admit(make_site("site-a").request(), (*desk.keys, desk.online), now_s=NOW)


def test_a_version_that_breaks_a_rule_is_not_signed(desk: Desk) -> None:
    """Another consortium's, an older number, too little notice, before the last one, too large, empty."""
    desk.publish(draft(1, NOW - DAY_S))
    desk.publish(draft(2, NOW + 3 * DAY_S))
    before = files(desk.folder)
    for one, why in (
        (draft(3, NOW + 9 * DAY_S, name="elsewhere"), "that of elsewhere"),
        (draft(2, NOW + 9 * DAY_S), "version 2 is published already"),
        (draft(1, NOW + 9 * DAY_S), "version 2 is published already"),
        (draft(3, NOW + NOTICE_S - 1), "a notice of 24.0 h"),
        (draft(3, NOW - DAY_S), "a notice of 24.0 h"),
        (draft(3, NOW + 2 * DAY_S), "none begins before"),
        (draft(3, NOW + 9 * DAY_S, text="x" * (MAX_POLICY_BYTES + 1)), "bytes"),
        (PolicyDraft("lab", 3, int(NOW + 9 * DAY_S), 0, b""), "bytes"),
        (draft(0, NOW + 9 * DAY_S), "positive"),
        (draft(3, 1 << 50), "positive"),
        (draft(3, NOW + 9 * DAY_S, notice_s=-1), "positive"),
    ):
        with pytest.raises(FederationInputError, match=why):
            desk.publish(one)
    assert files(desk.folder) == before
    desk.publish(draft(3, NOW + 3 * DAY_S))


def test_the_first_version_may_begin_at_once_and_few_wait(desk: Desk) -> None:
    """Nobody lives under a policy yet; later on, so many may wait for their day."""
    desk.publish(draft(1, NOW))
    for at in range(MAX_PENDING_POLICIES):
        desk.publish(draft(2 + at, NOW + (2 + at) * DAY_S))
    with pytest.raises(FederationInputError, match="wait to come into force"):
        desk.publish(draft(9, NOW + 9 * DAY_S))
    desk.publish(draft(9, NOW + 9 * DAY_S), now_s=NOW + 2 * DAY_S)


def test_the_notice_is_that_of_the_version_before(desk: Desk) -> None:
    """A version cannot shorten its own notice; one without any lets the next begin at once."""
    desk.publish(draft(1, NOW))
    with pytest.raises(FederationInputError, match=r"version 1 demands a notice of 24\.0 h"):
        desk.publish(draft(2, NOW + 60, notice_s=0))
    desk.publish(draft(2, NOW + DAY_S, notice_s=0))
    desk.publish(draft(3, NOW + 3 * DAY_S), now_s=NOW + 3 * DAY_S)


def test_what_is_signed_without_the_online_key_waits(desk: Desk, world: Any) -> None:
    """Policy signers work offline; the online key's publication shows it."""
    assert desk.policies.publish(draft(1), desk.keys[1:], now_s=NOW) is False
    client = world.client(desk.folder, pin=desk.pin)
    assert client.refresh(now_s=NOW).policies == ()
    desk.consortium.publish((desk.online,), now_s=NOW)
    assert client.refresh(now_s=NOW).policies == (text_of(draft(1)),)


def test_a_tampered_file_is_the_sources_fault(desk: Desk, world: Any, make_site: Any) -> None:
    """Nothing changes for who knew it before; another source may have the true one."""
    desk.publish(draft(1))
    (file,) = (desk.folder / "targets" / "policy").glob("*.1.yaml")
    true = file.read_bytes()
    file.write_bytes(true.replace(b"1", b"2"))
    client = world.client(desk.folder, pin=desk.pin)
    with pytest.raises(RegistryError, match="not as its signers left it"):
        client.refresh(now_s=NOW)
    with pytest.raises(RegistryError, match="altered"):
        desk.consortium.publish((desk.online,), now_s=NOW)
    with pytest.raises(RegistryError, match="altered"):
        desk.consortium.admit(make_site("site-a").request(), (desk.member, desk.online), now_s=NOW)
    file.write_bytes(true)
    assert client.refresh(now_s=NOW).policies == (text_of(draft(1)),)


def test_an_older_list_is_refused_even_with_the_online_key(desk: Desk, world: Any) -> None:
    """Its thief names the list before; with the cache lost, the marks remember."""
    desk.publish(draft(1))
    desk.publish(draft(2, NOW + 2 * DAY_S))
    marks = MemoryMarks()
    world.client(desk.folder, pin=desk.pin, marks=marks).refresh(now_s=NOW)
    old = (desk.folder / "metadata" / "1.policy.json").read_bytes()
    desk.forge(MetaFile.from_data(1, old, ["sha256"]))
    with pytest.raises(RegistryRollbackError, match="policy has version 1, and version 2 was seen here"):
        world.client(desk.folder, pin=desk.pin, marks=marks).refresh(now_s=NOW)


def test_the_list_cannot_be_left_out_again(desk: Desk, world: Any) -> None:
    """Sites under a policy must not be made to believe that there is none."""
    marks = MemoryMarks()
    world.client(desk.folder, pin=desk.pin, marks=marks).refresh(now_s=NOW)
    desk.publish(draft(1))
    world.client(desk.folder, pin=desk.pin, marks=marks).refresh(now_s=NOW)
    desk.forge(None)
    with pytest.raises(RegistryRollbackError, match="policy has version 0, and version 1 was seen here"):
        world.client(desk.folder, pin=desk.pin, marks=marks).refresh(now_s=NOW)
    assert world.client(desk.folder, pin=desk.pin).refresh(now_s=NOW).policies == ()


def test_a_list_that_too_few_signed_is_a_fault_of_its_own(desk: Desk, world: Any) -> None:
    """One policy signer and the online key's thief together: the members stay, the policies are left out."""
    desk.publish(draft(1))
    forged = desk.metadata("1.policy.json")
    forged.version = 2
    forged.targets.clear()
    data = desk.put("2.policy.json", sign(forged, desk.keys[:1], now_s=NOW))
    desk.forge(MetaFile.from_data(2, data, ["sha256"]))
    membership = world.client(desk.folder, pin=desk.pin).refresh(now_s=NOW)
    assert membership.policies == ()
    assert "too few of its signers" in membership.faults["policy/*"]


def test_a_list_that_breaks_a_rule_counts_for_nothing(desk: Desk, world: Any) -> None:
    """Even when enough signers signed it: a path of somebody else's, a version that begins too early."""
    desk.publish(draft(5))
    for at, spoil in enumerate(("path", "order", "custom", "delegates")):
        forged = desk.metadata("1.policy.json")
        forged.version = 2 + at
        (path,) = forged.targets
        target = forged.targets[path]
        if spoil == "path":
            forged.targets["sites/site-a/site.json"] = target
        elif spoil == "order":
            custom = {"custom": {"version": 6, "effective_at": int(NOW) - 1, "notice": 0}}
            later = TargetFile(target.length, target.hashes, policy_path(6), custom)
            forged.targets[policy_path(6)] = later
        elif spoil == "custom":
            target.unrecognized_fields["custom"] = {"version": 5, "effective_at": int(NOW)}
        else:
            forged.delegations = desk.metadata("1.targets.json").delegations
        data = desk.put(f"{2 + at}.policy.json", sign(forged, desk.keys[:2], now_s=NOW))
        desk.forge(MetaFile.from_data(2 + at, data, ["sha256"]))
        membership = world.client(desk.folder, pin=desk.pin).refresh(now_s=NOW)
        assert membership.policies == ()
        assert set(membership.faults) == {"policy/*"}


def test_stolen_policy_keys_are_exchanged_by_the_membership(desk: Desk, world: Any) -> None:
    """The list is signed anew with the new ones; the old ones sign nothing that anybody takes in."""
    desk.publish(draft(1))
    marks = MemoryMarks()
    world.client(desk.folder, pin=desk.pin, marks=marks).refresh(now_s=NOW)
    new = [CryptoSigner.generate_ed25519() for _ in range(2)]
    with pytest.raises(FederationInputError, match="keys for the membership"):
        desk.policies.replace_keys(RoleKeys(tuple(new), 2), (*desk.keys, desk.online), now_s=NOW)
    assert desk.policies.replace_keys(RoleKeys(tuple(new), 2), (desk.member, desk.online), now_s=NOW)
    client = world.client(desk.folder, pin=desk.pin, marks=marks)
    assert client.refresh(now_s=NOW).policies == (text_of(draft(1)),)
    named = set(desk.metadata("2.targets.json").delegations.keys)
    assert named == {one.public_key.keyid for one in new}
    with pytest.raises(FederationInputError, match="and 0 of them are here"):
        desk.publish(draft(2, NOW + 2 * DAY_S))
    desk.policies.publish(draft(2, NOW + 2 * DAY_S), (*new, desk.online), now_s=NOW)
    assert [one.version for one in client.refresh(now_s=NOW).policies] == [1, 2]


def test_an_exchange_of_keys_that_broke_off_is_mended_by_another(desk: Desk, world: Any) -> None:
    """The list was signed by the new keys, and the members that name them were not written."""
    desk.publish(draft(1))
    new = RoleKeys((CryptoSigner.generate_ed25519(),), 1)
    desk.policies.replace_keys(new, (desk.member,), now_s=NOW)
    (desk.folder / "metadata" / "2.targets.json").unlink()
    with pytest.raises(RegistryError, match="not signed by those who may"):
        desk.consortium.publish((desk.online,), now_s=NOW)
    again = RoleKeys((CryptoSigner.generate_ed25519(),), 1)
    desk.policies.replace_keys(again, (desk.member, desk.online), now_s=NOW)
    assert world.client(desk.folder, pin=desk.pin).refresh(now_s=NOW).policies == (text_of(draft(1)),)


def test_the_list_is_signed_again_in_time(desk: Desk, world: Any) -> None:
    """By the publication, in the last third of its year, when its keys are there; else it ends by itself."""
    desk.publish(draft(1))
    everybody = (*desk.keys, desk.member, desk.online)
    desk.consortium.publish(everybody, now_s=NOW + 200 * DAY_S)
    assert not (desk.folder / "metadata" / "2.policy.json").exists()
    desk.consortium.publish(everybody, now_s=NOW + 250 * DAY_S)
    assert desk.metadata("2.policy.json").version == 2
    membership = world.client(desk.folder, pin=desk.pin).refresh(now_s=NOW + 250 * DAY_S)
    assert membership.policies == (text_of(draft(1)),)


def test_a_list_of_policies_is_no_list_of_models(desk: Desk) -> None:
    """A publisher who takes one for the other is told so."""
    desk.publish(draft(1))
    data = (desk.folder / "metadata" / "1.policy.json").read_bytes()
    with pytest.raises(FederationInputError, match="no site of this registry has signed"):
        desk.consortium.publish((desk.online,), now_s=NOW, models=[data])


def pem(signer: CryptoSigner) -> str:
    """Return a public key as PEM."""
    key: Any = signer._private_key
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def test_auditors_are_read_beside_the_policies(desk: Desk, world: Any) -> None:
    """By name and key; the present list takes the place of the one before."""
    first, second = (Auditor(name, pem(CryptoSigner.generate_ed25519())) for name in ("anna", "court"))
    signers = (*desk.keys[:2], desk.online)
    desk.publish(draft(1))
    assert desk.policies.set_auditors((first, second), signers, now_s=NOW)
    client = world.client(desk.folder, pin=desk.pin)
    assert client.refresh(now_s=NOW).auditors == (first, second)
    assert desk.policies.set_auditors((second,), signers, now_s=NOW)
    membership = client.refresh(now_s=NOW)
    assert (membership.auditors, membership.policies) == ((second,), (text_of(draft(1)),))


def test_a_list_of_auditors_is_held_to_its_form() -> None:
    """No name or key twice, no other kind of key, no other schema."""
    good = Auditor("anna", pem(CryptoSigner.generate_ed25519()))
    other = Auditor("otto", pem(CryptoSigner.generate_ecdsa()))
    for wrong in ((good, good), (good, Auditor("b", good.key)), (other,), (Auditor("A!", good.key),)):
        with pytest.raises(FederationInputError):
            encode_auditors(wrong)
    with pytest.raises(FederationInputError, match="at most 16"):
        encode_auditors([good] * 17)
    fields = json.loads(encode_auditors([good]))
    for changes in (
        {"schema": 2},
        {"auditors": {}},
        {"auditors": [7]},
        {"auditors": [{"name": "anna"}]},
        {"auditors": [{"name": "anna", "key": "no key"}]},
    ):
        with pytest.raises(FederationInputError):
            decode_auditors(json.dumps({**fields, **changes}).encode())
    assert decode_auditors(encode_auditors([good])) == (good,)
    assert AUDITORS_PATH not in {policy_path(at) for at in range(99)}


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(-3, 12), st.integers(0, 12)), max_size=12))
def test_whatever_is_published_reads_as_versions_that_rise(tries: list[tuple[int, int, int]]) -> None:
    """Any order of tries: what entered rises, begins in order, and had its notice but for the first."""
    signed, entered, now_s = Targets(), dict[int, float](), NOW
    for version, begins_days, pause_days in tries:
        now_s += pause_days * DAY_S
        with suppress(FederationInputError):
            add_policy(signed, draft(version, now_s + begins_days * DAY_S), now_s=now_s)
            entered[version] = now_s
    entries = read_policies(signed)
    assert [one.version for one in entries] == list(entered)
    assert [one.version for one in entries] == sorted(entered)
    assert [one.effective_at_s for one in entries] == sorted(one.effective_at_s for one in entries)
    assert all(one.effective_at_s >= entered[one.version] + NOTICE_S for one in entries[1:])
