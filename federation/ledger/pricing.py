"""What a receipt must charge under a policy: the one place where the ledger asks for a price."""

from __future__ import annotations

from federation.fairshare.charging import charge_of
from federation.ledger.form import devices_of
from federation.ledger.receipt import Receipt
from federation.policy.policy import PER_MILLE, Policy


def charge_of_receipt(receipt: Receipt, policy: Policy) -> int:
    """Return the charge in msgs for the time on a receipt, refund apart.

    Devices on receipts are whole, so their share is; what the policy does not name counts as 1.
    """
    purpose = policy.purposes.get(receipt.purpose)
    return charge_of(
        busy_ms=receipt.busy_ms,
        discount_ms=receipt.discount_ms,
        rho_permille=policy.device_classes.get(receipt.device_class, PER_MILLE),
        share_permille=PER_MILLE,
        factor_permille=PER_MILLE if purpose is None else purpose.factor_permille,
        idle_discount_permille=policy.idle_discount_permille,
        devices=len(devices_of(receipt)),
    )
