"""``pyrdma-agent consortium``: from an empty folder to a registry that a site believes."""

from __future__ import annotations

import hashlib
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.cli.main import main
from agent.site.opting_out import read_opted_out
from federation.identity.authority import SiteAuthority
from federation.identity.keys import key_from_pem
from federation.registry.documents import GatewayAddress, SiteDocument
from federation.registry.membership import ModelBinding
from federation.registry.models import sign_models
from federation.registry.request import authority_fingerprint, encode_request, make_request

MODELS_KEY = Ed25519PrivateKey.generate()


def request_of(folder: Path, site: str, *, models_key: Ed25519PrivateKey = MODELS_KEY) -> tuple[Path, str]:
    """Write a site's request; return its file and the fingerprint of its CA."""
    authority = SiteAuthority.create(f"{site}.example", now_s=time.time())
    pem = models_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    certificate = authority.certificate_pem.decode()
    gateways = (GatewayAddress("gpu01", f"gpu01.{site}.example:7443"),)
    document = SiteDocument(site, f"{site}.example", (certificate,), gateways, pem, "eu-north")
    path = folder / f"{site}.request.json"
    path.write_bytes(encode_request(make_request(document, [key_from_pem(authority.key_pem)], models_key)))
    return path, authority_fingerprint(certificate)


class Registry:
    """A registry's folder, its keys and its pin, made by the command."""

    def __init__(self, base: Path, capsys: pytest.CaptureFixture[str], *options: str) -> None:
        self.folder, self.keys, self.capsys = base / "registry", base / "keys", capsys
        code, self.pin, self.talk = self.run(
            "init", str(self.folder), "--name", "lab", "--keys", str(self.keys), *options
        )
        assert code == 0
        self.pin = self.pin.strip()

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = main(["consortium", *arguments])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def sign(self, *arguments: str) -> tuple[int, str, str]:
        return self.run(*arguments, "--registry", str(self.folder), "--keys", str(self.keys))

    def show(self) -> dict[str, object]:
        code, out, _ = self.run("show", str(self.folder), "--root-pin", self.pin, "--json")
        assert code == 0
        document: dict[str, object] = json.loads(out)
        return document


@pytest.fixture
def registry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Registry:
    """A consortium with one key of each kind."""
    return Registry(tmp_path, capsys)


def test_a_registry_is_made_and_its_pin_is_all_of_stdout(registry: Registry) -> None:
    """A script can take the pin as it is; what to do next is said beside it."""
    assert len(bytes.fromhex(registry.pin)) == 32
    assert (registry.keys / "root-pin").read_text().strip() == registry.pin
    assert sorted(path.name for path in registry.keys.iterdir()) == [
        "membership-1.pem",
        "online.pem",
        "root-1.pem",
        "root-pin",
    ]
    assert "consortium admit" in registry.talk
    document = registry.show()
    assert (document["schema"], document["consortium"], document["sites"]) == (1, "lab", [])


def test_a_site_is_admitted_shown_and_removed(registry: Registry, tmp_path: Path) -> None:
    """With its fingerprint on the screen; removed only by its name."""
    request, fingerprint = request_of(tmp_path, "uni-a")
    code, out, talk = registry.sign("admit", str(request), "--yes")
    assert (code, out) == (0, "uni-a\n")
    for part in ("uni-a.example", "eu-north", "gpu01 at gpu01.uni-a.example:7443", fingerprint):
        assert part in talk
    code, out, _ = registry.run("show", str(registry.folder), "--root-pin", registry.pin)
    assert code == 0
    assert "uni-a  uni-a.example  eu-north  gpu01.uni-a.example:7443" in out
    code, out, talk = registry.sign("remove", "uni-a")
    assert code != 0
    assert out == ""
    assert "--confirm uni-a" in talk
    assert registry.sign("remove", "uni-a", "--confirm", "uni-b")[0] != 0
    assert len(registry.show()["sites"]) == 1  # type: ignore[arg-type]
    assert registry.sign("remove", "uni-a", "--confirm", "uni-a")[:2] == (0, "uni-a\n")
    assert registry.show()["sites"] == []


