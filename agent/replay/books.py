"""What each donor knows of everybody's use: receipts as they arrive, and the standing made of them.

Rules: use is counted by the ledger's own arithmetic, ``receipt_deltas`` and ``standing_of``; nothing is
signed, since nobody in a replay forges. A donor knows its own receipts at once and another's ``lag_s`` after
they were written, none through a partition; then in one go what it missed. Books of a donor are as old as the
moment up to which its receipts have arrived, whether it wrote any or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.replay.world import DEVICE_CLASS, World
from federation.fairshare.charging import charge_of, rate_of
from federation.fairshare.decay import decay_table
from federation.fairshare.freshness import Split, freeze, is_fresh
from federation.fairshare.standing import OpenLease, Standing, standing_of
from federation.fairshare.usage import Delta, Usage, receipt_deltas
from federation.ledger.receipt import Receipt
from federation.policy.policy import PER_MILLE, Policy

WEEK_START_S = 4 * 86400
"""Unix time of a trace's start: a Monday's midnight, and the start of an epoch."""
_BELIEVED_RECEIPTS = 3
"""An open lease of another donor is believed to go on for so many times the age that its receipt may have."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One receipt in a donor's chain, as others come to know it; ``open`` is ``None`` with the last one."""

    written_s: float
    lease_id: str
    deltas: tuple[Delta, ...]
    open: OpenLease | None


@dataclass(slots=True)
class _Chain:
    """A donor's own receipts, and the last one of each lease that is open."""

    entries: list[_Entry] = field(default_factory=list)
    last: dict[str, Receipt] = field(default_factory=dict)
    own: Usage = field(default_factory=Usage)
    fresh: list[Delta] = field(default_factory=list)


@dataclass(slots=True)
class _Shelf:
    """What one donor knows of all."""

    usage: Usage = field(default_factory=Usage)
    at: dict[str, int] = field(default_factory=dict)
    as_of_s: dict[str, float] = field(default_factory=dict)
    open: dict[str, OpenLease] = field(default_factory=dict)
    fresh: tuple[int, Usage] | None = None
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class Charged:
    """A lease so far, for its next receipt; times of the replay."""

    lease_id: str
    account: str
    purpose: str
    borrower: str
    device: str
    devices: int
    from_s: float
    discount_s: float


