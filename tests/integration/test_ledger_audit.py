"""An export of real books with a real registry, and the verdict on it: by functions and by the commands."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.errors import NotGatewayError
from agent.ledger.books import LedgerBooks, Signing
from agent.ledger.exporting import audit_file, export_to
from agent.ledger.looking import rules_of
from agent.state import RegistryMarks, StateFile
from agent.state.ledger_store import LedgerStore, LogLine
from federation.errors import ExportError
from federation.identity.authority import SiteAuthority
from federation.identity.keys import key_from_pem
from federation.ledger.audit import REQUEST_KIND
from federation.ledger.disputes import Dispute, sign_dispute
from federation.ledger.export import Header
from federation.ledger.form import decode, digest, encode
from federation.ledger.items import Item, contradiction
from federation.ledger.request import RequestBody, sign_request
from federation.ledger.signing import DONOR, sign
from federation.ledger.verdict import Verdict
from federation.ledger.writing import Statement
from federation.policy.file import read_policy
from federation.registry.client import RegistryClient
from federation.registry.documents import GatewayAddress, SiteDocument
from federation.registry.policies import PolicyDraft
from federation.registry.policy_signing import PolicySigning
from federation.registry.repository import Consortium
from federation.registry.request import make_request
from federation.registry.signing import RoleKeys
from federation.registry.tuf_api import CryptoSigner

START_S = 1_800_000_000
NOW_S = START_S + 7200
POLICY = b"""\
version: 1
name: lab
effective_at: 2027-01-15T08:00Z
notice: 1d
accounts:
  south: {weight: 1, open: true}
purposes:
  research: {claimants: [any]}
device_classes:
  h100: 2.5
"""


Edit = Callable[[list[dict[str, Any]]], object]
"""Changes the lines of an export."""


@dataclass
class World:
    """A consortium of two sites with books at south, exported to a file."""

    folder: Path
    pin: bytes
    keys: dict[str, Ed25519PrivateKey]
    export: Path

    def audit(self) -> Verdict:
        return audit_file(self.export, self.pin)

    def change(self, edit: Edit) -> None:
        """Let somebody edit the export's lines, who then makes its last line fit again."""
        lines = [json.loads(line) for line in self.export.read_bytes().splitlines()][:-1]
        edit(lines)
        data = b"".join(_line(one) for one in lines)
        end = {"type": "end", "lines": len(lines), "sha256": hashlib.sha256(data).hexdigest()}
        self.export.write_bytes(data + _line(end))


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _registry(folder: Path, keys: dict[str, Ed25519PrivateKey]) -> bytes:
    signer = CryptoSigner.generate_ed25519()
    roles = RoleKeys((signer,), 1)
    consortium = Consortium.init(
        folder, "lab", root=roles, membership=roles, policy=roles, online=signer, now_s=START_S
    )
    for site, key in keys.items():
        authority = SiteAuthority.create(f"{site}.example", now_s=START_S)
        models = Ed25519PrivateKey.generate()
        document = SiteDocument(
            site, f"{site}.example", (authority.certificate_pem.decode(),),
            (GatewayAddress("gw", f"gw.{site}.example:7443"),), _public(models), "", _public(key),
        )  # fmt: skip
        request = make_request(document, [key_from_pem(authority.key_pem)], models, key)
        assert consortium.admit(request, (signer,), now_s=START_S)
    policy = read_policy(POLICY, "policy").policy
    draft = PolicyDraft(policy.name, policy.version, policy.effective_at_s, 0, POLICY)
    assert PolicySigning(folder, root_pin=consortium.root_pin).publish(draft, (signer,), now_s=START_S)
    return consortium.root_pin


