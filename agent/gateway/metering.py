"""How much of the site's devices each lease has used so far, for its receipts. Pure: clocks come in.

Rules: a lease's time counts from its grant, since nobody else can have the device from then on; it is counted
on the clock of leases, Unix time only says when that was. Time during which the federation had an idle device
of the same class is counted apart, since it is charged less. A lease keeps the policy that it began under.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from agent.gateway.core.book import Lease
from agent.gateway.core.request import NO_PURPOSE, account_of
from federation.ledger.receipt import Receipt
from federation.ledger.writing import Statement


@dataclass(frozen=True, slots=True)
class Use:
    """What a lease's node has measured of it: energy where there is a counter, bytes sent to other sites."""

    energy_wh: int | None = None
    egress_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Meter:
    """One lease's.

    Args:
        policy: digest of the policy that prices it.
        device_class: of its devices.
        discount_ms: idle time that its receipts counted before this agent started.
        idle_ms: how much idle time of the class had been counted in all when this meter began.
    """

    policy: str
    device_class: str
    discount_ms: int
    idle_ms: int


@dataclass(frozen=True, slots=True)
class Meters:
    """All open leases' meters; a change returns another value.

    Args:
        of: by lease.
        idle_ms: by device class, the time that has been counted during which one was idle.
        sampled_s: until when that was looked at.
    """

    of: Mapping[str, Meter] = field(default_factory=dict)
    idle_ms: Mapping[str, int] = field(default_factory=dict)
    sampled_s: float = 0.0

    def begun(self, lease_id: str, device_class: str, policy: str, last: Receipt | None = None) -> Meters:
        """Return the meters with one more; ``last``: the newest receipt of a lease that was open before."""
        meter = Meter(
            policy=last.policy if last is not None else policy,
            device_class=last.device_class if last is not None else device_class,
            discount_ms=last.discount_ms if last is not None else 0,
            idle_ms=self.idle_ms.get(last.device_class if last is not None else device_class, 0),
        )
        return replace(self, of={**self.of, lease_id: meter})

    def ended(self, lease_id: str) -> Meters:
        """Return the meters without one."""
        return replace(self, of={key: one for key, one in self.of.items() if key != lease_id})

    def sampled(self, idle: Iterable[str], now_s: float) -> Meters:
        """Return the meters after a look at which classes have an idle device, for the time since then."""
        passed_ms = max(0, int((now_s - self.sampled_s) * 1000)) if self.sampled_s else 0
        counted = dict(self.idle_ms)
        for device_class in idle:
            counted[device_class] = counted.get(device_class, 0) + passed_ms
        return replace(self, idle_ms=counted, sampled_s=now_s)

    def statement(self, lease: Lease, use: Use, *, now_s: float, unix_s: int, final: bool) -> Statement:
        """Return what is to be stated of a lease that has a meter.

        Args:
            lease: as it stands.
            use: what its node has measured.
            now_s: the clock of leases.
            unix_s: the same moment in Unix time.
            final: whether it has ended, now.
        """
        meter = self.of[lease.id]
        busy_s = max(0.0, now_s - lease.granted_at_s)
        idle_ms = self.idle_ms.get(meter.device_class, 0) - meter.idle_ms
        request = lease.request
        return Statement(
            lease_id=lease.id,
            borrower=request.borrower_site,
            account=account_of(request),
            purpose=request.purpose or NO_PURPOSE,
            device=tuple(str(one) for one in lease.devices),
            device_class=meter.device_class,
            from_s=unix_s - int(busy_s),
            to_s=unix_s,
            busy_ms=int(busy_s * 1000),
            discount_ms=meter.discount_ms + idle_ms,
            energy_wh=use.energy_wh,
            egress_bytes=use.egress_bytes,
            final=final,
            refunded=final and lease.refunded,
        )
