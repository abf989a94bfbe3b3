"""The rules of one donor's chain: which receipt may come next.

Rules, each with the code of its refusal:

- ``position``, ``previous``: each receipt has the next position and names the digest of the one before;
- ``sequence``: receipts of a lease are numbered 1, 2, 3 ...; after the ``final`` one there is none;
- ``changed``: borrower, account, purpose, devices, class, start and policy of a lease never change. The
  policy in force when a lease began prices all of it;
- ``decreasing``: what is cumulative never falls: end, busy time, discount, egress, energy, and the charge but
  for a refund;
- ``interval``, ``busy``: a lease ends after it begins and lasts no longer than the policy's longest; busy
  time is at most wall time, discounted time at most busy time, since the receipt before as well. The donor
  floors seconds and caps its count;
- ``overlap``: one device serves one lease at a time; what comes late for a lease ends before the next began;
- ``charge``: the charge is what the policy says for the time counted, to the last unit;
- ``refund``: a refund is final, charges nothing, and is for a lease shorter than the policy's least run time;
- ``future``: it does not end ahead of our clock by more than the skew; it is parked, not refused for good;
- ``policy``: the policy that it names is known here; parked as well.

A chain is changed by ``add`` alone, after ``check`` found nothing. Signatures are checked before this module;
``federation.ledger.accept`` puts both together. No clock and no I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from federation.ledger.form import ZERO_DIGEST, devices_of
from federation.ledger.pricing import charge_of_receipt
from federation.ledger.receipt import Receipt
from federation.limits import LEASE_OVERTIME_S, LEDGER_CLOCK_LEAD_S
from federation.policy.policy import Policy

Code = Literal[
    "form",
    "signature",
    "position",
    "previous",
    "sequence",
    "changed",
    "decreasing",
    "interval",
    "busy",
    "overlap",
    "charge",
    "refund",
    "future",
    "policy",
    "forked",
]
PARKED: Final[frozenset[Code]] = frozenset({"future", "policy"})
"""Refusals that time or a newer policy lifts: the receipt may be good, and is asked for again."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a receipt is not taken.

    Args:
        code: the rule.
        sentence: what is wrong, for people.
    """

    code: Code
    sentence: str

    @property
    def parked(self) -> bool:
        """Whether it may be taken later as it is."""
        return self.code in PARKED


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules need beyond the chain: our clock, in Unix time, and the policies by their digest."""

    now_s: int
    policies: Mapping[str, Policy]


@dataclass(frozen=True, slots=True)
class Head:
    """How far a chain is known: the last position, and its digest; position 0 before the first."""

    position: int = 0
    digest: bytes = ZERO_DIGEST


