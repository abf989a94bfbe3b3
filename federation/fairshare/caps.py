"""How much one account may hold of the federation.

Rules: the cap is on the federation's donated devices, never on one donor's, and works for another: whoever
walks the order passes over a request beyond its cap while one that is not would fit, and comes back to it
when none does, so that no device idles for a cap. It holds at each level: an institution's accounts
together stay below the institution's. Whoever holds nothing may have one request's devices, however wide: a
small account would never start otherwise. Other donors' leases are known ``UNHEARD_S`` late at most. What an
account was given here since then is a sample of what others give it, in proportion to what they donate: where
that is more than was heard of, it counts. So donors that a newcomer asks all at once keep its cap together,
and whoever has its share already does not get one device too many from each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from federation.fairshare.accounts import ancestors
from federation.fairshare.standing import Standing
from federation.policy.policy import PER_MILLE

NOTHING: Final[Mapping[str, int]] = {}
UNHEARD_S: Final = 900
"""How long a lease may run before other donors count it: its first receipt goes out with the next exchange,
and ranks from the next epoch on."""


@dataclass(frozen=True, slots=True)
class OverCap:
    """A request would take an account, or one above it, beyond its cap.

    Args:
        account: which one.
        held: devices that it holds in the federation, as far as is known.
        cap: what it may hold.
        unheard: what other donors may have given it meanwhile, by what it was given here.
        older: devices of an older request of the account, which comes first and for which there is no room
            below the cap yet; 0: it is the request itself that exceeds it.
    """

    account: str
    held: int
    cap: int
    unheard: int = 0
    older: int = 0


def cap_of(standing: Standing, account: str) -> int:
    """Return the devices that an account may hold while another would fit; at least one."""
    return _due_and_cap(standing, account)[1]


def _due_and_cap(standing: Standing, account: str) -> tuple[int, int]:
    """Return an account's share of all devices, rounded up, and its cap."""
    known = standing.known_caps.get(account)
    if known is None:
        part, whole = standing.share(account)
        all_parts = standing.devices * part
        cap = all_parts * standing.policy.caps.over_share_permille // (whole * PER_MILLE)
        known = standing.known_caps[account] = (-(-all_parts // whole), max(1, cap))
    return known


def over_cap(
    standing: Standing,
    account: str,
    devices: int,
    held_here: Mapping[str, int],
    lately: Mapping[str, int] = NOTHING,
    here: int = 0,
) -> OverCap | None:
    """Return which cap a request would exceed, the highest in the tree first; ``None``: it exceeds none.

    Args:
        standing: how accounts stand; no cap is known while no devices are.
        account: who asks.
        devices: how many it wants.
        held_here: devices at this donor by account and every path above it, as ``holdings_of`` counts them.
        lately: of these, what was given in the last ``UNHEARD_S``.
        here: devices that this donor donates.
    """
    if not standing.devices:
        return None
    elsewhere = max(0, standing.devices - here)
    for path in ancestors(account):
        held = standing.holdings.get(path, 0) + held_here.get(path, 0)
        if not held:
            break  # nor does anyone below it
        due, cap = _due_and_cap(standing, path)
        if held + devices > cap:
            return OverCap(path, held, cap)
        if here:
            sample = lately.get(path, 0) * elsewhere // here
            unheard = max(0, sample - standing.holdings.get(path, 0))
            if held >= due:
                unheard += devices * elsewhere // here  # the others may all serve it at this very moment
            if held + unheard + devices > cap:
                return OverCap(path, held, cap, unheard)
    return None
