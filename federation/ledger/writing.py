"""A donor's next receipt, made from what it measured.

Rules: what is written passes the rules of ``federation.ledger.chain``. Measures are brought within them here:
figures never fall, seconds are floored, counted time is capped by wall time (a clock set back costs the
donor, never the borrower), a late statement ends where the device's next lease began. Charges are computed,
never given. A lease keeps the policy that it began under.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from federation.errors import LedgerError
from federation.ledger.chain import Chain
from federation.ledger.pricing import charge_of_receipt
from federation.ledger.receipt import Receipt
from federation.policy.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a donor measured of a lease so far; fields as on ``Receipt``, all cumulative.

    Args:
        device: ``NODE/DEVICE`` names, any order.
        refunded: the donor ends it before its least run time.
    """

    lease_id: str
    borrower: str
    account: str
    purpose: str
    device: tuple[str, ...]
    device_class: str
    from_s: int
    to_s: int
    busy_ms: int
    discount_ms: int = 0
    energy_wh: int | None = None
    egress_bytes: int = 0
    final: bool = False
    refunded: bool = False


def next_receipt(chain: Chain, statement: Statement, policy: Policy) -> Receipt:
    """Return the receipt that a statement becomes at the end of the donor's own chain.

    Args:
        chain: the donor's own.
        statement: what was measured.
        policy: the lease's; for a lease with receipts the one that they name.

    Raises:
        LedgerError: the lease has had its last receipt.
    """
    last = chain.leases.get(statement.lease_id)
    if last is not None and last.final:
        raise LedgerError(f"the lease {statement.lease_id} has had its last receipt.")
    from_s = last.from_s if last is not None else statement.from_s
    to_s = max(statement.to_s, from_s, last.to_s if last is not None else 0)
    bound_s = chain.ends.get(statement.lease_id)
    if bound_s is not None:
        to_s = min(to_s, bound_s)
    busy_ms = min(max(statement.busy_ms, last.busy_ms if last else 0), (to_s - from_s) * 1000)
    energy_wh = statement.energy_wh
    if last is not None and last.energy_wh is not None:
        energy_wh = max(last.energy_wh, energy_wh or 0)
    receipt = Receipt(
        donor=chain.donor,
        borrower=last.borrower if last else statement.borrower,
        position=chain.head.position + 1,
        previous=chain.head.digest,
        lease_id=statement.lease_id,
        seq=last.seq + 1 if last else 1,
        account=last.account if last else statement.account,
        purpose=last.purpose if last else statement.purpose,
        device=last.device if last else ",".join(sorted(statement.device)),
        device_class=last.device_class if last else statement.device_class,
        from_s=from_s,
        to_s=to_s,
        busy_ms=busy_ms,
        charge_msgs=0,
        discount_ms=_discount_ms(statement, last, busy_ms),
        energy_wh=energy_wh,
        egress_bytes=max(statement.egress_bytes, last.egress_bytes if last else 0),
        final=statement.final,
        refunded=statement.final and statement.refunded and to_s - from_s < policy.lend.min_runtime_s,
        policy=last.policy if last else policy.digest,
    )
    return receipt if receipt.refunded else replace(receipt, charge_msgs=charge_of_receipt(receipt, policy))


def _discount_ms(statement: Statement, last: Receipt | None, busy_ms: int) -> int:
    # What was charged in full before does not get the discount afterwards: the charge would fall.
    before, counted = (last.discount_ms, busy_ms - last.busy_ms) if last is not None else (0, busy_ms)
    return min(max(statement.discount_ms, before), before + counted)