def test_without_anybody_to_compare_the_fingerprint_nothing_happens(
    registry: Registry, tmp_path: Path
) -> None:
    """A script has to say that somebody did."""
    request, _ = request_of(tmp_path, "uni-a")
    code, out, talk = registry.sign("admit", str(request))
    assert (code, out) == (2, "")
    assert "--yes" in talk
    assert registry.show()["sites"] == []


def test_another_ca_needs_replace(registry: Registry, tmp_path: Path) -> None:
    """The site is said to be a member, and its new CA is not said to be as before."""
    request, _ = request_of(tmp_path, "uni-a")
    assert registry.sign("admit", str(request), "--yes")[0] == 0
    again = registry.sign("admit", str(request), "--yes")
    assert again[0] == 0
    assert "(as before)" in again[2]
    request, _ = request_of(tmp_path, "uni-a")
    code, _, talk = registry.sign("admit", str(request), "--yes")
    assert code == 2
    assert "add --replace" in talk
    assert "(is a member)" in talk
    assert "(as before)" not in talk
    assert registry.sign("admit", str(request), "--yes", "--replace")[0] == 0


def test_a_file_that_is_no_request_is_refused(registry: Registry, tmp_path: Path) -> None:
    """Nor one that is not there."""
    (tmp_path / "bad.json").write_text("{}")
    code, out, talk = registry.sign("admit", str(tmp_path / "bad.json"), "--yes")
    assert (code, out) == (2, "")
    assert "schema" in talk
    assert registry.sign("admit", str(tmp_path / "gone.json"), "--yes")[0] == 2


def test_a_sites_models_are_published(registry: Registry, tmp_path: Path) -> None:
    """By the list that the site signed; an older one is refused."""
    request, _ = request_of(tmp_path, "uni-a")
    registry.sign("admit", str(request), "--yes")
    models = tmp_path / "uni-a.models.json"
    bindings = {"m1": ModelBinding("ab" * 32, 3 << 20)}
    models.write_bytes(sign_models(MODELS_KEY, "uni-a", bindings, version=7, now_s=time.time()))
    assert registry.sign("publish", "--models", str(models))[0] == 0
    bound = {"image_id": "ab" * 32, "total_bytes": 3 << 20, "licence": ""}
    assert registry.show()["models"] == {"uni-a/m1": bound}
    _, out, _ = registry.run("show", str(registry.folder), "--root-pin", registry.pin)
    assert "uni-a/m1  abababababab" in out
    code, _, talk = registry.sign("publish", "--models", str(models))
    assert code == 2
    assert "version 7, and 7 is published already" in talk


