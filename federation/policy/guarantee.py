"""The guarantee behind reserves: a request within its own waits for an instant lease's grace and its kill.

Rules: a policy under which that can fail is refused: when all reserves together are more than half, when the
grace of instant leases is longer than the promise, when the devices of a donor do not go round, or when a
reserve is kept that nobody could ever use. Each check says which of these it was.
"""

from __future__ import annotations

from typing import Final

from federation.policy.findings import Findings
from federation.policy.permit import within_any
from federation.policy.policy import PER_MILLE, ClassRule, Match, Policy
from federation.policy.units import write_duration, write_percent

KILL_S: Final = 20
"""From the end of the grace until the device is there: 10 s to kill, 10 s until its memory is seen free."""
MAX_RESERVED_PERMILLE: Final = 500


def check_guarantee(policy: Policy, findings: Findings) -> None:
    """Add a problem for each way in which a reserve could not be honoured."""
    reserved = {name: rule for name, rule in policy.classes.items() if rule.reserve_permille}
    if not reserved:
        return
    total = sum(rule.reserve_permille for rule in reserved.values())
    if total > MAX_RESERVED_PERMILLE:
        last = next(reversed(reserved))
        findings.value(
            ("classes", last, "reserve"), f"all reserves together are {write_percent(total)}", "at most 50%"
        )
    else:
        _goes_round(policy, findings)
    wait_s = policy.lend.instant_grace_s + KILL_S
    if wait_s > policy.caps.reserved_wait_s:
        path = ("lend", "instant_grace") if ("lend", "instant_grace") in findings.tree.keys else ("classes",)
        promise = write_duration(policy.caps.reserved_wait_s)
        findings.key(
            path,
            f"a reserved request could wait {write_duration(wait_s)}: the grace of instant leases and "
            f"{KILL_S}s to kill; caps.reserved_wait promises {promise}",
            "a shorter instant_grace, or a longer reserved_wait",
        )
    for name, rule in reserved.items():
        _usable(policy, name, rule, findings)


def smallest_donor(policy: Policy) -> int:
    """Return the fewest devices from which on every donor can keep all reserves at once.

    Headroom is no matter: a reserve is a part of what a donor lends besides it.
    """
    ratios = [rule.reserve_permille for rule in policy.classes.values() if rule.reserve_permille]
    fewest = 1
    # Rounding up takes less than one device a class, and at most half is reserved: so many are enough.
    for devices in range(1, 2 * len(ratios) + 1):
        if sum(-(-ratio * devices // PER_MILLE) for ratio in ratios) > devices:
            fewest = devices + 1
    return fewest


def _goes_round(policy: Policy, findings: Findings) -> None:
    fewest = smallest_donor(policy)
    if policy.caps.reserve_from >= fewest:
        return
    path = ("caps", "reserve_from") if ("caps", "reserve_from") in findings.tree.keys else ("classes",)
    findings.key(
        path,
        f"a donor of {fewest - 1} device{'s' if fewest > 2 else ''} has fewer than the reserves, rounded up",
        f"caps.reserve_from: {fewest} or more: smaller donors then reserve nothing",
    )


def _usable(policy: Policy, name: str, rule: ClassRule, findings: Findings) -> None:
    place = ("classes", name)
    members = [path for path, each in policy.accounts.items() if name in each.classes]
    if not members:
        findings.key(
            place, f"no account is in the class {name!r}, which has a reserve", "an account with this class"
        )
        return
    if rule.until_s is not None and rule.until_s <= policy.effective_at_s:
        findings.value((*place, "until"), f"the class {name!r} ends before the policy begins", "a later time")
    paths = [path for path in members if any(_meet(path, to) for to in policy.lend.to)]
    if not paths:
        findings.key(
            ("lend", "to"),
            f"nobody lends to any account of the class {name!r}, which has a reserve",
            "its accounts",
        )
    for at, deny in enumerate(policy.deny):
        if _only_accounts_and_classes(deny.match) and all(
            _denied(deny.match, name, path) for path in members
        ):
            findings.value(
                ("deny", at),
                f"rule {deny.id!r} refuses every account of the class {name!r}, which has a reserve",
                f"no reserve for {name}, or a narrower rule",
            )
    claimable = any(
        _meet(path, claimant)
        for purpose in policy.purposes.values()
        for claimant in purpose.claimants
        for path in members
    )
    if not claimable:
        findings.key(
            place,
            f"no account of the class {name!r}, which has a reserve, may claim any purpose",
            "a purpose for it",
        )


def _meet(account: str, path: str) -> bool:
    """Return whether an account, or something below it, is within a path."""
    return within_any(account, (path,)) or within_any(path, (account,))


def _only_accounts_and_classes(match: Match) -> bool:
    return match == Match(accounts=match.accounts, classes=match.classes)


def _denied(match: Match, name: str, path: str) -> bool:
    return (not match.accounts or within_any(path, match.accounts)) and (
        not match.classes or name in match.classes
    )
