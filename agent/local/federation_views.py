"""What the local API shows of a site and its consortium: nodes, registry, policy; frozen values.

Times are Unix times, ``None`` means "not yet", "none".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device of a node as its gateway knows it.

    ``state`` is ``idle``, ``leased``, ``reclaiming`` or ``owned`` (by its owner), or ``off`` (not donated).
    """

    id: str
    kind: str
    memory_bytes: int
    state: str
    lease: str
    borrower: str


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node of this site: ``state`` is ``ready``, ``lost``, ``left`` or ``expected`` (not heard yet)."""

    name: str
    address: str
    role: str
    state: str
    age_s: float | None
    devices: tuple[DeviceView, ...]
    images: int
    transfer_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class SiteView:
    """One institution of the consortium, as its gateway said ``age_s`` ago; ``None`` when it never answered.

    ``state`` is ``ready``, ``lost`` or ``unknown`` (not asked yet); counts are of donated devices. What it
    may still send of images today is per mille of a day's, ``None`` without a bound; the carbon of its power
    is of this hour, as it signed it, ``None`` where it has not.
    """

    name: str
    trust_domain: str
    local: bool
    state: str
    fault: str
    age_s: float | None
    address: str
    devices: int
    leased: int
    idle: int
    nodes: int
    images: int
    transfer_bytes_per_s: float
    egress_left_permille: int | None = None
    carbon_g_per_kwh: int | None = None


@dataclass(frozen=True, slots=True)
class InviteView:
    """An invite, shown once; ``expires_at`` is a Unix time."""

    text: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class RegistryView:
    """The registry as last believed here: ``state`` is ``fresh``, ``stale``, ``local`` or ``none``."""

    consortium: str
    state: str
    detail: str
    sites: int
    refreshed_at: float | None
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class PolicyView:
    """The policy that the site goes by; ``version`` 0: none is in force.

    Args:
        overlay: the version of the site's own overlay in it; 0: none.
        why_not: why the site lends nothing under it; empty: it lends.
        upcoming: versions to come, each with its time (Unix time).
        faults: what is wrong with the policy's or the overlay's files.
    """

    version: int = 0
    digest: str = ""
    overlay: int = 0
    why_not: str = ""
    upcoming: tuple[tuple[int, int], ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FederationView:
    """This node's place in its site, and its site's in the consortium; ``site`` is empty outside any."""

    site: str
    trust_domain: str
    node: str
    role: str
    gateway: str
    certificate_expires_at: float | None
    registry: RegistryView
    sites: tuple[SiteView, ...]
    nodes: tuple[NodeView, ...]
    policy: PolicyView = PolicyView()
