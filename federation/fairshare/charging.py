"""What a lease is charged: whole milli standard-GPU-seconds (msgs), so that anyone can count it again.

``SGS = seconds x rho x max(device, device-memory, host-CPU, host-memory share)``, ``charge = SGS x
f(purpose)``.

Rules: integers; ratios are per mille. Time while the federation had idle devices of the class counts at the
discount. A charge is made from the whole of a lease's time so far and rounded down once, at the end: never
from parts, so that receipts written more often charge no less. A lease that its donor ended before its
minimum time is charged nothing.

Here are also the charges of leases that no receipt speaks of yet: they count from their admission.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from federation.fairshare.accounts import nodes_of
from federation.policy.policy import PER_MILLE, Policy

EXPECTED_AT_MOST_S: Final = 4 * 3600
"""A lease is charged for no more than this at its admission: many ask for days and stay for minutes."""


def charge_of(
    *,
    busy_ms: int,
    discount_ms: int,
    rho_permille: int,
    share_permille: int,
    factor_permille: int,
    idle_discount_permille: int,
    devices: int,
) -> int:
    """Return the charge in msgs of a lease's time so far.

    Args:
        busy_ms: time counted so far, of each device.
        discount_ms: the part of it that counts at the discount.
        rho_permille: the class of the devices, of the standard GPU.
        share_permille: what the lease has of each device and of what belongs to it, as ``share_of`` says.
        factor_permille: the purpose's.
        idle_discount_permille: what the discounted part counts.
        devices: how many.
    """
    weighted = (busy_ms - discount_ms) * PER_MILLE + discount_ms * idle_discount_permille
    return weighted * rho_permille * share_permille * factor_permille * devices // PER_MILLE**4


def share_of(*parts: tuple[int, int]) -> int:
    """Return the largest of some shares (part, whole) per mille, rounded up, between 1 and 1000."""
    shares = [-(-part * PER_MILLE // whole) for part, whole in parts if whole > 0]
    return min(PER_MILLE, max(1, *shares)) if shares else PER_MILLE


def rate_of(policy: Policy, *, device_class: str, purpose: str, devices: int, share_permille: int) -> int:
    """Return what a second of a lease costs without discount, msgs, rounded down."""
    return expected_msgs(
        policy,
        device_class=device_class,
        purpose=purpose,
        devices=devices,
        share_permille=share_permille,
        duration_s=1,
    )


def expected_msgs(
    policy: Policy,
    *,
    device_class: str,
    purpose: str,
    devices: int,
    share_permille: int = PER_MILLE,
    duration_s: int,
) -> int:
    """Return what a lease is charged at its admission, until receipts say what it took.

    It is the undiscounted cost of the time asked for, of ``EXPECTED_AT_MOST_S`` at most; of that much if the
    time is 0: as long as the donor lends. Classes and purposes that the policy does not name count as 1.
    """
    purpose_rule = policy.purposes.get(purpose)
    return charge_of(
        busy_ms=min(duration_s or EXPECTED_AT_MOST_S, EXPECTED_AT_MOST_S) * 1000,
        discount_ms=0,
        rho_permille=policy.device_classes.get(device_class, PER_MILLE),
        share_permille=share_permille,
        factor_permille=purpose_rule.factor_permille if purpose_rule is not None else PER_MILLE,
        idle_discount_permille=PER_MILLE,
        devices=devices,
    )


def outstanding_msgs(expected: int, receipted: int) -> int:
    """Return what of a charge at admission no receipt speaks of yet."""
    return max(0, expected - receipted)


@dataclass(frozen=True, slots=True)
class Charges:
    """Charges that no receipt speaks of yet, by node, msgs. Adding a negative one takes it back.

    Args:
        by_node: what is charged to a path and below it, and to each account's seat alone.
    """

    by_node: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, by_account: Mapping[str, int]) -> Charges:
        """Return the charges of accounts."""
        sums: dict[str, int] = {}
        for account, msgs in by_account.items():
            for node in nodes_of(account):
                sums[node] = sums.get(node, 0) + msgs
        return cls({node: msgs for node, msgs in sums.items() if msgs})

    def add(self, account: str, msgs: int) -> Charges:
        """Return the charges with so much more on an account and all above it."""
        sums = dict(self.by_node)
        for node in nodes_of(account):
            left = sums.get(node, 0) + msgs
            if left:
                sums[node] = left
            else:
                sums.pop(node, None)
        return Charges(sums)

    def on(self, node: str) -> int:
        """Return what is charged to a node."""
        return self.by_node.get(node, 0)
