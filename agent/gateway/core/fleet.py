"""The nodes of a site as their reports describe them: what is there, and who has fallen silent.

Rules: a report replaces the one before it, whole; a node that has not reported for ``NODE_SILENCE_S`` is lost
and is given nothing until it reports again; it stays known, since leases may still run there. Which device is
leased is not known here: that is the book's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from agent.limits import NODE_SILENCE_S


class DeviceRef(NamedTuple):
    """One device of the site; ``node/device`` for people. A tuple, since each decision looks many up."""

    node: str
    device: str

    def __str__(self) -> str:
        return f"{self.node}/{self.device}"


@dataclass(frozen=True, slots=True)
class Device:
    """What a node lends as one piece.

    Args:
        id: its name on the node.
        kind: what it is.
        memory_bytes: what it has.
        device_class: the policy's word for such devices.
        state: ``lent``: leases may have it; ``reclaiming``: its owner wants it, and whoever has it must be
            gone in ``reclaim_left_s``; ``owned``: its owner has it. The node decides, needing nobody for it.
        reclaim_left_s: from when the report was made.
    """

    id: str
    kind: Literal["cpu", "gpu"]
    memory_bytes: int
    device_class: str = "cpu"
    state: Literal["lent", "reclaiming", "owned"] = "lent"
    reclaim_left_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Replica:
    """An image in a node's memory; ``whole``: every piece of it is there and proven."""

    image_id: str
    whole: bool


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node's word on itself.

    Args:
        node: its name in the site.
        address: where its agent listens.
        devices: what it lends, all of them, leased or not.
        replicas: the images in its memory.
        leases: the gateway's leases that it has taken on, starting ones too; none of its own people's.
        spares_ready: runners that wait for a lease.
        donating: whether it takes leases now.
        transfer_bytes_per_s: the pace of its last pulls; 0 while it has made none.
    """

    node: str
    address: str
    devices: tuple[Device, ...]
    replicas: tuple[Replica, ...]
    leases: tuple[str, ...]
    spares_ready: int
    donating: bool
    transfer_bytes_per_s: float

    def holds(self, image_id: str) -> bool:
        """Whether the whole image is in the node's memory."""
        return any(one.whole and one.image_id == image_id for one in self.replicas)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that a request may have, and its node's report; ``ref``: its name."""

    report: NodeReport
    device: Device
    ref: DeviceRef = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ref", DeviceRef(self.report.node, self.device.id))


@dataclass(frozen=True, slots=True)
class Heard:
    """A node's last report and when it came.

    Args:
        report: what it said.
        heard_at_s: when.
        strays: leases that it named and should not have had, ended ones included.
        lent: the devices that it lends to anybody now.
    """

    report: NodeReport
    heard_at_s: float
    strays: tuple[str, ...] = ()
    lent: tuple[Candidate, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        devices = self.report.devices if self.report.donating else ()
        lent = tuple(Candidate(self.report, one) for one in devices if one.state == "lent")
        object.__setattr__(self, "lent", lent)

    def silent(self, now_s: float) -> bool:
        """Whether the node is lost."""
        return now_s - self.heard_at_s > NODE_SILENCE_S


@dataclass(frozen=True, slots=True)
class Fleet:
    """The known nodes by name, in the order of names."""

    nodes: Mapping[str, Heard] = field(default_factory=dict)

    def present(self, now_s: float) -> tuple[NodeReport, ...]:
        """Return the reports of the nodes that are not lost, by name."""
        return tuple(one.report for one in self.nodes.values() if not one.silent(now_s))


def heard(fleet: Fleet, report: NodeReport, now_s: float, strays: tuple[str, ...] = ()) -> Fleet:
    """Return the fleet after a report, which names these leases that the node should not have."""
    nodes = {**fleet.nodes, report.node: Heard(report, now_s, strays)}
    return Fleet(nodes if report.node in fleet.nodes else dict(sorted(nodes.items())))


def lost(fleet: Fleet, now_s: float) -> tuple[str, ...]:
    """Return the names of the nodes that have fallen silent, sorted."""
    return tuple(sorted(name for name, one in fleet.nodes.items() if one.silent(now_s)))


def dropped(fleet: Fleet, node: str, lease_id: str) -> Fleet:
    """Return the fleet after a node has said that a lease is gone, which its last report may still name."""
    known = fleet.nodes.get(node)
    if known is None or lease_id not in known.report.leases:
        return fleet
    report = replace(known.report, leases=tuple(one for one in known.report.leases if one != lease_id))
    strays = tuple(one for one in known.strays if one != lease_id)
    return Fleet({**fleet.nodes, node: replace(known, report=report, strays=strays)})


def forget(fleet: Fleet, node: str) -> Fleet:
    """Return the fleet without a node."""
    return Fleet({name: one for name, one in fleet.nodes.items() if name != node})


def withdraw(fleet: Fleet, node: str, device: str | None) -> Fleet:
    """Return the fleet with a node's device, or the whole node, lent no more until its next report."""
    known = fleet.nodes.get(node)
    if known is None:
        return fleet
    if device is None:
        report = replace(known.report, donating=False)
    else:
        left = tuple(one for one in known.report.devices if one.id != device)
        report = replace(known.report, devices=left)
    return Fleet({**fleet.nodes, node: replace(known, report=report)})
