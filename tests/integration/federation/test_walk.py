"""The whole way: from one institution's node to an answer from another's donated device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.local.views import AcceptedView, GrantedView

MIB = 1 << 20
Say = Callable[[GrantedView, bytes], bytes]


def test_a_model_of_one_site_runs_on_both_nodes_of_another(
    federation: Any, make_model: Callable[..., Path], say: Say, until: Callable[..., Any]
) -> None:
    """Across sites, then forwarded by the gateway in its site, then from memory; each start answers."""
    north = federation.found(federation.node("n1", "north"))
    south = federation.found(federation.node("s1", "south"))
    second = federation.join(south, federation.node("s2", "south"))
    federation.acquaint(north, south)
    published = north.publish(make_model("m", nbytes=80 * MIB), "m")

    events, across = north.run_events("m", site="south", node="s1")
    accepted = next(one for one in events if isinstance(one, AcceptedView))
    assert (accepted.site, accepted.node, accepted.lease_id) == ("south", "s1", across.lease.id)
    assert across.start.bytes == published.total_bytes
    assert [one.name for one in across.start.sources] == ["north"]
    assert across.start.verified
    assert say(across, b"hello") == b"hello|end"
    assert say(across, b"key") == across.api_key.encode() + b"|end"
    assert across.lease.donor == "south/s1"
    assert south.lease(across.lease.id).borrower == "north/n1"
    assert south.device_states() == {"s1": "leased", "s2": "idle"}

    in_site = north.run("m", site="south", node="s2")
    assert [one.name for one in in_site.start.sources] == ["s1"]
    assert in_site.start.bytes == published.total_bytes
    assert say(in_site, b"hello") == b"hello|end"
    assert second.lease(in_site.lease.id).state == "active"
    assert north.stop(in_site.lease.id).reason == "stopped by request"

    until(lambda: south.device_states()["s2"] == "idle", "the device is free again")
    resident = north.run("m", site="south", node="s2")
    assert resident.start.lane == "resident"
    assert say(resident, bytes(range(256)) * 4096) == bytes(range(256)) * 4096 + b"|end"
    for lease in (across, resident):
        north.stop(lease.lease.id)
        assert south.lease(lease.lease.id).state == "ended" if lease is across else True
    until(lambda: set(south.device_states().values()) == {"idle"}, "every device is free again")
    assert [one for node in (north, south, second) for one in node.leases()] == []