async def _fill(base: Path, state: Path, cache: Path, pin: bytes, keys: dict[str, Ed25519PrivateKey]) -> None:
    file = await StateFile.open(state)
    try:
        client = RegistryClient(
            cache, root_pin=pin, sources=[str(base / "registry")], marks=RegistryMarks(file)
        )
        members = await asyncio.to_thread(client.refresh, now_s=float(START_S))
        sites, policies = rules_of(members)
        store = LedgerStore(file)
        for site, key in keys.items():
            books = await LedgerBooks.of(
                store, Signing(site, key), keys=lambda: sites, policies=lambda: policies,
                clock=lambda: float(NOW_S),
            )  # fmt: skip
            await books.confirm_own(None, None)
            for at in (1, 2, 3):
                statement = Statement(
                    lease_id=f"{site}-lease", borrower="south", account="/south/nlp", purpose="research",
                    device=("gpu01/cuda:0",), device_class="h100", from_s=START_S, to_s=START_S + 600 * at,
                    busy_ms=600_000 * at, final=at == 3,
                )  # fmt: skip
                await books.append(statement, next(iter(policies.values())))
            if site == "south":
                await books.sign_due(lambda receipt: None)
        request = RequestBody(
            id="r-1", borrower="south", account="/south/nlp", purpose="research", model="north/m",
            image_id="cd" * 32, devices=1, duration_s=0, min_runtime_s=None, instant=False,
            asked_at_s=START_S, nonce="0f" * 16,
        )  # fmt: skip
        signed = sign_request(keys["south"], request)
        asked = _line({"body": signed.body.decode(), "signature": signed.signature.hex()}).strip()
        decided = _line({"policy": next(iter(policies)), "reasons": ["waiting-for-capacity"]}).strip()
        await store.log([LogLine(START_S, REQUEST_KIND, asked), LogLine(START_S, "decision", decided)])
    finally:
        await file.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Books of two donors, all countersigned, and their export."""
    base = tmp_path_factory.mktemp("audit")
    keys = {site: Ed25519PrivateKey.generate() for site in ("north", "south")}
    pin = _registry(base / "registry", keys)
    asyncio.run(_fill(base, base / "state", base / "cache", pin, keys))
    return World(base, pin, keys, base / "export.jsonl")


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """The same with an export of its own."""
    asyncio.run(_export(made, tmp_path / "export.jsonl"))
    return replace(made, export=tmp_path / "export.jsonl")


async def _export(made: World, path: Path) -> None:
    file = await StateFile.look(made.folder / "state")
    try:
        with path.open("wb") as out:
            header = Header("south", NOW_S, made.pin.hex())
            await export_to(out, LedgerStore(file), made.folder / "cache", header)
    finally:
        await file.close()


def test_honest_books_are_clean(world: World) -> None:
    """Every count as it is, every charge by its account, the ledger's digest with them."""
    verdict = world.audit()
    assert verdict.problems == []
    assert verdict.clean
    assert verdict.consortium == "lab"
    assert verdict.counts["receipts"] == verdict.counts["receipts that hold"] == 6
    assert (verdict.counts["leases"], verdict.counts["devices"], verdict.counts["sites"]) == (2, 2, 2)
    assert (verdict.counts["log: request"], verdict.counts["log: decision"]) == (1, 1)
    assert verdict.charged == {"/south/nlp": 2 * 1_800_000 * 5 // 2}
    assert {donor: head.position for donor, head in verdict.heads.items()} == {"north": 3, "south": 3}


def _receipts(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in lines if one["type"] == "receipt"]


@pytest.mark.parametrize(
    ("code", "edit"),
    [
        ("signature", lambda lines: _edit(_receipts(lines)[1], '"busy_ms":1200000', '"busy_ms":1199999')),
        ("form", lambda lines: _edit(_receipts(lines)[1], '"busy_ms":1200000', '"busy_ms": 1200000')),
        ("position", lambda lines: lines.remove(_receipts(lines)[1])),
        ("signature", lambda lines: _receipts(lines)[0].update(donor_signature="00" * 64)),
        ("countersignature", lambda lines: _receipts(lines)[2].update(borrower_signature="00" * 64)),
        ("log", lambda lines: _edit(lines[-1], '"policy":"', '"policy":"00')),
        ("request", lambda lines: _edit(lines[-2], "/south/nlp", "/south/xyz")),
        ("evidence", lambda lines: lines.append({
            "type": "evidence",
            "first": {key: _receipts(lines)[0][key] for key in ("body", "donor_signature")},
            "second": {key: _receipts(lines)[1][key] for key in ("body", "donor_signature")},
        })),
    ],
)  # fmt: skip
def test_whatever_is_changed_is_found(
    world: World, code: str, edit: Callable[[list[dict[str, Any]]], object]
) -> None:
    """Also by one who makes the file's own digest fit again."""
    world.change(edit)
    assert code in {one.code for one in world.audit().problems}


def _edit(line: dict[str, Any], old: str, new: str) -> None:
    assert old in line["body"]
    line["body"] = line["body"].replace(old, new)


def test_a_charge_that_the_policy_does_not_say_is_found(world: World) -> None:
    """The donor itself signed it, its books are consistent: recomputing shows it all the same."""

    def overcharge(lines: list[dict[str, Any]]) -> None:
        receipts = [one for one in _receipts(lines) if '"donor":"north"' in one["body"]]
        previous = bytes(32)
        for line in receipts:
            receipt = decode(line["body"].encode())
            body = encode(replace(receipt, previous=previous, charge_msgs=receipt.charge_msgs * 2))
            previous = digest(body)
            line["body"] = body.decode()
            line["donor_signature"] = sign(world.keys["north"], DONOR, body).hex()
            line["borrower_signature"] = ""

    world.change(overcharge)
    assert [one.code for one in world.audit().problems] == ["charge"]


def test_two_histories_are_reported_with_both_items(world: World) -> None:
    """Evidence in the export is checked and named."""

    def contradict(lines: list[dict[str, Any]]) -> None:
        line = _receipts(lines)[1]
        ours = Item(line["body"].encode(), bytes.fromhex(line["donor_signature"]))
        body = encode(replace(decode(ours.body), egress_bytes=5))
        other = Item(body, sign(world.keys["north"], DONOR, body))
        proof = contradiction(ours, other)
        assert proof is not None
        halves = {
            name: {"body": half.body.decode(), "donor_signature": half.donor_signature.hex()}
            for name, half in (("first", proof.first), ("second", proof.second))
        }
        lines.append({"type": "evidence", **halves})

    world.change(contradict)
    (problem,) = world.audit().problems
    assert (problem.code, problem.about) == ("contradiction", "north 2")


def test_what_an_honest_ledger_may_have_is_noted(world: World) -> None:
    """Unsigned receipts and open disputes are notes, not problems."""

    def unsign(lines: list[dict[str, Any]]) -> None:
        for line in _receipts(lines):
            line["borrower_signature"] = ""
        dispute = Dispute(
            donor="north", borrower="south", lease_id="north-lease", seq=3, charge_msgs=5, reason="",
            at_s=START_S + 3600,
        )  # fmt: skip
        signed = sign_dispute(world.keys["south"], dispute)
        lines.append({"type": "dispute", "body": signed.body.decode(), "signature": signed.signature.hex()})

    world.change(unsign)
    verdict = world.audit()
    assert verdict.clean
    assert sorted(one.code for one in verdict.notes) == ["open-dispute", "unilateral", "unilateral"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"no export\n",
        lambda data: data[:-10],
        lambda data: data[: len(data) // 2],
        lambda data: data.rsplit(b"\n", 2)[0] + b"\n",
        lambda data: data.replace(b"/south/nlp", b"/south/xyz"),
        lambda data: data + b"{}\n",
        lambda data: data.replace(b'"schema":1', b'"schema":2', 1),
        lambda data: b'{"type":"end","lines":0,"sha256":"x"}\n',
    ],
    ids=str,
)
def test_what_is_no_whole_export_is_unreadable(world: World, damage: Callable[[bytes], bytes]) -> None:
    """Cut off, extended, changed, newer, or something else: no verdict on it."""
    world.export.write_bytes(damage(world.export.read_bytes()))
    with pytest.raises(ExportError):
        world.audit()


def test_another_consortiums_pin_gives_no_verdict(world: World) -> None:
    """Nor a registry of which a part is missing or forged."""
    with pytest.raises(ExportError, match="another pin"):
        audit_file(world.export, bytes(32))
    world.change(lambda lines: lines.remove(next(one for one in lines if one["type"] == "document")))
    with pytest.raises(ExportError):
        world.audit()


def test_an_export_needs_a_registry(made: World, tmp_path: Path) -> None:
    """Without the keys nobody could check it."""

    async def export() -> None:
        file = await StateFile.look(made.folder / "state")
        try:
            await export_to(io.BytesIO(), LedgerStore(file), tmp_path, Header("south", NOW_S, ""))
        finally:
            await file.close()

    with pytest.raises(ExportError):
        asyncio.run(export())


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_audit_command_says_its_verdict(world: World) -> None:
    """0 clean, 1 problems, 2 unreadable; data on stdout, the JSON form with every finding."""
    done = _command("audit", str(world.export), "--root", world.pin.hex())
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("verdict: clean\n")
    world.change(lambda lines: _edit(_receipts(lines)[1], '"seq":2', '"seq":3'))
    done = _command("audit", str(world.export), "--root", world.pin.hex(), "--json")
    assert done.returncode == 1
    verdict = json.loads(done.stdout)
    assert (verdict["verdict"], verdict["problems"][0]["code"]) == ("problems", "signature")
    for arguments in (
        (str(world.export), "--root", "00" * 32),
        (str(world.folder / "none"), "--root", "00" * 32),
    ):
        assert _command("audit", *arguments).returncode == 2


def test_the_ledger_commands_work_on_a_gateways_files(tmp_path: Path) -> None:
    """Without an agent; a gateway without receipts says so, a node without books is refused."""
    state = tmp_path / "gw"
    made = _command(
        "init", "--site", "uni-a", "--trust-domain", "uni-a.example", "--node", "gw",
        "--address", "127.0.0.1:7443", "--join-address", "127.0.0.1:7444",
        "--request", str(tmp_path / "r.json"), "--state-dir", str(state),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr

    async def begin() -> None:
        await (await StateFile.open(state / "agent.sqlite3")).close()

    asyncio.run(begin())
    before = (state / "agent.sqlite3").read_bytes()
    shown = _command("ledger", "show", "--json", "--state-dir", str(state))
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout) == {"schema": 1, "leases": [], "donors": [], "contradictions": []}
    assert _command("ledger", "verify", "--state-dir", str(state)).returncode == 1
    refused = _command("ledger", "export", str(tmp_path / "out"), "--state-dir", str(state))
    assert refused.returncode == 2
    assert sorted(one.name for one in tmp_path.iterdir()) == ["gw", "r.json"]
    assert (state / "agent.sqlite3").read_bytes() == before
    other = _command("ledger", "show", "--state-dir", str(tmp_path / "none"))
    assert other.returncode != 0
    assert "gateway" in other.stderr
    assert NotGatewayError.code == "not-gateway"
