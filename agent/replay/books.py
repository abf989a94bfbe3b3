"""What each donor knows of everybody's use: receipts as they arrive, and the standing made of them.

Rules: use is counted by the ledger's own arithmetic, ``charge_deltas`` and ``Standing``, and comes to what
``standing_of`` would make of the same receipts; nothing is signed, since nobody in a replay forges. A donor
knows its own receipts at once and another's ``lag_s`` after they were written, none through a partition; then
in one go what it missed. Books of a donor are as old as the moment up to which its receipts have arrived,
whether it wrote any or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from agent.replay.tally import Tally
from agent.replay.world import DEVICE_CLASS, World
from federation.fairshare.charging import charge_of, rate_of
from federation.fairshare.decay import EPOCH_S, decay_table, epoch_of
from federation.fairshare.freshness import Split, is_fresh
from federation.fairshare.standing import OpenLease, Standing, believed_use, holdings_of
from federation.fairshare.usage import Delta, by_node, charge_deltas
from federation.policy.policy import PER_MILLE, Policy

WEEK_START_S = 4 * 86400
"""Unix time of a trace's start: a Monday's midnight, and the start of an epoch."""
_BELIEVED_RECEIPTS = 3
"""An open lease of another donor is believed to go on for so many times the age that its receipt may have."""


class _Entry(NamedTuple):
    """One receipt in a donor's chain, as others come to know it; ``open`` is ``None`` with the last one."""

    written_s: float
    lease_id: str
    deltas: tuple[Delta, ...]
    open: OpenLease | None


@dataclass(slots=True)
class _Chain:
    """A donor's own receipts.

    Args:
        entries: the receipts that not everybody knows yet.
        first: the number of the first of these in the chain.
        last: of each lease that is open, up to which Unix time its last receipt charges what, msgs.
        own: its use, up to the last time that it made a standing.
        fresh: what it wrote since.
        believed: by the number of known entries and the epoch, what its open leases come to since their last
            receipts, decayed by account, and what they hold.
    """

    entries: list[_Entry] = field(default_factory=list)
    first: int = 0
    last: dict[str, tuple[int, int]] = field(default_factory=dict)
    own: Tally = field(default_factory=lambda: Tally(epoch_of(WEEK_START_S)))
    fresh: list[Delta] = field(default_factory=list)
    believed: tuple[tuple[int, int], dict[str, int], dict[str, int]] = ((-1, -1), {}, {})


@dataclass(slots=True)
class _Shelf:
    """What one donor knows of all: of each chain how many entries, as of when, and which leases are open."""

    at: dict[str, int]
    as_of_s: dict[str, float]
    open: dict[str, dict[str, OpenLease]]
    fresh: int | None = None
    split: Split | None = None