def test_signers_apart_from_the_publisher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of three admit with the keys that they have; it is seen once the online key publishes."""
    registry = Registry(tmp_path, capsys, "--membership-keys", "3", "--membership-threshold", "2")
    online = registry.keys / "online.pem"
    online.rename(tmp_path / "online.pem")
    (registry.keys / "membership-2.pem").rename(tmp_path / "other.pem")
    request, _ = request_of(tmp_path, "uni-a")
    code, out, talk = registry.sign("admit", str(request), "--yes")
    assert (code, out) == (0, "uni-a\n")
    assert "not published" in talk
    assert registry.show()["sites"] == []
    (tmp_path / "online.pem").rename(online)
    assert registry.sign("publish")[0] == 0
    assert len(registry.show()["sites"]) == 1  # type: ignore[arg-type]
    (registry.keys / "membership-1.pem").unlink()
    other, _ = request_of(tmp_path, "uni-b", models_key=Ed25519PrivateKey.generate())
    code, out, talk = registry.sign("admit", str(other), "--yes")
    assert (code, out) == (2, "")
    assert "this needs 2 of the keys for the membership, and 1 of them are here" in talk


def test_a_stolen_online_key_is_replaced(registry: Registry) -> None:
    """By the root; the old key then signs nothing that anybody believes."""
    stolen = (registry.keys / "online.pem").read_bytes()
    code, _, talk = registry.sign("publish", "--new-online-key")
    assert code == 0
    (new,) = registry.keys.glob("online-*.pem")
    assert new.name in talk
    assert registry.show()["consortium"] == "lab"
    for path in registry.keys.glob("*.pem"):
        path.unlink()
    (registry.keys / "online.pem").write_bytes(stolen)
    (registry.keys / "online.pem").chmod(0o600)
    code, _, talk = registry.sign("publish")
    assert code == 2
    assert "this needs 1 of the keys for the online signature, and 0 of them are here" in talk


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A threshold that nobody reaches, a name that is none, a folder that is taken: no keys are left."""
    (tmp_path / "taken" / "metadata").mkdir(parents=True)
    for folder, *options in (
        ("r", "--name", "lab", "--root-threshold", "2"),
        ("r", "--name", "Lab!"),
        ("taken", "--name", "lab"),
    ):
        assert (
            main(["consortium", "init", str(tmp_path / folder), "--keys", str(tmp_path / "k"), *options]) == 2
        )
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_scripts_read_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object each: the pin, the site, and whether members can see it."""

    def run(*arguments: str) -> dict[str, object]:
        assert main(["consortium", *arguments, "--json"]) == 0
        document: dict[str, object] = json.loads(capsys.readouterr().out)
        return document

    registry, keys = str(tmp_path / "r"), str(tmp_path / "k")
    made = run("init", registry, "--name", "lab", "--keys", keys)
    assert made == {
        "schema": 1,
        "consortium": "lab",
        "root_pin": (tmp_path / "k" / "root-pin").read_text().strip(),
        "registry": registry,
        "keys": keys,
    }
    where = ("--registry", registry, "--keys", keys)
    request, _ = request_of(tmp_path, "uni-a")
    changed = {"schema": 1, "site": "uni-a", "published": True}
    assert run("admit", str(request), "--yes", *where) == changed
    assert run("publish", *where) == {**changed, "site": ""}
    (tmp_path / "k" / "online.pem").unlink()
    assert run("remove", "uni-a", "--confirm", "uni-a", *where) == {**changed, "published": False}


def test_a_wrong_pin_is_said_and_shown_nothing(registry: Registry) -> None:
    """Neither a pin of another consortium, nor a text that is none, nor a place that is empty."""
    code, out, talk = registry.run("show", str(registry.folder), "--root-pin", "ab" * 32)
    assert code != 0
    assert out == ""
    assert "another consortium" in talk
    assert registry.run("show", str(registry.folder), "--root-pin", "x")[:2] == (2, "")
    code, _, talk = registry.run("show", str(registry.folder / "gone"), "--root-pin", registry.pin)
    assert code != 0
    assert "there is no such folder" in talk


POLICY = """\
version: {version}
name: {name}
effective_at: {at}
notice: {notice}
accounts:
  uni-a: {{weight: {weight}}}
purposes:
  research: {{claimants: [any]}}
device_classes:
  cpu: 0.1
