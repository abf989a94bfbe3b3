"""Versions of a policy on their way to sites: by the real commands and agents, and by mirrors that lie."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.local.federation_views import PolicyView
from federation.errors import RegistryError, RegistryRollbackError

Until = Callable[..., Any]
POLICY = """\
version: {version}
name: demo
effective_at: {at}
accounts:
  north: {{weight: {weight}}}
  south: {{weight: 1}}
purposes:
  research: {{claimants: [any]}}
device_classes:
  cpu: 0.5
"""
OVERLAY = """\
kind: overlay
version: {version}
site: north
consortium: demo
lend:
  max_duration: {longest}
"""


def refreshed(node: Any) -> PolicyView:
    """Have a gateway read the registry now; return which policy it goes by."""
    node.call(lambda client: client.refresh())
    return policy_of(node)


def policy_of(node: Any) -> PolicyView:
    """Return which policy a node's site goes by."""
    view: PolicyView = node.federation().policy
    return view


def publish(federation: Any, version: int, *, days: float = 0, weight: int = 1) -> Any:
    """Publish a version that begins in so many days, by the command."""
    at = time.gmtime((time.time() + days * 86400) // 600 * 600)
    file = federation.folder / f"policy-{version}.yaml"
    text = POLICY.format(version=version, at=time.strftime("%Y-%m-%dT%H:%M:%SZ", at), weight=weight)
    file.write_text(text)
    return federation.command(
        *("consortium", "policy", "publish", str(file)),
        *("--registry", str(federation.registry), "--keys", str(federation.keys)),
    )


@pytest.fixture(scope="module")
def sites(shared_federation: Any, until: Until) -> tuple[Any, Any, Any]:
    """Two sites that had no policy and go by version 1 now; north reads a mirror of the registry."""
    made = shared_federation
    mirror = made.folder / "mirror"
    south = made.found(made.node("s1", "south"))
    made.source = str(mirror)
    north = made.found(made.node("n1", "north"))
    made.source = str(made.registry)
    shutil.copytree(made.registry, mirror)
    for node in (north, south):
        assert refreshed(node) == PolicyView()
        assert "policy    none in force" in node.cli("nodes").stdout
    publish(made, 1)
    publish(made, 2, days=2, weight=3)
    mirror_now(made)
    for node in (north, south):
        node.call(lambda client: client.refresh())
        until(lambda node=node: [one for one, _ in policy_of(node).upcoming] == [2], "version 2 is known")
    return made, north, south


def mirror_now(federation: Any) -> Path:
    """Bring the mirror up to date; return it."""
    mirror: Path = federation.folder / "mirror"
    shutil.rmtree(mirror)
    shutil.copytree(federation.registry, mirror)
    return mirror


def test_a_policy_reaches_every_site_and_stays_what_it_is(
    sites: tuple[Any, Any, Any], until: Until, tmp_path: Path
) -> None:
    """Seen with the next reading, the next version with its time; older and altered copies are refused."""
    federation, north, south = sites
    for node in (north, south):
        assert policy_of(node).version == 1
        assert "version 1, version 2 from" in node.cli("nodes").stdout
    assert policy_of(north).digest == policy_of(south).digest

    older = Path(shutil.copytree(federation.registry, tmp_path / "older"))
    publish(federation, 3, days=3)
    mirror = mirror_now(federation)
    north.call(lambda client: client.refresh())
    until(lambda: [one for one, _ in policy_of(north).upcoming] == [2, 3], "version 3 is known")
    shutil.rmtree(mirror)
    shutil.copytree(older, mirror)
    with pytest.raises(RegistryRollbackError, match="older than the one known here"):
        refreshed(north)
    mirror_now(federation)
    publish(federation, 4, days=4)
    mirror_now(federation)
    (file,) = (mirror / "targets" / "policy").glob("*.4.yaml")
    file.write_bytes(file.read_bytes().replace(b"weight: 1", b"weight: 9", 1))
    with pytest.raises(RegistryError, match="not as its signers left it"):
        refreshed(north)
    seen = policy_of(north)
    assert (seen.version, [one for one, _ in seen.upcoming], seen.faults) == (1, [2, 3], ())
    mirror_now(federation)
    north.call(lambda client: client.refresh())
    until(lambda: [one for one, _ in policy_of(north).upcoming] == [2, 3, 4], "version 4 is known")


def test_an_overlay_counts_within_seconds_and_a_bad_one_is_said(
    sites: tuple[Any, Any, Any], until: Until
) -> None:
    """It stays in force while its file is damaged; one that loosens stops the lending of that site alone."""
    _, north, south = sites
    file = north.state / "policy-overlay.yaml"
    file.write_text(OVERLAY.format(version=4, longest="1d"))
    until(lambda: policy_of(north).overlay == 4, "the overlay is in force")
    file.write_text(OVERLAY.format(version=5, longest="for ever"))
    until(lambda: policy_of(north).faults, "the fault is seen")
    seen = policy_of(north)
    assert (seen.overlay, seen.why_not, seen.version) == (4, "", 1)
    shown = north.cli("nodes")
    assert f"policy: the overlay: {file}:6:" in shown.stderr
    file.write_text(OVERLAY.format(version=6, longest="30d"))
    until(lambda: policy_of(north).why_not, "north lends nothing")
    assert "NOT LENDING: its overlay does not fit version 1" in north.cli("nodes").stdout
    assert policy_of(south).why_not == ""
    file.unlink()
    until(lambda: policy_of(north).overlay == 0 and not policy_of(north).why_not, "it lends again")


def test_sighup_reads_the_overlay_at_once_and_keeps_the_one_before_a_bad_one(
    sites: tuple[Any, Any, Any], until: Until
) -> None:
    """The gateway goes on as the same process, and its log says each time what is in force."""
    _, north, _ = sites
    file, pid = north.state / "policy-overlay.yaml", north.process.pid

    def read_again() -> str:
        known = len(north.log.read_text())
        os.kill(pid, signal.SIGHUP)
        until(lambda: "SIGHUP: all has been read" in north.log.read_text()[known:], "the files are read")
        text: str = north.log.read_text()
        return text[known:].partition("SIGHUP: what may change is read again")[2]

    in_force = "the policy in force: version 1 under the overlay's version 7"
    file.write_text(OVERLAY.format(version=7, longest="1d"))
    assert in_force in read_again()
    assert policy_of(north).overlay == 7
    for text, wrong in (
        (OVERLAY.format(version=8, longest="for ever"), f"the policy: the overlay: {file}:6:"),
        ("{" * 1000, f"the policy: the overlay: {file}:1:"),
    ):
        file.write_text(text)
        for _ in range(2):
            said = read_again()
            assert wrong in said
            assert "the one before it stays in force" in said
            assert in_force in said
        assert (policy_of(north).overlay, policy_of(north).why_not) == (7, "")
    file.unlink()
    assert "the policy in force: version 1" in read_again()
    assert policy_of(north).overlay == 0
    assert north.process.poll() is None


def test_a_site_opts_out_by_its_command(sites: tuple[Any, Any, Any]) -> None:
    """Of a version to come, at its gateway; not of the one in force."""
    _, _, south = sites
    done = south.cli("consortium", "policy", "opt-out", "2")
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    refused = south.cli("consortium", "policy", "opt-out", "1")
    assert refused.returncode == 2
    assert "counts since" in refused.stderr
    assert south.cli("consortium", "policy", "opt-out", "2", "--undo").returncode == 0


def test_a_site_of_before_there_were_receipts_is_told_what_to_do(
    sites: tuple[Any, Any, Any], until: Until
) -> None:
    """Its gateway makes the key and says that the registry has another; the new request enters as it is."""
    federation, _, south = sites
    assert south.end() == 0
    (south.state / "site" / "receipts.key").unlink()
    south.launch()
    south.call(lambda client: client.refresh())
    detail = south.federation().registry.detail
    assert "south is admitted with another receipts key" in detail
    request = federation.folder / "again.request.json"
    address = ("--address", f"{south.host}:{south.port}", "--join-address", f"{south.host}:{south.join_port}")
    again = south.cli(
        *("init", "--site", "south", "--trust-domain", "south.pyrdma.example", "--node", "s1", *address),
        *("--registry", str(federation.registry), "--root-pin", federation.pin, "--request", str(request)),
    )
    assert again.returncode == 0, again.stderr
    keys = ("--registry", str(federation.registry), "--keys", str(federation.keys), "--yes")
    federation.command("consortium", "admit", str(request), *keys, "--replace")
    south.call(lambda client: client.refresh())
    assert south.federation().registry.detail == ""
