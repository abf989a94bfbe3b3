"""Fair share while its parts fail: a gateway killed under a running lease, books that nobody may write."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from institutions import POLICY, refresh

from agent.local.views import GrantedView

TERMS = """\
lend:
  grace: 1s
  min_runtime: 15min
"""
Sites = tuple[Any, Any, Any]


def receipts(gateway: Any, granted: GrantedView) -> dict[str, Any]:
    """Return a lease as its last receipt says; empty: there is none."""
    words = ("ledger", "show", "--json", "--lease", granted.lease.id)
    return next(iter(json.loads(gateway.cli(*words).stdout)["leases"]), {})


@pytest.fixture(scope="module")
def sites(shared_federation: Any, make_model: Callable[..., Path]) -> Sites:
    """North's gateway lends what its node has; south borrows; a policy is in force."""
    federation = shared_federation
    gateway = federation.found(federation.node("n1", "north"), "--no-donate")
    node = federation.join(gateway, federation.node("n2", "north"), "--devices", "2")
    south = federation.found(federation.node("s1", "south"), "--no-donate")
    federation.acquaint(gateway, south)
    node.publish(make_model("m"), "m")
    federation.policy(POLICY + TERMS, gateway, south)
    return gateway, node, south


def restart(gateway: Any) -> None:
    """Kill a gateway, and start it again."""
    gateway.kill()
    gateway.launch("--no-donate")


def test_a_lease_and_its_receipts_outlive_the_gateway(
    sites: Sites, until: Callable[..., Any], say: Callable[..., bytes]
) -> None:
    """It answers as before, on the terms that were accepted, and is charged once for the time that it ran."""
    gateway, _, south = sites
    granted: GrantedView = south.run("m", site="north")
    begun_s = time.time()
    first = receipts(gateway, granted)
    assert (first["receipts"], first["final"], first["charge_msgs"]) == (1, False, 0)
    restart(gateway)
    until(lambda: say(granted, b"hello") == b"hello|end", "the runner answers through the new gateway")
    assert south.lease(granted.lease.id).state == "active"
    refresh(gateway)
    ran_s = time.time() - begun_s
    south.stop(granted.lease.id)
    until(lambda: receipts(gateway, granted)["final"], "the last receipt is written")
    last = receipts(gateway, granted)
    assert last["receipts"] == 2
    assert last["from_s"] == first["from_s"], "it goes on where the gateway before had begun"
    assert (ran_s - 1) * 1000 <= last["busy_ms"] <= (time.time() - begun_s + 30) * 1000
    assert last["busy_ms"] <= (last["to_s"] - last["from_s"]) * 1000
    assert 0 < last["charge_msgs"] <= last["busy_ms"] // 2
    assert gateway.cli("ledger", "verify").returncode == 0


def test_an_owner_needs_neither_books_nor_borrower(sites: Sites, until: Callable[..., Any]) -> None:
    """Nobody confirms the donor's chain, so that its books are locked: his work runs, the receipt follows."""
    gateway, node, south = sites
    refresh(south, gateway)
    granted: GrantedView = south.run("m", site="north")
    assert south.process is not None
    os.kill(south.process.pid, signal.SIGSTOP)
    try:
        restart(gateway)
        begun = time.monotonic()
        mine = node.cli("mine", "--devices", "2", "--", "printenv", "PYRDMA_DEVICES")
        took_s = time.monotonic() - begun
        assert (mine.returncode, mine.stdout.split()) == (0, ["cpu0,cpu1"]), mine.stderr
        assert took_s < 2 + 1 + 10 + 10
        until(
            lambda: all(one.state != "leased" for each in gateway.federation().nodes for one in each.devices),
            "the gateway has heard of it",
        )
        assert not receipts(gateway, granted)["final"], "its books are locked"
    finally:
        os.kill(south.process.pid, signal.SIGCONT)
    assert "owner" in south.wait_ended(granted.lease.id).reason

    def closed() -> bool:
        refresh(gateway, south)
        last = receipts(gateway, granted)
        return bool(last["final"] and last["countersigned"] == last["receipts"])

    until(closed, "the last receipt is written, and signed by south")
    last = receipts(gateway, granted)
    assert (last["refunded"], last["charge_msgs"]) == (True, 0), "the terms of the lease are known yet"
    assert gateway.cli("ledger", "verify").returncode == 0
