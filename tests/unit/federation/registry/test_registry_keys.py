"""What each key of a registry may sign, and how a root takes other signers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from registry_attacks import NOW, forge, put, refused, signed

from federation.errors import FederationInputError, RegistryError, RegistryRollbackError
from federation.registry.signing import sign
from federation.registry.tuf_api import CryptoSigner, MetaFile, Root


def test_the_online_key_admits_nobody(world: Any, make_site: Callable[..., Any]) -> None:
    """Members that are signed by it alone are not members."""
    world.admit("site-a")
    members = signed(world, "2.targets.json")
    members.version = 3
    data = put(world, "3.targets.json", sign(members, [world.online, world.members[0]], now_s=NOW))
    forge(world, targets=MetaFile.from_data(3, data, ["sha256"]))
    refused(world.client(), RegistryError, "signed by 1/2 keys")


def test_one_signature_twice_is_one(world: Any) -> None:
    """The same key, listed twice in the file, does not make two signers."""
    world.admit("site-a")
    members = signed(world, "2.targets.json")
    members.version = 3
    fields = json.loads(sign(members, [world.members[0]], now_s=NOW))
    fields["signatures"] *= 2
    data = put(world, "3.targets.json", json.dumps(fields).encode())
    forge(world, targets=MetaFile.from_data(3, data, ["sha256"]))
    refused(world.client(), RegistryError, "not as its signers left it")


def test_a_stolen_online_key_is_replaced_by_the_root(world: Any) -> None:
    """Its thief has counted to the end; the new key counts from where the consortium is, the old is dead."""
    world.admit("site-a")
    client = world.client()
    stamp = signed(world, "timestamp.json")
    honest = (world.folder / "metadata" / "timestamp.json").read_bytes()
    stamp.version = 1 << 53
    put(world, "timestamp.json", sign(stamp, [world.online], now_s=NOW))
    client.refresh(now_s=NOW)
    stolen = (world.folder / "metadata" / "timestamp.json").read_bytes()
    put(world, "timestamp.json", honest)
    refused(client, RegistryRollbackError, "older")
    new = CryptoSigner.generate_ed25519()
    with pytest.raises(FederationInputError, match="this needs 2 of the keys for the root"):
        world.consortium.replace_online([world.root[0]], new, now_s=NOW)
    world.consortium.replace_online(world.root[1:], new, now_s=NOW)
    assert client.refresh(now_s=NOW).version == 3
    assert client.load(now_s=NOW) is not None
    put(world, "timestamp.json", stolen)
    refused(client, RegistryError, "signed by 0/1 keys")


def test_a_root_takes_signers_of_the_root_before_it(world: Any) -> None:
    """One old and one new key do not make a root; two old ones do."""
    root = signed(world, "1.root.json")
    thief = [CryptoSigner.generate_ed25519() for _ in range(2)]
    root.version = 2
    for key in thief:
        root.add_key(key.public_key, Root.type)
    put(world, "2.root.json", sign(root, [world.root[0], thief[0]], now_s=NOW))
    refused(world.client(), RegistryError, "root was signed by 1/2 keys")
    put(world, "2.root.json", sign(root, world.root[:2], now_s=NOW))
    assert world.client().refresh(now_s=NOW).consortium == "lab"
