"""What nodes say of themselves to their gateway, and sites to other gateways: values without protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pyrdma.image.manifest import ImageId


@dataclass(frozen=True, slots=True)
class ReportedImage:
    """An image in a node's memory, whole or not, and the names under which it was published there."""

    image_id: ImageId
    total_bytes: int
    whole: bool
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReportedDevice:
    """A device that a node donates.

    Args:
        state: ``lent``: leases may have it; ``reclaiming``: its owner wants it, and who has it is killed in
            ``reclaim_left_s``; ``owned``: its owner has it.
        device_class: rho's key in the policy.
        reclaims: how often it was handed over to its owner since the node's agent started.
        last_reclaim_s: how long the last hand-over took from the demand on.
    """

    id: str
    kind: str
    memory_bytes: int
    state: Literal["lent", "reclaiming", "owned"] = "lent"
    reclaim_left_s: float = 0.0
    device_class: str = "cpu"
    reclaims: int = 0
    last_reclaim_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseUse:
    """What a lease has used so far, counted on its node.

    Args:
        energy_wh: by its devices' own counters; ``None`` where there are none.
        sent_bytes: what its runner has sent to whoever asked it.
    """

    lease_id: str
    energy_wh: int | None
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class LeaseEnd:
    """A lease of which nothing is left on its node.

    Args:
        for_owner: the node ended it because the owner of its devices wants them.
    """

    lease_id: str
    reason: str
    for_owner: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """A node's word on itself, to its gateway."""

    address: str
    devices: tuple[ReportedDevice, ...]
    images: tuple[ReportedImage, ...]
    leases: tuple[str, ...]
    spares_ready: int
    transfer_bytes_per_s: float
    donating: bool
    ended: tuple[LeaseEnd, ...] = ()
    """Since the last report that was answered."""
    uses: tuple[LeaseUse, ...] = ()
    """Of leases that run here, and of those in ``ended``."""


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Devices of one class of a site: donated now, and of these used by guests."""

    device_class: str
    lent: int
    used: int


@dataclass(frozen=True, slots=True)
class SiteSummary:
    """A site's word on itself, to other gateways.

    ``egress_left_permille`` is of what it may send of images in a day, ``None`` without a bound;
    ``image_bytes_per_s`` the pace of the last image that came there, 0 where none has; ``waiting`` counts the
    requests in its queue.
    """

    site: str
    version: str
    devices: int
    leased: int
    nodes: int
    images: int
    transfer_bytes_per_s: float
    by_class: tuple[ClassCount, ...] = ()
    egress_left_permille: int | None = None
    image_bytes_per_s: float = 0.0
    waiting: int = 0
