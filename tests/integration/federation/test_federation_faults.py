"""What is left of a lease when a runner, a node, a gateway, a borrower or a start fails.

North borrows what south donates: its gateway's device on s1, and its node's on s2.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.errors import RefusedError
from agent.local.views import GrantedView

TTL_S = 12.0
Say = Callable[[GrantedView, bytes], bytes]
Until = Callable[..., Any]


@dataclass(frozen=True)
class Sites:
    """A borrower, and a site that donates two devices."""

    n1: Any
    s1: Any
    s2: Any

    def start(self) -> None:
        """Start whoever does not run."""
        options = {self.n1: (), self.s1: ("--lease-ttl", str(TTL_S)), self.s2: ("--spares", "0")}
        for node, more in options.items():
            if node.process is None or node.process.poll() is not None:
                node.launch(*more)

    def state(self, node: str) -> str:
        """Return how south's device on a node is."""
        return str(self.s1.device_states()[node])


@pytest.fixture(scope="module")
def sites(shared_federation: Any, make_model: Callable[..., Path]) -> Sites:
    """Start both institutions, for all tests of this module."""
    made = shared_federation
    n1 = made.found(made.node("n1", "north"))
    s1 = made.found(made.node("s1", "south"), "--lease-ttl", str(TTL_S))
    s2 = made.join(s1, made.node("s2", "south"), "--spares", "0")
    made.acquaint(n1, s1)
    for seed, name in enumerate(("m", "slow", "refuses")):
        n1.publish(make_model(name, seed=seed), name)
    return Sites(n1, s1, s2)


@pytest.fixture(autouse=True)
def _as_before(sites: Sites, until: Until) -> Any:
    """After each test all three agents run, nothing is lent, and every device can be had."""
    yield
    sites.start()
    for lease in sites.n1.leases():
        sites.n1.stop(lease.id)
    until(lambda: sites.s1.device_states() == {"s1": "idle", "s2": "idle"}, "every device is idle again")
    for gateway in (sites.n1, sites.s1):
        until(lambda gateway=gateway: hears_everybody(gateway), "each gateway hears the other one")


def hears_everybody(gateway: Any) -> bool:
    """Ask every site now; what was heard before an agent was killed says nothing about the one after it."""
    view = gateway.call(lambda client: client.refresh())
    return all(one.state == "ready" and not one.fault for one in view.sites)


def refuses(granted: GrantedView, say: Say) -> bool:
    """Return whether nobody listens on a lease's port any more."""
    try:
        say(granted, b"hello")
    except ConnectionError:
        return True
    return False


# --- what fails at the donor ------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["s1", "s2"])
def test_a_runner_that_dies_ends_its_lease(sites: Sites, say: Say, until: Until, node: str) -> None:
    """Its borrower hears the reason at once, its port closes, its device is free."""
    granted = sites.n1.run("m", site="south", node=node)
    assert say(granted, b"die") == b""
    ended = sites.n1.wait_ended(granted.lease.id, TTL_S)
    assert ended.reason == "its runner was ended by SIGKILL"
    assert refuses(granted, say)
    until(lambda: sites.state(node) == "idle", "the device is free")
    assert getattr(sites, node).lease(granted.lease.id).reason == ended.reason


def test_a_node_that_is_lost_ends_its_lease(sites: Sites, say: Say, until: Until) -> None:
    """Within the lease's time the borrower hears which node it was; the device is not given to another."""
    granted = sites.n1.run("m", site="south", node="s2")
    sites.s2.kill()
    ended = sites.n1.wait_ended(granted.lease.id, TTL_S + 10)
    assert ended.reason == "its node s2 has not been heard of for 12 s"
    assert refuses(granted, say)
    with pytest.raises(RefusedError) as refused:
        sites.n1.run("m", site="south", node="s2")
    assert "the node s2 has not been heard of for a while" in refused.value.message
    sites.start()
    until(lambda: sites.state("s2") == "idle", "the node has said that nothing is left")
    assert sites.s2.lease(granted.lease.id).reason == "the agent ended without stopping it"
    again = sites.n1.run("m", site="south", node="s2")
    assert say(again, b"hello") == b"hello|end"


def test_a_gateway_that_is_killed_takes_its_own_lease_along(sites: Sites, say: Say, until: Until) -> None:
    """When it runs again, the lease on its own device ends with a reason; the one on its node goes on."""
    own = sites.n1.run("m", site="south", node="s1")
    other = sites.n1.run("m", site="south", node="s2")
    sites.s1.kill()
    sites.start()
    until(lambda: sites.n1.lease(own.lease.id).state == "ended", "the own lease ends")
    assert sites.n1.lease(own.lease.id).reason == "its node no longer runs it"
    assert refuses(own, say)
    assert say(other, b"hello") == b"hello|end"
    assert say(other, b"key") == other.api_key.encode() + b"|end"
    assert sites.n1.lease(other.lease.id).state == "active"
    assert sites.state("s2") == "leased"
    assert sites.n1.stop(other.lease.id).reason == "stopped by request"
    until(lambda: sites.state("s2") == "idle", "and it can be given back as ever")


def test_a_gateway_that_stops_gives_its_word_first(sites: Sites, say: Say, until: Until) -> None:
    """The borrower of its own device hears of the end at once; the lease on its node goes on."""
    own = sites.n1.run("m", site="south", node="s1")
    other = sites.n1.run("m", site="south", node="s2")
    assert sites.s1.end() == 0
    assert sites.n1.wait_ended(own.lease.id, TTL_S / 2).reason == "the agent stopped"
    sites.start()
    until(lambda: sites.s1.device_states() == {"s1": "idle", "s2": "leased"}, "the gateway is back")
    assert say(other, b"hello") == b"hello|end"


