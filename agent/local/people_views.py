"""What the local API shows of people: who calls, what accounts have used, tokens. Frozen, without protobuf.

Amounts are milli standard-GPU-seconds, times Unix times; ``who`` is ``uid:NUMBER`` or ``token:NAME``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person wants to run: a model, where it must run (empty: anywhere), and on which terms.

    Args:
        account: who is charged; empty: the caller's default.
        purpose: what it is for; empty: nothing in particular.
        instant: it may be taken back at once, and may use what is reserved for others.
        duration_s: how long at most; 0: as long as the donor lends.
    """

    model: str
    site: str = ""
    node: str = ""
    account: str = ""
    purpose: str = ""
    instant: bool = False
    duration_s: int = 0


@dataclass(frozen=True, slots=True)
class WhoAmIView:
    """A caller as the agent knows it; ``account`` is the default, empty when the caller has none.

    ``accounts`` are paths, with ``/*`` behind those of which all that is below may be used; ``classes`` are
    the default account's; ``notice`` says what is wrong with the people file, if anything is.
    """

    who: str
    name: str
    admin: bool
    site: str
    account: str
    accounts: tuple[str, ...]
    classes: tuple[str, ...]
    notice: str


@dataclass(frozen=True, slots=True)
class ReceiptLineView:
    """A receipt in one line; ``state`` says whether both sides have signed it."""

    donor: str
    lease_id: str
    seq: int
    charge_msgs: int
    from_s: float
    to_s: float
    state: str


@dataclass(frozen=True, slots=True)
class AccountUsageView:
    """What an account has used, is due, and holds.

    Args:
        decayed_msgs: its use as the order of requests sees it.
        charged_msgs: its use in all.
        due_permille: its part by the policy's weights.
        delivered_permille: its part of what everybody used, decayed.
        leases: open now.
    """

    account: str
    classes: tuple[str, ...] = ()
    decayed_msgs: int = 0
    charged_msgs: int = 0
    due_permille: int = 0
    delivered_permille: int = 0
    leases: int = 0
    receipts: tuple[ReceiptLineView, ...] = ()


@dataclass(frozen=True, slots=True)
class UsageView:
    """The use of accounts; ``source`` says what the figures come from."""

    accounts: tuple[AccountUsageView, ...]
    source: str


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token that may be used until ``expires_at``; ``used_at`` is ``None`` when it never was."""

    name: str
    account: str
    created_at: float
    expires_at: float
    used_at: float | None


@dataclass(frozen=True, slots=True)
class NewTokenView:
    """A token's text, shown once."""

    text: str
    expires_at: float
