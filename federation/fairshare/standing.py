"""All that ranks accounts at a donor in one epoch, as one value; the shell makes it of the ledger.

Rules: it is a pure function of the policy, the epoch, the known receipts and the known open leases,
whatever the order in which these came (I1). Time is that of the epoch's start. An open lease of another
donor, of which the last receipt is some time old, is believed to have gone on at its rate until now or
until its end; leases of this donor are not among them, the core adds these itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from federation.fairshare.accounts import ancestors, parent_of
from federation.fairshare.decay import EPOCH_S, decay_table
from federation.fairshare.freshness import WEIGHT_BITS, Split, frozen_weights, is_fresh
from federation.fairshare.usage import Usage, spread
from federation.policy.permit import classes_of
from federation.policy.policy import Policy

_KNOWN_CLASSES: Final = 16384
"""Accounts whose classes are kept: names of accounts are strangers' words."""


@dataclass(frozen=True, slots=True)
class OpenLease:
    """A lease of another donor that has not ended as far as is known.

    Args:
        account: who is charged.
        devices: how many it has.
        rate_msgs_per_s: what a second of it costs.
        receipted_s: Unix time up to which a receipt speaks of it, or its start.
        until_s: Unix time up to which it is believed to run; then it neither uses nor holds anything.
    """

    account: str
    devices: int
    rate_msgs_per_s: int
    receipted_s: int
    until_s: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How accounts stand in one epoch.

    Args:
        epoch: Unix time // 600.
        policy: in force.
        usage: decayed use by node, 2^-40 msgs, of known receipts and of believed open leases.
        ever: use in all by node, msgs, of known receipts.
        holdings: devices at other donors by account and path above it.
        donated: devices of the federation by device class, this donor's included.
        oldest_head_age_s: age of the books.
        split: the frozen split if they are too old; else ``None``.
        local: with a split, decayed use of this donor's own devices since it was frozen, by node.
        policy_digest, ledger_digest: what a decision records.
        devices: all of these.
        weights: of the nodes that the policy or the split names; ``unnamed_weight`` of the others.
    """

    epoch: int
    policy: Policy
    usage: Mapping[str, int] = field(default_factory=dict)
    ever: Mapping[str, int] = field(default_factory=dict)
    holdings: Mapping[str, int] = field(default_factory=dict)
    donated: Mapping[str, int] = field(default_factory=dict)
    oldest_head_age_s: int = 0
    split: Split | None = None
    local: Mapping[str, int] = field(default_factory=dict)
    policy_digest: str = ""
    ledger_digest: str = ""
    devices: int = field(init=False, repr=False, compare=False)
    weights: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _below: Mapping[str, int] = field(init=False, repr=False, compare=False)
    known_caps: dict[str, tuple[int, int]] = field(init=False, repr=False, compare=False)
    """Shares in devices and caps by account as far as anyone asked: they follow from the rest."""

    _known_classes: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "known_caps", {})
        object.__setattr__(self, "_known_classes", {})
        object.__setattr__(self, "devices", sum(self.donated.values()))
        below: dict[str, int] = {}
        for path, rule in self.policy.accounts.items():
            above = parent_of(path)
            below[above] = below.get(above, 0) + rule.weight
        object.__setattr__(self, "_below", below)
        if self.split is None:
            weights = {path: rule.weight for path, rule in self.policy.accounts.items()}
        else:
            weights = frozen_weights(self.policy, self.split, self.epoch)
        object.__setattr__(self, "weights", weights)

    @property
    def now_s(self) -> int:
        """The Unix time that ranks: the epoch's start."""
        return self.epoch * EPOCH_S

    @property
    def stale(self) -> bool:
        """Whether the frozen split rules."""
        return self.split is not None

    @property
    def unnamed_weight(self) -> int:
        """The weight of what the policy does not name: accounts below an open one, and seats."""
        return 1 if self.split is None else 1 << WEIGHT_BITS

    @property
    def ranked_use(self) -> Mapping[str, int]:
        """The decayed use by node that ranks, 2^-40 msgs."""
        return self.usage if self.split is None else self.local

    def share(self, account: str) -> tuple[int, int]:
        """Return an account's share of the federation by the policy's weights, as (part, whole)."""
        part = whole = 1
        for node in ancestors(account):
            rule = self.policy.accounts.get(node)
            weight = rule.weight if rule is not None else 1
            part *= weight
            whole *= self._below.get(parent_of(node), 0) + (0 if rule is not None else weight)
        return part, whole

    def classes(self, account: str) -> tuple[str, ...]:
        """Return the classes that an account is in, sorted."""
        known = self._known_classes.get(account)
        if known is None:
            known = classes_of(self.policy, account, self.ever, self.now_s)
            if len(self._known_classes) < _KNOWN_CLASSES:
                self._known_classes[account] = known
        return known


def standing_of(
    policy: Policy,
    epoch: int,
    *,
    usage: Usage | None = None,
    open_leases: Iterable[OpenLease] = (),
    donated: Mapping[str, int] | None = None,
    oldest_head_age_s: int = 0,
    last_split: Split | None = None,
    local: Usage | None = None,
    ledger_digest: str = "",
) -> Standing:
    """Return how accounts stand.

    Args:
        policy: in force.
        epoch: now.
        usage: of all known receipts, as charged.
        open_leases: of other donors, as known.
        donated: devices of the federation by class.
        oldest_head_age_s: age of the books.
        last_split: what ``freeze`` returned when the books were last fresh; ``None``: they never were, and
            the policy's weights rule.
        local: the part of ``usage`` on this donor's own devices; looked at while the books are too old.
        ledger_digest: names the ledger's state.
    """
    table = decay_table(policy.decay.half_life_s, policy.decay.window_half_lives)
    receipts = usage if usage is not None else Usage()
    now_s = epoch * EPOCH_S
    window_s = len(table.weights) * EPOCH_S
    leases = tuple(open_leases)
    believed = receipts.add_all(
        (one.account, at, msgs) for one in leases for at, msgs in believed_use(one, now_s, window_s)
    )
    split = None
    served: Mapping[str, int] = {}
    if not is_fresh(oldest_head_age_s):
        split = last_split if last_split is not None else Split(0)
        served = (local if local is not None else Usage()).since(split.epoch).totals(epoch, table)
    return Standing(
        epoch=epoch,
        policy=policy,
        usage=believed.totals(epoch, table),
        ever=receipts.ever_by_node(),
        holdings=holdings_of((one.account, one.devices) for one in leases if now_s < one.until_s),
        donated=dict(donated or {}),
        oldest_head_age_s=oldest_head_age_s,
        split=split,
        local=served,
        policy_digest=policy.digest,
        ledger_digest=ledger_digest,
    )


def holdings_of(held: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return devices by account and every path above it, from (account, devices) of single leases."""
    sums: dict[str, int] = {}
    for account, devices in held:
        for node in ancestors(account):
            sums[node] = sums.get(node, 0) + devices
    return sums


def believed_use(lease: OpenLease, now_s: int, window_s: int) -> tuple[tuple[int, int], ...]:
    """Return what an open lease is believed to have used since its last receipt, as (epoch, msgs).

    Args:
        lease: of another donor.
        now_s: Unix time.
        window_s: for how long use counts.
    """
    from_s = max(lease.receipted_s, now_s - window_s)
    to_s = min(now_s, lease.until_s)
    return spread(from_s, to_s, lease.rate_msgs_per_s * (to_s - from_s)) if from_s < to_s else ()
