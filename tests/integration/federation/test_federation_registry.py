"""A registry that comes late, goes back in time, or no longer names a site; and sites that are silent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.errors import PeerNodeError, RefusedError, UnknownModelError
from agent.local.views import GrantedView
from federation.errors import NotAdmittedError, RegistryRollbackError, RegistryUnreachableError

Say = Callable[[GrantedView, bytes], bytes]
Until = Callable[..., Any]


@dataclass(frozen=True)
class Sites:
    """Two sites that donate, and their consortium."""

    together: Any
    n1: Any
    s1: Any


@pytest.fixture(scope="module")
def sites(shared_federation: Any, make_model: Callable[..., Path]) -> Sites:
    """Start both, for all tests of this module."""
    made = shared_federation
    n1 = made.found(made.node("n1", "north"))
    s1 = made.found(made.node("s1", "south"))
    made.acquaint(n1, s1)
    n1.publish(make_model("m"), "m")
    return Sites(made, n1, s1)


def refreshed(node: Any) -> Any:
    """Have a gateway read the registry and ask the sites now."""
    return node.call(lambda client: client.refresh())


def states(node: Any) -> dict[str, str]:
    """Return how a node sees the sites."""
    return {one.name: one.state for one in node.federation().sites}


def test_a_registry_that_comes_late_is_found(
    sites: Sites, make_model: Callable[..., Path], say: Say, until: Until
) -> None:
    """Until then the site works by itself and says why it knows no other; nobody has to do anything."""
    mirror = sites.together.folder / "late"
    sites.together.source = str(mirror)
    try:
        late = sites.together.found(sites.together.node("e1", "east"))
    finally:
        sites.together.source = str(sites.together.registry)
    shown = late.cli("nodes")
    assert shown.returncode == 0
    assert f"registry  -: none (the registry at {mirror} cannot be read: " in shown.stdout
    assert states(late) == {"east": "ready"}
    with pytest.raises(RegistryUnreachableError):
        refreshed(late)
    late.publish(make_model("own"), "own")
    own = late.run("own")
    assert say(own, b"hello") == b"hello|end"
    with pytest.raises(NotAdmittedError) as unknown:
        late.run("own", site="north")
    assert unknown.value.message == "the registry known here has no site north."
    late.stop(own.lease.id)

    for gateway in (sites.n1, sites.s1):
        refreshed(gateway)
    shutil.copytree(sites.together.registry, mirror)
    until(lambda: states(late).get("north") == states(late).get("south") == "ready", "others are found")
    assert say(late.run("north/m", site="north"), b"hello") == b"hello|end"


def test_an_older_copy_of_the_registry_is_refused(sites: Sites, say: Say, until: Until) -> None:
    """It is said, and nothing else changes: what is known stays, and leases go on and are granted."""
    mirror, older = sites.together.folder / "mirror", sites.together.folder / "older"
    sites.together.source = str(mirror)
    try:
        node = sites.together.found(sites.together.node("o1", "old"))
    finally:
        sites.together.source = str(sites.together.registry)
    shutil.copytree(sites.together.registry, older)
    sites.together.sign()
    shutil.copytree(sites.together.registry, mirror)
    refreshed(sites.n1)
    sites.together.acquaint(node, sites.n1)
    granted = node.run("north/m", site="north")

    shutil.rmtree(mirror)
    older.rename(mirror)
    with pytest.raises(RegistryRollbackError) as refused:
        refreshed(node)
    shown = node.cli("nodes", "--refresh")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert refused.value.message in shown.stderr
    registry = node.federation().registry
    assert (registry.state, registry.detail) == ("fresh", refused.value.message)
    assert f"({refused.value.message})" in node.cli("nodes").stdout
    assert states(node)["north"] == "ready"
    assert say(granted, b"hello") == b"hello|end"
    node.stop(granted.lease.id)
    until(lambda: sites.n1.device_states() == {"n1": "idle"}, "the device is free")
    assert say(node.run("north/m", site="north"), b"hello") == b"hello|end"


def test_a_site_that_is_removed_is_a_stranger(sites: Sites, say: Say, until: Until) -> None:
    """From each site's next reading on: what it borrows there ends with that word, what it asks is refused.

    What others borrowed from it is no longer renewed, and ends by its time on both sides.
    """
    west = sites.together.found(sites.together.node("w1", "west"), "--lease-ttl", "5")
    for gateway in (sites.n1, sites.s1):
        refreshed(gateway)
    sites.together.acquaint(west, sites.n1, sites.s1)
    at_north = west.run("north/m", site="north")
    at_south = west.run("north/m", site="south")
    at_west = sites.n1.run("m", site="west")

    sites.together.remove("west")
    shown = sites.n1.cli("nodes", "--refresh")
    assert shown.returncode == 0
    assert "west" not in shown.stdout
    assert west.wait_ended(at_north.lease.id, 10).reason == "west has left the consortium"
    assert sites.n1.lease(at_north.lease.id).reason == "west has left the consortium"
    with pytest.raises((RefusedError, PeerNodeError)) as refused:
        west.run("north/m", site="north")
    assert "no site known here has the trust domain west.pyrdma.example" in refused.value.message
    with pytest.raises(NotAdmittedError):
        sites.n1.run("m", site="west")
    ended = sites.n1.wait_ended(at_west.lease.id, 20)
    assert ended.reason == "its time was over: its donor could not be reached"
    until(lambda: west.device_states() == {"w1": "idle"}, "its device is free")

    assert say(at_south, b"hello") == b"hello|end", "south has not read the registry yet"
    refreshed(sites.s1)
    assert west.wait_ended(at_south.lease.id, 10).reason == "west has left the consortium"


def test_silent_sites_are_named(sites: Sites, until: Until) -> None:
    """Whoever asks for what nobody else has, or for that very site, hears who could not be asked."""
    far = sites.together.found(sites.together.node("f1", "far"))
    refreshed(sites.n1)
    sites.together.acquaint(far, sites.n1)
    far.kill()
    with pytest.raises(UnknownModelError) as unknown:
        sites.n1.run("nobody-has-it")
    assert "far" in unknown.value.message.partition("Not reachable: ")[2]
    with pytest.raises((RefusedError, PeerNodeError)) as refused:
        sites.n1.run("m", site="far")
    assert "far is not reachable" in refused.value.message
    until(lambda: states(sites.n1)["far"] == "lost", "it counts as lost")
    with pytest.raises(UnknownModelError) as unknown:
        sites.n1.run("nobody-has-it")
    assert "far" in unknown.value.message.partition("Not reachable: ")[2]
    assert "far: the peer far is not reachable" in sites.n1.cli("nodes").stderr


@pytest.fixture(autouse=True)
def _idle_afterwards(sites: Sites, until: Until) -> Any:
    """After each test every other site is gone from the registry, and nothing is lent."""
    yield
    for node in sites.together.nodes:
        if node.process.poll() is None:
            for lease in node.leases():
                if not lease.borrower:
                    node.stop(lease.id)
    for node in sites.together.nodes[2:]:
        if node.process.poll() is None:
            assert node.end() == 0
    for gateway in (sites.n1, sites.s1):
        until(lambda gateway=gateway: set(gateway.device_states().values()) == {"idle"}, "devices are idle")