"""
EPOCH_S, DAY_S = 600, 86400


def policy_file(
    folder: Path,
    version: int,
    *,
    days: float = 0,
    weight: int = 1,
    name: str = "lab",
    notice: str = "24h",
    more: str = "",
) -> Path:
    """Write a policy that begins in so many days, at the beginning of an epoch."""
    at_s = int((time.time() + days * DAY_S) // EPOCH_S) * EPOCH_S
    at = datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    path = folder / f"policy-{version}.yaml"
    text = POLICY.format(version=version, name=name, at=at, weight=weight, notice=notice)
    path.write_text(text + more)
    return path


def shown_policies(registry: Registry) -> dict[str, object]:
    """Return what ``policy show --json`` prints."""
    code, out, _ = registry.run("policy", "show", str(registry.folder), "--root-pin", registry.pin, "--json")
    assert code == 0
    document: dict[str, object] = json.loads(out)
    return document


def test_policies_have_signers_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of three by default; whoever admits sites cannot publish a policy, nor the other way round."""
    registry = Registry(tmp_path, capsys, "--policy-signers", "3")
    assert {one.name for one in registry.keys.glob("policy-*.pem")} == {
        f"policy-{at}.pem" for at in (1, 2, 3)
    }
    first = policy_file(tmp_path, 1)
    code, out, talk = registry.sign("policy", "publish", str(first))
    assert (code, out) == (0, "1\n")
    assert "version 1 is in force from" in talk
    for at in (1, 2):
        (registry.keys / f"policy-{at}.pem").rename(tmp_path / f"policy-{at}.pem")
    second = policy_file(tmp_path, 2, days=2, weight=3)
    code, out, talk = registry.sign("policy", "publish", str(second))
    assert (code, out) == (2, "")
    assert "this needs 2 of the keys for the policy, and 1 of them are here" in talk
    (tmp_path / "policy-2.pem").rename(registry.keys / "policy-2.pem")
    (registry.keys / "membership-1.pem").rename(tmp_path / "membership-1.pem")
    assert registry.sign("policy", "publish", str(second))[0] == 0
    request, _ = request_of(tmp_path, "uni-a")
    assert "this needs 1 of the keys for the membership" in registry.sign("admit", str(request), "--yes")[2]


def test_a_policy_is_published_shown_and_printed_again(registry: Registry, tmp_path: Path) -> None:
    """Without signers of its own the membership's sign it; sites see the one in force and those to come."""
    assert shown_policies(registry)["policies"] == []
    _, out, talk = registry.run("policy", "show", str(registry.folder), "--root-pin", registry.pin)
    assert "has published no policy" in talk
    first, second = policy_file(tmp_path, 1, days=-1), policy_file(tmp_path, 4, days=2, weight=3)
    assert registry.sign("policy", "publish", str(first))[0] == 0
    code, out, _ = registry.sign("policy", "publish", str(second), "--json")
    assert code == 0
    assert json.loads(out)["version"] == 4
    shown = shown_policies(registry)
    versions: Any = shown["policies"]
    assert (shown["in_force"], [one["version"] for one in versions]) == (1, [1, 4])
    assert versions[1]["digest"] == hashlib.sha256(second.read_bytes()).hexdigest()
    assert [one["version"] for one in registry.show()["policies"]] == [1, 4]  # type: ignore[attr-defined]
    place = (str(registry.folder), "--root-pin", registry.pin)
    _, out, _ = registry.run("policy", "show", *place)
    assert re.search(r"1 +in force .*\n4 +to come", out)
    assert registry.run("policy", "show", *place, "--version", "4")[1] == second.read_text()
    assert registry.run("policy", "show", *place, "--version", "2")[0] == 2


def test_a_bad_policy_is_not_signed(registry: Registry, tmp_path: Path) -> None:
    """What its reader refuses, with the place; a test of its own that fails; a rule of publication."""
    assert registry.sign("policy", "publish", str(policy_file(tmp_path, 2)))[0] == 0
    before = sorted(registry.folder.rglob("*"))
    failing = """\
tests:
  - name: anybody
    request: {account: /uni-a, site: uni-a, purpose: research, device_class: cpu}
    expect: {decision: deny}
"""
    for path, why in (
        (policy_file(tmp_path, 3, days=2, more="surprise: 1\n"), r"policy-3.yaml:\d+:\d+"),
        (policy_file(tmp_path, 4, days=2, weight=0), r"policy-4.yaml:\d+:\d+"),
        (policy_file(tmp_path, 5, days=2, name="elsewhere"), "that of elsewhere"),
        (policy_file(tmp_path, 6, days=0.5), "a notice of 24.0 h"),
        (policy_file(tmp_path, 1, days=2), "version 2 is published already"),
        (policy_file(tmp_path, 7, days=2, more=failing), "'anybody' fails"),
    ):
        code, out, talk = registry.sign("policy", "publish", str(path))
        assert (code, out) == (2, ""), path
        assert re.search(why, talk), talk
    assert sorted(registry.folder.rglob("*")) == before


