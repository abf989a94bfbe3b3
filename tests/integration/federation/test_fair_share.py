"""Three institutions share by a policy that all signed: places, grants, reclaims, receipts, and a verdict."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from institutions import refresh

from agent.local.queue_views import QueueView
from agent.local.views import GrantedView

POLICY = """\
kind: consortium
version: 1
name: demo
effective_at: {effective_at}
accounts:
  north: {{weight: 1, open: true}}
  south: {{weight: 3, open: true}}
  west: {{weight: 1, open: true}}
purposes:
  research: {{factor: 1, claimants: [any]}}
  safety: {{factor: 0.5, claimants: [/west]}}
device_classes:
  cpu: 0.5
lend:
  grace: 1s
  instant_grace: 1s
  min_runtime: 15min
deny:
  - id: no-safety-from-south
    match: {{accounts: [/south/secret]}}
    reason: the group has not said what it does
"""


def queue_of(node: Any) -> QueueView:
    view: QueueView = node.call(lambda client: client.queue())
    return view


class Asking(threading.Thread):
    """A person who runs a model and waits in line."""

    def __init__(self, node: Any, *, account: str = "", purpose: str = "") -> None:
        super().__init__(daemon=True)
        words = ["--account", account] if account else []
        words += ["--purpose", purpose] if purpose else []
        self._run = lambda: node.cli("run", "north/m", "--site", "north", "--json", *words)
        self.done: Any = None

    def run(self) -> None:
        self.done = self._run()

    def lease(self) -> str:
        self.join(60)
        assert self.done is not None, "it still waits"
        assert self.done.returncode == 0, self.done.stderr
        return str(json.loads(self.done.stdout)["lease"]["id"])


@pytest.fixture(scope="module")
def sites(
    shared_federation: Any, make_model: Callable[..., Path], until: Callable[..., Any]
) -> tuple[Any, Any, Any, Any]:
    """North lends two devices; south and west borrow; a policy is in force."""
    federation = shared_federation
    north = federation.found(federation.node("n1", "north"), "--devices", "2")
    south = federation.found(federation.node("s1", "south"), "--no-donate")
    west = federation.found(federation.node("w1", "west"), "--no-donate")
    federation.acquaint(north, south, west)
    north.publish(make_model("m"), "m")
    federation.policy(POLICY, north, south, west)
    return federation, north, south, west


def test_full_now_is_a_place_and_the_next_device_is_the_one_who_used_less(
    sites: tuple[Any, Any, Any, Any], until: Callable[..., Any]
) -> None:
    """Both devices are south's; west waits, is told why, and has the first that comes free."""
    _, north, south, west = sites
    first: GrantedView = south.run("north/m", site="north")
    second: GrantedView = south.run("north/m", site="north")
    waiting = Asking(west, purpose="safety")
    waiting.start()
    (request,) = until(lambda: queue_of(north).requests, "west's request waits")
    assert (request.borrower, request.account, request.purpose) == ("west/w1", "/west", "safety")
    assert request.place.position == 1
    assert request.place.reasons[0].sentence
    assert request.place.reasons[0].change
    south.stop(first.lease.id)
    lease = waiting.lease()
    assert queue_of(north).requests == ()
    assert "waiting at north" in waiting.done.stderr
    west.stop(lease)
    south.stop(second.lease.id)


def test_what_the_policy_forbids_is_refused_by_its_rule(sites: tuple[Any, Any, Any, Any]) -> None:
    """A purpose that is not theirs, another's account, a group that is denied: each in one sentence."""
    _, _, south, _ = sites
    for words, said in (
        (("--purpose", "safety"), "may not claim the purpose safety"),
        (("--purpose", "nonsense"), "no purpose 'nonsense'"),
        (("--account", "/south/secret"), "no-safety-from-south"),
    ):
        refused = south.cli("run", "north/m", "--site", "north", *words)
        assert refused.returncode != 0
        assert said in refused.stderr, refused.stderr
    refused = south.cli("run", "north/m", "--site", "north", "--account", "/west")
    assert refused.returncode != 0
    assert "/west" in refused.stderr


def test_local_work_wins_and_the_guest_is_not_charged(
    sites: tuple[Any, Any, Any, Any], until: Callable[..., Any]
) -> None:
    """The owner's command runs within its grace; the guest hears why, and its early end is refunded."""
    _, north, south, west = sites
    refresh(north)
    granted: GrantedView = south.run("north/m", site="north")
    before = time.monotonic()
    mine = north.cli("mine", "--devices", "2", "--", "printenv", "PYRDMA_DEVICES")
    took_s = time.monotonic() - before
    assert mine.returncode == 0, mine.stderr
    assert mine.stdout.split() == ["cpu0,cpu1"]
    assert took_s < 15.0
    ended = south.wait_ended(granted.lease.id)
    assert "owner" in ended.reason
    shown = json.loads(north.cli("ledger", "show", "--json", "--lease", granted.lease.id).stdout)
    (line,) = shown["leases"]
    assert (line["final"], line["refunded"], line["charge_msgs"]) == (True, True, 0)
    until(lambda: queue_of(north).reclaims.reclaims == 2, "the reclaims are counted")
    del west


def test_both_sides_sign_and_anyone_can_check(
    sites: tuple[Any, Any, Any, Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    """Receipts are countersigned, known to a third site, and pass the audit from the pin alone."""
    federation, north, south, west = sites
    granted: GrantedView = south.run("north/m", site="north")
    south.stop(granted.lease.id)

    def signed_by_both() -> bool:
        refresh(south, north, west)
        shown = json.loads(west.cli("ledger", "show", "--json", "--lease", granted.lease.id).stdout)
        return any(one["final"] and one["countersigned"] == one["receipts"] for one in shown["leases"])

    until(signed_by_both, "west, a third site, has the receipt with both signatures")
    export = tmp_path / "north.export"
    assert north.cli("ledger", "export", str(export)).returncode == 0
    verdict = federation.command("audit", str(export), "--root", federation.pin, "--json")
    said = json.loads(verdict.stdout)
    assert said["problems"] == []
    assert said["counts"]["receipts"] >= 2
    assert any(key.startswith("log: request") for key in said["counts"])
    verified = north.cli("ledger", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_an_export_that_was_touched_is_found_out(sites: tuple[Any, Any, Any, Any], tmp_path: Path) -> None:
    """One figure more on one receipt, and the file is not believed."""
    federation, north, south, _ = sites
    granted: GrantedView = south.run("north/m", site="north")
    south.stop(granted.lease.id)
    export = tmp_path / "north.export"
    assert north.cli("ledger", "export", str(export)).returncode == 0
    data = export.read_bytes()
    at = data.index(b"busy_ms")
    digit = next(place for place in range(at, len(data)) if data[place : place + 1].isdigit())
    other = b"7" if data[digit : digit + 1] != b"7" else b"8"
    export.write_bytes(data[:digit] + other + data[digit + 1 :])
    verdict = federation.try_command("audit", str(export), "--root", federation.pin)
    assert verdict.returncode == 2
    assert "changed after it was made" in verdict.stderr