@dataclass(slots=True)
class Chain:
    """One donor's chain up to a head, as far as the next receipt depends on it.

    Args:
        leases: the last receipt of each lease.
        ends: when the next lease began on a device of a lease that has not ended; it must have ended by then.
        holders: by device, the lease that had it last.
        ended: looks up the last receipt of a lease that is not in ``leases``; it must have ended, and hold no
            device. A chain of millions of receipts need not keep them all at hand.
    """

    donor: str
    head: Head = field(default_factory=Head)
    leases: dict[str, Receipt] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    holders: dict[str, str] = field(default_factory=dict)
    ended: Callable[[str], Receipt | None] = lambda _: None

    def copy(self) -> Chain:
        """Return a chain that changes apart from this one."""
        return replace(self, leases=dict(self.leases), ends=dict(self.ends), holders=dict(self.holders))

    def check(self, receipt: Receipt, facts: Facts) -> Refusal | None:
        """Return why a receipt may not be the next one; ``None`` if it may."""
        if receipt.position != self.head.position + 1:
            return Refusal(
                "position", f"position {receipt.position} comes, and {self.head.position + 1} is next."
            )
        if receipt.previous != self.head.digest:
            return Refusal("previous", "it does not name the receipt before it.")
        policy = facts.policies.get(receipt.policy)
        if policy is None:
            return Refusal("policy", f"the policy {receipt.policy[:12]} is not known here.")
        if receipt.to_s > facts.now_s + LEDGER_CLOCK_LEAD_S:
            return Refusal("future", f"it ends {receipt.to_s - facts.now_s} s ahead of our clock.")
        return (
            self._check_sequence(receipt)
            or _check_time(receipt, policy)
            or self._check_devices(receipt)
            or _check_charge(receipt, policy)
        )

    def add(self, receipt: Receipt, digest: bytes) -> None:
        """Take a checked receipt as the chain's head."""
        self.head = Head(receipt.position, digest)
        self.leases[receipt.lease_id] = receipt
        if receipt.final:
            self.ends.pop(receipt.lease_id, None)
        if receipt.seq > 1:
            return
        for device in devices_of(receipt):
            before = self.holders.get(device)
            self.holders[device] = receipt.lease_id
            if before is not None and not self.leases[before].final:
                bound_s = self.ends.get(before, receipt.from_s)
                self.ends[before] = min(bound_s, receipt.from_s)

    def prune(self) -> None:
        """Forget the leases that ``ended`` can look up: ended ones that hold no device any more."""
        holding = set(self.holders.values())
        self.leases = {
            lease_id: last for lease_id, last in self.leases.items() if not last.final or lease_id in holding
        }

    def _check_sequence(self, receipt: Receipt) -> Refusal | None:
        last = self.leases.get(receipt.lease_id) or self.ended(receipt.lease_id)
        if last is None:
            if receipt.seq != 1:
                return Refusal("sequence", f"a lease's first receipt has number {receipt.seq}.")
            return None
        if last.final:
            return Refusal("sequence", "the lease has had its last receipt.")
        if receipt.seq != last.seq + 1:
            return Refusal("sequence", f"number {receipt.seq} comes, and {last.seq + 1} is next.")
        for name, before, now in (
            ("borrower", last.borrower, receipt.borrower),
            ("account", last.account, receipt.account),
            ("purpose", last.purpose, receipt.purpose),
            ("devices", last.device, receipt.device),
            ("class", last.device_class, receipt.device_class),
            ("start", last.from_s, receipt.from_s),
            ("policy", last.policy, receipt.policy),
        ):
            if before != now:
                return Refusal("changed", f"the lease's {name} was {before} and is now {now}.")
        if (
            receipt.to_s < last.to_s
            or receipt.busy_ms < last.busy_ms
            or receipt.discount_ms < last.discount_ms
            or receipt.egress_bytes < last.egress_bytes
            or (receipt.charge_msgs < last.charge_msgs and not receipt.refunded)
            or (
                last.energy_wh is not None
                and (receipt.energy_wh is None or receipt.energy_wh < last.energy_wh)
            )
        ):
            return Refusal("decreasing", "a cumulative figure is less than on the receipt before.")
        if receipt.discount_ms - last.discount_ms > receipt.busy_ms - last.busy_ms:
            return Refusal("busy", "more time got the discount than was counted since the receipt before.")
        return None

    def _check_devices(self, receipt: Receipt) -> Refusal | None:
        if receipt.seq > 1:
            bound_s = self.ends.get(receipt.lease_id)
            if bound_s is not None and receipt.to_s > bound_s:
                return Refusal("overlap", "its device has served another lease in the meantime.")
            return None
        for device in devices_of(receipt):
            before = self.holders.get(device)
            if before is not None and self.leases[before].to_s > receipt.from_s:
                return Refusal("overlap", f"{device} still served the lease {before} when it began.")
        return None


def _check_time(receipt: Receipt, policy: Policy) -> Refusal | None:
    wall_s = receipt.to_s - receipt.from_s
    if wall_s < 0:
        return Refusal("interval", "it ends before it begins.")
    if wall_s > policy.lend.max_duration_s + LEASE_OVERTIME_S:
        return Refusal("interval", f"it lasts {wall_s} s, longer than the policy's longest lease.")
    if receipt.busy_ms > _wall_ms(receipt.from_s, receipt.to_s):
        return Refusal("busy", "more time was counted than has passed.")
    if receipt.discount_ms > receipt.busy_ms:
        return Refusal("busy", "more time has a discount than was counted.")
    return None


def _check_charge(receipt: Receipt, policy: Policy) -> Refusal | None:
    if receipt.refunded:
        if not receipt.final or receipt.charge_msgs:
            return Refusal("refund", "a refund is final and charges nothing.")
        if receipt.to_s - receipt.from_s >= policy.lend.min_runtime_s:
            return Refusal("refund", "the lease had its least run time, which is not refunded.")
        return None
    due = charge_of_receipt(receipt, policy)
    if receipt.charge_msgs != due:
        return Refusal("charge", f"it charges {receipt.charge_msgs} msgs, and the policy says {due}.")
    return None


def _wall_ms(from_s: int, to_s: int) -> int:
    return (to_s - from_s) * 1000