def test_policy_keys_are_made_and_exchanged(registry: Registry, tmp_path: Path) -> None:
    """By the membership; what is published stays, and the former keys count for nothing."""
    assert registry.sign("policy", "publish", str(policy_file(tmp_path, 1)))[0] == 0
    code, _, talk = registry.sign("policy", "keys", "--signers", "2")
    assert code == 0
    new = sorted(registry.keys.glob("policy-*-*.pem"))
    assert len(new) == 2
    assert "2 of 2" in talk
    assert shown_policies(registry)["in_force"] == 1
    for one in new:
        one.rename(tmp_path / one.name)
    second = policy_file(tmp_path, 2, days=2)
    assert registry.sign("policy", "publish", str(second))[0] == 2
    (registry.keys / "membership-1.pem").unlink()
    code, _, talk = registry.sign("policy", "keys", "--signers", "1")
    assert (code, list(registry.keys.glob("policy-*-*.pem"))) == (2, [])
    assert "keys for the membership" in talk


def test_auditors_are_named(registry: Registry, tmp_path: Path) -> None:
    """With the keys that they gave; a file that is none is refused."""
    key = tmp_path / "anna.pem"
    public = Ed25519PrivateKey.generate().public_key()
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    code, _, talk = registry.sign("policy", "auditors", "--auditor", "anna", str(key))
    assert code == 0
    assert "auditors: anna" in talk
    assert shown_policies(registry)["auditors"] == [{"name": "anna", "key": key.read_text()}]
    key.write_text("no key")
    assert registry.sign("policy", "auditors", "--auditor", "anna", str(key))[0] == 2
    assert registry.sign("policy", "auditors")[0] == 0
    assert shown_policies(registry)["auditors"] == []


def test_a_site_opts_out_of_a_version_to_come(registry: Registry, tmp_path: Path) -> None:
    """At its gateway, until the version counts; it can be taken back."""
    assert registry.sign("policy", "publish", str(policy_file(tmp_path, 1)))[0] == 0
    assert registry.sign("policy", "publish", str(policy_file(tmp_path, 2, days=2)))[0] == 0
    state = ("--state-dir", str(tmp_path / "state"), "--run-dir", str(tmp_path / "run"))
    assert registry.run("policy", "opt-out", "2", *state)[0] != 0
    assert not main(
        [
            *("init", "--site", "uni-a", "--trust-domain", "uni-a.example", "--address", "127.0.0.1:7443"),
            *("--registry", str(registry.folder), "--root-pin", registry.pin, "--node", "gw"),
            *("--request", str(tmp_path / "request.json"), *state),
        ]
    )
    code, out, talk = registry.run("policy", "opt-out", "2", *state)
    assert (code, out) == (0, "2\n")
    assert "lends nothing while version 2 is in force" in talk
    assert read_opted_out(tmp_path / "state") == {2}
    for version, why in (("1", "counts since"), ("7", "no version 7")):
        code, _, talk = registry.run("policy", "opt-out", version, *state)
        assert code == 2
        assert why in talk
    code, out, _ = registry.run("policy", "opt-out", "2", "--undo", "--json", *state)
    assert (code, json.loads(out)["opted_out"]) == (0, [])
    assert read_opted_out(tmp_path / "state") == frozenset()


def test_thresholds_of_policies_are_checked(tmp_path: Path) -> None:
    """A number of signers that is not there, and a threshold above it."""
    base = ("consortium", "init", str(tmp_path / "r"), "--name", "lab", "--keys", str(tmp_path / "k"))
    for options in (("--policy-threshold", "1"), ("--policy-signers", "2", "--policy-threshold", "3")):
        assert main([*base, *options]) == 2
    assert not (tmp_path / "k").exists()


def test_a_folder_that_cannot_be_written_is_said(registry: Registry, tmp_path: Path) -> None:
    """With the file's name, and without a traceback."""
    request, _ = request_of(tmp_path, "uni-a")
    (registry.folder / "targets").write_text("a file where a folder should be")
    code, out, talk = registry.sign("admit", str(request), "--yes")
    assert code != 0
    assert out == ""
    assert "cannot be written" in talk
    assert registry.show()["sites"] == []
