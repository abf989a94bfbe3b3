"""What an operator decides about one agent."""

from __future__ import annotations

from dataclasses import dataclass

from agent.limits import GRACE_S, QUIET_S
from agent.paths import Paths


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """How one agent runs.

    Args:
        paths: where the node lives.
        name: what it calls itself outside a site; in one, it has the name that it joined under.
        spares: how many warm runners it keeps.
        donates: whether it lends memory and devices.
        devices: the processor is lent as so many devices; 0: the GPUs where there are any, else it as one.
        grace_s: what leases of this node's own people get outside of a site when its owner needs a device.
        quiet_s: how long a device must have been idle before it is lent, where it is lent only then.
        lease_ttl_s: at a gateway, how long a lease lives without a renewal.
        visitors: at a gateway, ``HOST:PORT`` that laptops with a token dial; empty: it takes none.
        page: at a gateway, ``HOST:PORT`` at which the page of its queue is served; empty: there is none.
        mdns: interfaces on which the node announces itself and looks for its gateway; none: it does neither.
    """

    paths: Paths
    name: str
    spares: int
    donates: bool
    lease_ttl_s: float
    mdns: tuple[str, ...]
    devices: int = 0
    grace_s: float = GRACE_S
    quiet_s: float = QUIET_S
    visitors: str = ""
    page: str = ""