class Books:
    """The chains of all donors, and what each knows of them.

    Args:
        world: how late books are.
        policy: what charges and decays.
    """

    def __init__(self, world: World, policy: Policy) -> None:
        self._world = world
        self._policy = policy
        self._table = decay_table(policy.decay.half_life_s, policy.decay.window_half_lives)
        sites = [one.site for one in world.donors]
        self._chains = {site: _Chain() for site in sites}
        self._shelves = {
            site: _Shelf(at=dict.fromkeys(sites, 0), as_of_s=dict.fromkeys(sites, 0.0)) for site in sites
        }
        self._donated = {DEVICE_CLASS: world.devices}

    def write(
        self, donor: str, lease: Charged, now_s: float, *, final: bool = False, refunded: bool = False
    ) -> int:
        """Write a lease's next receipt; return what it charges in all, msgs."""
        chain = self._chains[donor]
        before = chain.last.get(lease.lease_id)
        receipt = self._receipt(donor, lease, before, now_s, final=final, refunded=refunded)
        deltas = receipt_deltas(before, receipt)
        chain.fresh.extend(deltas)
        opened = None
        if final:
            chain.last.pop(lease.lease_id, None)
        else:
            chain.last[lease.lease_id] = receipt
            opened = self._opened(lease, receipt, now_s)
        chain.entries.append(_Entry(now_s, f"{donor}/{lease.lease_id}", deltas, opened))
        return receipt.charge_msgs

    def standing(self, donor: str, now_s: float) -> Standing:
        """Take over what has arrived at a donor by now; return how accounts stand there."""
        shelf = self._shelves[donor]
        epoch = int(WEEK_START_S + now_s) // 600
        deltas: list[Delta] = []
        for source, chain in self._chains.items():
            reached_s = self._reached_s(donor, source, now_s)
            if reached_s is None:
                continue
            shelf.as_of_s[source] = max(shelf.as_of_s[source], reached_s)
            self._take_over(shelf, source, chain, deltas, own=source == donor)
        shelf.usage = shelf.usage.add_all(deltas).within(epoch, self._table) if deltas else shelf.usage
        own = self._chains[donor]
        if own.fresh:
            own.own = own.own.add_all(own.fresh).within(epoch, self._table)
            own.fresh = []
        age_s = max(0, int(now_s - min(shelf.as_of_s.values())))
        if is_fresh(age_s):
            shelf.fresh, shelf.split = (epoch, own.own), None
        elif shelf.split is None and shelf.fresh is not None:
            shelf.split = freeze(*shelf.fresh, self._table)
        return standing_of(
            self._policy,
            epoch,
            usage=shelf.usage,
            open_leases=shelf.open.values(),
            donated=self._donated,
            oldest_head_age_s=age_s,
            last_split=shelf.split,
            local=own.own,
        )

    def _receipt(
        self, donor: str, lease: Charged, before: Receipt | None, now_s: float, *, final: bool, refunded: bool
    ) -> Receipt:
        policy = self._policy
        purpose = policy.purposes.get(lease.purpose)
        busy_ms = max(0, round((now_s - lease.from_s) * 1000))
        discount_ms = min(busy_ms, round(lease.discount_s * 1000))
        charge = charge_of(
            busy_ms=busy_ms,
            discount_ms=discount_ms,
            rho_permille=policy.device_classes.get(DEVICE_CLASS, PER_MILLE),
            share_permille=PER_MILLE,
            factor_permille=purpose.factor_permille if purpose is not None else PER_MILLE,
            idle_discount_permille=policy.idle_discount_permille,
            devices=lease.devices,
        )
        return Receipt(
            donor=donor,
            borrower=lease.borrower,
            position=len(self._chains[donor].entries) + 1,
            previous=b"",
            lease_id=lease.lease_id,
            seq=1 if before is None else before.seq + 1,
            account=lease.account,
            purpose=lease.purpose,
            device=lease.device,
            device_class=DEVICE_CLASS,
            from_s=WEEK_START_S + int(lease.from_s),
            to_s=WEEK_START_S + int(now_s),
            busy_ms=busy_ms,
            charge_msgs=0 if refunded else charge,
            discount_ms=discount_ms,
            energy_wh=None,
            egress_bytes=0,
            final=final,
            refunded=refunded,
            policy=policy.digest,
        )

    def _opened(self, lease: Charged, receipt: Receipt, now_s: float) -> OpenLease:
        believed_s = _BELIEVED_RECEIPTS * (self._world.receipt_s + self._world.lag_at(now_s))
        rate = rate_of(
            self._policy,
            device_class=DEVICE_CLASS,
            purpose=lease.purpose,
            devices=lease.devices,
            share_permille=PER_MILLE,
        )
        return OpenLease(lease.account, lease.devices, rate, receipt.to_s, receipt.to_s + int(believed_s))

    def _reached_s(self, donor: str, source: str, now_s: float) -> float | None:
        """Return the moment up to which a source's receipts have arrived; ``None``: it is cut off."""
        if donor == source:
            return now_s
        if any(one.parts(donor, source, now_s) for one in self._world.partitions):
            return None
        return max(0.0, now_s - self._world.lag_at(now_s))

    def _take_over(
        self, shelf: _Shelf, source: str, chain: _Chain, deltas: list[Delta], *, own: bool
    ) -> None:
        at, reached_s = shelf.at[source], shelf.as_of_s[source]
        entries = chain.entries
        while at < len(entries) and entries[at].written_s <= reached_s:
            entry = entries[at]
            deltas.extend(entry.deltas)
            if own:
                pass  # the core adds the leases of its own book itself
            elif entry.open is None:
                shelf.open.pop(entry.lease_id, None)
            else:
                shelf.open[entry.lease_id] = entry.open
            at += 1
        shelf.at[source] = at


def shares(policy: Policy) -> Mapping[str, float]:
    """Return each institution's share by the policy's weights."""
    tops = {path: rule.weight for path, rule in policy.accounts.items() if path.count("/") == 1}
    whole = sum(tops.values())
    return {path[1:]: weight / whole for path, weight in tops.items()}