class Charged(NamedTuple):
    """A lease so far, for its next receipt; times of the replay."""

    lease_id: str
    account: str
    purpose: str
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
            site: _Shelf(dict.fromkeys(sites, 0), dict.fromkeys(sites, 0.0), {one: {} for one in sites})
            for site in sites
        }
        self._donated = {DEVICE_CLASS: world.devices}
        self._common = Tally(epoch_of(WEEK_START_S))
        """What every donor knows: most of all use, which is decayed once for all of them."""
        self._common_decayed: tuple[int, dict[str, int]] | None = None

    def write(
        self, donor: str, lease: Charged, now_s: float, *, final: bool = False, refunded: bool = False
    ) -> int:
        """Write a lease's next receipt; return what it charges in all, msgs."""
        chain = self._chains[donor]
        charge = 0 if refunded else self._charge(lease, now_s)
        to_s = WEEK_START_S + int(now_s)
        before = chain.last.get(lease.lease_id)
        deltas = charge_deltas(lease.account, WEEK_START_S + int(lease.from_s), to_s, charge, before)
        chain.fresh.extend(deltas)
        opened = None
        if final:
            chain.last.pop(lease.lease_id, None)
        else:
            chain.last[lease.lease_id] = (to_s, charge)
            opened = self._opened(lease, to_s, now_s)
        chain.entries.append(_Entry(now_s, lease.lease_id, deltas, opened))
        return charge

    def standing(self, donor: str, now_s: float) -> Standing:
        """Take over what has arrived at a donor by now; return how accounts stand there."""
        shelf, table = self._shelves[donor], self._table
        epoch = epoch_of(int(WEEK_START_S + now_s))
        for source, chain in self._chains.items():
            reached_s = self._reached_s(donor, source, now_s)
            if reached_s is not None:
                shelf.as_of_s[source] = max(shelf.as_of_s[source], reached_s)
                _take_over(shelf, source, chain)
        own = self._chains[donor]
        age_s = max(0, int(now_s - min(shelf.as_of_s.values())))
        if is_fresh(age_s):
            shelf.fresh, shelf.split = epoch, None
        elif shelf.split is None and shelf.fresh is not None:
            # Its own use still stands as it was when the books were last fresh.
            shelf.split = Split(shelf.fresh, by_node(own.own.decayed(shelf.fresh, table)))
        own.own.add(own.fresh)
        own.fresh = []
        split = None if is_fresh(age_s) else shelf.split or Split(0)
        used, ever, holdings = self._known(donor, epoch)
        self._settle()
        return Standing(
            epoch=epoch,
            policy=self._policy,
            usage=by_node(used),
            ever=by_node(ever),
            holdings=holdings,
            donated=self._donated,
            oldest_head_age_s=age_s,
            split=split,
            local={} if split is None else by_node(own.own.decayed(epoch, table, since=split.epoch)),
            policy_digest=self._policy.digest,
        )

    def _known(self, donor: str, epoch: int) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        """Return what a donor knows: by account decayed use and use in all, by node what others hold."""
        shelf, table = self._shelves[donor], self._table
        if self._common_decayed is None or self._common_decayed[0] != epoch:
            self._common_decayed = (epoch, self._common.decayed(epoch, table))
        used, ever = dict(self._common_decayed[1]), dict(self._common.ever)
        held: dict[str, int] = {}
        for source, chain in self._chains.items():
            for entry in chain.entries[: shelf.at[source] - chain.first]:
                for account, at, msgs in entry.deltas:
                    used[account] = used.get(account, 0) + msgs * table.weight(epoch - at)
                    ever[account] = ever.get(account, 0) + msgs
            if source == donor:
                continue  # the core adds the leases of its own book itself
            key = (shelf.at[source], epoch)
            if chain.believed[0] != key:
                chain.believed = (key, *_believed(shelf.open[source].values(), epoch, self._policy))
            for account, amount in chain.believed[1].items():
                used[account] = used.get(account, 0) + amount
            for account, devices in chain.believed[2].items():
                held[account] = held.get(account, 0) + devices
        return used, ever, holdings_of(held.items())

    def _settle(self) -> None:
        """Have all that every donor knows counted once for all of them."""
        for source, chain in self._chains.items():
            known = min(shelf.at[source] for shelf in self._shelves.values()) - chain.first
            if known:
                for entry in chain.entries[:known]:
                    self._common.add(entry.deltas)
                del chain.entries[:known]
                chain.first += known
                self._common_decayed = None

    def _charge(self, lease: Charged, now_s: float) -> int:
        policy = self._policy
        purpose = policy.purposes.get(lease.purpose)
        busy_ms = max(0, round((now_s - lease.from_s) * 1000))
        return charge_of(
            busy_ms=busy_ms,
            discount_ms=min(busy_ms, round(lease.discount_s * 1000)),
            rho_permille=policy.device_classes.get(DEVICE_CLASS, PER_MILLE),
            share_permille=PER_MILLE,
            factor_permille=purpose.factor_permille if purpose is not None else PER_MILLE,
            idle_discount_permille=policy.idle_discount_permille,
            devices=lease.devices,
        )

    def _opened(self, lease: Charged, receipted_s: int, now_s: float) -> OpenLease:
        believed_s = _BELIEVED_RECEIPTS * (self._world.receipt_s + self._world.lag_at(now_s))
        rate = rate_of(
            self._policy,
            device_class=DEVICE_CLASS,
            purpose=lease.purpose,
            devices=lease.devices,
            share_permille=PER_MILLE,
        )
        return OpenLease(lease.account, lease.devices, rate, receipted_s, receipted_s + int(believed_s))

    def _reached_s(self, donor: str, source: str, now_s: float) -> float | None:
        """Return the moment up to which a source's receipts have arrived; ``None``: it is cut off."""
        if donor == source:
            return now_s
        if any(one.parts(donor, source, now_s) for one in self._world.partitions):
            return None
        return max(0.0, now_s - self._world.lag_at(now_s))


def _take_over(shelf: _Shelf, source: str, chain: _Chain) -> None:
    at, reached_s, opened = shelf.at[source], shelf.as_of_s[source], shelf.open[source]
    for entry in islice(chain.entries, at - chain.first, None):
        if entry.written_s > reached_s:
            break
        if entry.open is None:
            opened.pop(entry.lease_id, None)
        else:
            opened[entry.lease_id] = entry.open
        at += 1
    shelf.at[source] = at


def _believed(
    leases: Iterable[OpenLease], epoch: int, policy: Policy
) -> tuple[dict[str, int], dict[str, int]]:
    """Return by account what open leases have used since their last receipts, decayed, and what they hold."""
    table = decay_table(policy.decay.half_life_s, policy.decay.window_half_lives)
    used: dict[str, int] = {}
    held: dict[str, int] = {}
    now_s = epoch * EPOCH_S
    for one in leases:
        for at, msgs in believed_use(one, now_s, len(table.weights) * EPOCH_S):
            used[one.account] = used.get(one.account, 0) + msgs * table.weight(epoch - at)
        if now_s < one.until_s:
            held[one.account] = held.get(one.account, 0) + one.devices
    return used, held


def shares(policy: Policy) -> Mapping[str, float]:
    """Return each institution's share by the policy's weights."""
    tops = {path: rule.weight for path, rule in policy.accounts.items() if path.count("/") == 1}
    whole = sum(tops.values())
    return {path[1:]: weight / whole for path, weight in tops.items()}
