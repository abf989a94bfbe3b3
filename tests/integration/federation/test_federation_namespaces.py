"""Institutions on machines of their own: a link that is cut and comes back, and a gateway that moved.

Each machine is a network namespace; the registry comes from a web server on a third one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import PeerNodeError, RefusedError
from agent.local.views import GrantedView
from pyrdma.errors import Error

TTL_S = 10.0
HEALED_S = 30.0
MIB = 1 << 20
Until = Callable[..., Any]
SAY = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20) as connection:
    connection.sendall(b"hello")
    connection.shutdown(socket.SHUT_WR)
    while part := connection.recv(100):
        print(part.decode(), end="", flush=True)
"""


@pytest.fixture
def lab(network_lab: Any) -> Iterator[Any]:
    """Make three machines; a test names them before its consortium, which has to end first."""
    with network_lab(3) as made:
        yield made


def inside(lab: Any, machine: int) -> list[str]:
    """Return how a command is run on a machine."""
    return ["ip", "netns", "exec", lab.machines[machine]]


def link(lab: Any, machine: int, state: str) -> None:
    """Cut a machine off, or plug it in again."""
    subprocess.run(["ip", "-n", lab.machines[machine], "link", "set", "eth0", state], check=True)


def answer(node: Any, granted: GrantedView) -> str:
    """Say hello through a lease's port on its borrower's machine; return what comes back."""
    port = granted.endpoint.split(":")[2].split("/")[0]
    command = [*node.inside, sys.executable, "-c", SAY, port]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout


def ready(node: Any, site: str) -> bool:
    """Return whether another site has answered a gateway's last question."""
    sites = node.federation().sites
    return any((one.name, one.state, one.fault) == (site, "ready", "") for one in sites)


def test_a_link_that_is_cut_costs_the_lease_and_no_more(
    lab: Any, federation: Any, make_model: Callable[..., Path], until: Until
) -> None:
    """Both sides end it by their own clocks, the device is never given twice, and all is well afterwards."""
    web = [sys.executable, "-m", "http.server", "8000", "--bind", lab.address(2)]
    lab.run_in(2, [*web, "--directory", federation.source], stdout=-3, stderr=-3)
    federation.source = f"http://{lab.address(2)}:8000"
    nodes = [
        federation.node(name, site, host=lab.address(machine), inside=inside(lab, machine))
        for machine, (name, site) in enumerate((("n1", "north"), ("s1", "south")))
    ]
    north = federation.found(nodes[0], "--interface", "eth0")
    south = federation.found(nodes[1], "--interface", "eth0", "--lease-ttl", str(TTL_S))
    federation.acquaint(north, south)
    image = north.publish(make_model("m", nbytes=40 * MIB), "m")
    south.publish(make_model("own"), "own")
    granted = north.run("m", site="south")
    assert [(one.name, one.bytes) for one in granted.start.sources] == [("north", image.total_bytes)]
    assert answer(north, granted) == "hello|end"

    link(lab, 1, "down")
    own = south.run("own", node="s1")  # it waits in line until the lease's time is over
    ended = north.wait_ended(granted.lease.id, 2 * TTL_S)
    assert ended.reason == "its time was over: its donor could not be reached"
    assert answer(north, granted) == ""
    with pytest.raises((PeerNodeError, RefusedError)):
        north.run("m", site="south")
    assert answer(south, own) == "hello|end"
    assert ended.ended_at <= own.lease.created_at, "the device has two users"
    south.stop(own.lease.id)

    until(lambda: not ready(north, "south") and not ready(south, "north"), "each misses the other")
    link(lab, 1, "up")
    until(lambda: ready(north, "south") and ready(south, "north"), "they hear each other", HEALED_S)
    again = north.run("m", site="south")
    assert answer(north, again) == "hello|end"
    assert north.call(lambda client: client.refresh()).registry.detail == ""


def test_a_gateway_that_moved_is_found_by_its_certificate(
    lab: Any, federation: Any, tmp_path_factory: pytest.TempPathFactory, until: Until
) -> None:
    """Multicast DNS says only where to knock: a gateway of the same names and another CA is left alone."""
    place = [(lab.address(machine), inside(lab, machine)) for machine in range(3)]
    gateway = federation.found(
        federation.node("n1", "north", host=place[0][0], inside=place[0][1]), "--mdns", "eth0"
    )
    node = federation.join(gateway, federation.node("n2", "north", host=place[1][0], inside=place[1][1]))
    assert node.end() == 0
    assert gateway.end() == 0
    site = node.state / "site" / "site.json"
    site.write_text(json.dumps(json.loads(site.read_text()) | {"gateway_address": f"{place[1][0]}:9"}))

    other = type(federation)(tmp_path_factory.mktemp("false"))
    federation.nodes.append(other.node("n1", "north", host=place[2][0], inside=place[2][1]))
    false = other.found(federation.nodes[-1], "--mdns", "eth0", admit=False)
    before = taken_connections(false)
    node.launch("--mdns", "eth0")
    until(lambda: taken_connections(false) > before, "the node has knocked at the false gateway")
    with pytest.raises(Error):
        node.federation()
    gateway.launch("--mdns", "eth0")
    until(lambda: states(gateway).get("n2") == "ready", "the node has found its gateway", HEALED_S)
    assert states(false) == {"n1": "ready"}
    assert states(node) == {"n1": "ready", "n2": "ready"}


def states(node: Any) -> dict[str, str]:
    """Return how the nodes of a site are, as one of them has it."""
    return {one.name: one.state for one in node.federation().nodes}


def taken_connections(node: Any) -> int:
    """Return how many TCP connections a machine has taken."""
    names, values = (
        line.split()
        for line in Path(f"/proc/{node.process.pid}/net/snmp").read_text().splitlines()
        if line.startswith("Tcp:")
    )
    return int(values[names.index("PassiveOpens")])