def test_a_node_that_stops_gives_its_word_first(sites: Sites) -> None:
    """The borrower hears of the end at once, not after the silence."""
    granted = sites.n1.run("m", site="south", node="s2")
    assert sites.s2.end() == 0
    assert sites.n1.wait_ended(granted.lease.id, TTL_S / 2).reason == "the agent stopped"


# --- what fails at the borrower ---------------------------------------------------------------------------


def test_a_borrower_that_is_gone_loses_its_leases_with_their_time(sites: Sites, until: Until) -> None:
    """Nobody says a word; the donor's devices are free when the leases' time is over, not before."""
    leases = {node: sites.n1.run("m", site="south", node=node).lease.id for node in ("s1", "s2")}
    sites.n1.kill()
    assert sites.s1.device_states() == {"s1": "leased", "s2": "leased"}
    until(lambda: sites.s1.device_states() == {"s1": "idle", "s2": "idle"}, "both are free", TTL_S + 10)
    for node, lease in leases.items():
        assert getattr(sites, node).lease(lease).reason in (
            "its borrower did not renew it in time",
            "its time was over and nobody renewed it",  # by the node's own clock
        )


def test_a_borrower_that_starts_again_gives_its_leases_back(sites: Sites, say: Say, until: Until) -> None:
    """It cannot use them any more: its ports and keys are gone. The devices are free at once."""
    granted = sites.n1.run("m", site="south", node="s1")
    sites.n1.kill()
    sites.start()
    until(lambda: sites.state("s1") == "idle", "it is given back", TTL_S / 2)
    assert sites.s1.lease(granted.lease.id).reason == "the borrower's agent was started again"
    assert sites.n1.lease(granted.lease.id).state == "ended"
    assert refuses(granted, say)


def test_a_borrower_that_stops_gives_its_leases_back(sites: Sites) -> None:
    """Before its agent has ended, the donors have their devices back."""
    leases = {node: sites.n1.run("m", site="south", node=node).lease.id for node in ("s1", "s2")}
    assert sites.n1.end() == 0
    assert sites.s1.device_states() == {"s1": "idle", "s2": "idle"}
    for node, lease in leases.items():
        assert getattr(sites, node).lease(lease).reason == "the borrower's agent stopped"


@pytest.mark.parametrize(("node", "number"), [("s1", signal.SIGINT), ("s2", signal.SIGKILL)])
def test_a_start_that_is_called_off_leaves_nothing(
    sites: Sites, until: Until, node: str, number: signal.Signals
) -> None:
    """The command ends before its model answers; runner, lease and device are as if it had never been."""
    donor = getattr(sites, node)

    def runner() -> psutil.Process | None:
        pids = [one.pid for one in donor.leases() if one.state == "starting" and one.pid]
        return psutil.Process(pids[0]) if pids else None

    with sites.n1.cli_started("run", "slow", "--site", "south", "--node", node) as start:
        running = until(runner, "a runner is about to serve")
        start.send_signal(number)
        said = start.communicate()[0]
    if number == signal.SIGINT:
        assert (start.returncode, said.splitlines()[-1]) == (130, "interrupted")
    until(lambda: sites.state(node) == "idle", "the device is free", TTL_S / 2)
    until(lambda: not donor.leases() and not sites.n1.leases(), "no lease is left")
    assert not running.is_running()
    assert donor.leases(ended=True)[0].reason == "the request was called off"


# --- what is refused --------------------------------------------------------------------------------------


def test_a_device_that_is_leased_is_not_had_twice(sites: Sites, say: Say) -> None:
    """The second start waits and says why; it gives its place up when its time is over, with exit code 5."""
    granted = sites.n1.run("m", site="south", node="s1")
    late = sites.n1.cli("run", "m", "--site", "south", "--node", "s1", "--timeout", "3")
    assert late.returncode == 5, late.stderr
    assert re.search(r"^waiting at south, place 1 of 1.*every device that would do is in use", late.stderr)
    assert late.stdout == ""
    assert sites.s1.call(lambda client: client.queue()).requests == ()
    assert say(granted, b"hello") == b"hello|end"


@pytest.mark.parametrize("node", ["s1", "s2"])
def test_a_runner_that_does_not_take_the_model_says_why(sites: Sites, until: Until, node: str) -> None:
    """The runner's own sentence comes to whoever asked, and the device is free."""
    with pytest.raises(RefusedError) as refused:
        sites.n1.run("refuses", site="south", node=node)
    assert "It does not fit." in refused.value.message
    until(lambda: sites.state(node) == "idle", "the device is free", TTL_S / 2)
    assert sites.n1.leases() == ()


def test_a_node_that_cannot_start_runners_says_why(sites: Sites, until: Until) -> None:
    """The reason comes to the borrower; when the node is mended, its device works again."""
    broken = sites.s2.state / "broken"
    broken.touch()
    try:
        with pytest.raises(RefusedError) as refused:
            sites.n1.run("m", site="south", node="s2")
        assert "no engine here." in refused.value.message
        until(lambda: sites.state("s2") == "idle", "the device is free", TTL_S / 2)
    finally:
        broken.unlink()
    assert sites.n1.run("m", site="south", node="s2").lease.donor == "south/s2"
