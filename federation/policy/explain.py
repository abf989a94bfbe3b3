"""Why a request is permitted or not, on which terms, and which single change would turn a refusal.

Rules: what is said comes from the functions that decide; each change is tried by ``permit`` before it is
named, so that no advice is wrong. Queue, caps and capacity are not in a policy file: ``queue`` has those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from federation.fairshare.reserve import reserve_class
from federation.policy.account_tree import sites_of
from federation.policy.hours import DAY_MINUTES, DAYS, WEEK_MINUTES, minutes_until
from federation.policy.permit import (
    Denied,
    Permitted,
    RequestFacts,
    classes_of,
    may_speak_for,
    permit,
    rule_for,
)
from federation.policy.policy import ANY, PER_MILLE, Policy, Where
from federation.policy.units import write_size

_MAX_CHANGES: Final = 8
_MAX_ACCOUNTS_TRIED: Final = 200
_STEP_MINUTES: Final = 15


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the request after which it is permitted."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a policy says of a request.

    Args:
        facts: the request with the classes that the policy gives its account.
        answer: permitted, or the rule that refuses.
        changes: single changes that would have it permitted.
        account_where: where the account, or the open one above it, stands.
        reserve: the class on whose reserve it draws, or empty.
        charge_permille: what a second on the device counts in seconds of the standard GPU, with the purpose;
            ``None``: no class of devices was named.
        paused_minutes: until the donor's hours of lending begin; ``None``: never.
    """

    facts: RequestFacts
    answer: Permitted | Denied
    changes: tuple[Change, ...]
    account_where: Where | None
    reserve: str
    charge_permille: int | None
    paused_minutes: int | None


def explain(policy: Policy, facts: RequestFacts, used_msgs: Mapping[str, int], now_s: int) -> Explanation:
    """Return what the policy says of a request.

    Args:
        policy: a consortium's, or one under a donor's overlay.
        facts: the request; its classes are filled in here.
        used_msgs: use in all so far, by account.
        now_s: Unix time.
    """
    asked = replace(facts, classes=classes_of(policy, facts.account, used_msgs, now_s))
    answer = permit(policy, asked)
    changes: tuple[Change, ...] = ()
    if isinstance(answer, Denied):
        tried = (
            change
            for change, other in _variants(policy, asked, used_msgs, now_s)
            if isinstance(permit(policy, other), Permitted)
        )
        changes = _first_of_each_field(tried)
    rule = rule_for(policy, facts.account)
    purpose, rho = policy.purposes.get(facts.purpose), policy.device_classes.get(facts.device_class)
    charge = None if purpose is None or rho is None else rho * purpose.factor_permille // PER_MILLE
    return Explanation(
        asked,
        answer,
        changes,
        None if rule is None else rule.where,
        reserve_class(policy, asked.classes) or "",
        charge,
        minutes_until(policy.lend.hours, facts.week_minute),
    )


def write_minute(week_minute: int) -> str:
    """Return a minute of the week as ``sat 03:30``."""
    day, minute = divmod(week_minute % WEEK_MINUTES, DAY_MINUTES)
    return f"{DAYS[day]} {minute // 60:02}:{minute % 60:02}"


def _first_of_each_field(changes: Iterator[Change]) -> tuple[Change, ...]:
    """Return at most two changes of one field, and not too many in all."""
    found: list[Change] = []
    for change in changes:
        if sum(each.field == change.field for each in found) < 2:
            found.append(change)
        if len(found) == _MAX_CHANGES:
            break
    return tuple(found)


def _variants(
    policy: Policy, facts: RequestFacts, used_msgs: Mapping[str, int], now_s: int
) -> Iterator[tuple[Change, RequestFacts]]:
    """Yield the request with one field changed, the likeliest to help first."""
    for purpose in sorted(set(policy.purposes) - {facts.purpose}):
        yield Change("purpose", purpose), replace(facts, purpose=purpose)
    rule = rule_for(policy, facts.account)
    for site in rule.sites if rule is not None else ():
        yield Change("site", site), replace(facts, borrower_site=site)
    yield from _other_models(policy, facts)
    for donor in sorted(sites_of(policy.accounts) - {facts.donor_site}):
        yield Change("donor", donor), replace(facts, donor_site=donor)
    for region in policy.data.regions:
        yield Change("region", region), replace(facts, donor_region=region)
    for device_class in (
        sorted(set(policy.device_classes) - {facts.device_class}) if facts.device_class else ()
    ):
        yield Change("device-class", device_class), replace(facts, device_class=device_class)
    for ahead in range(_STEP_MINUTES, WEEK_MINUTES, _STEP_MINUTES):
        minute = (facts.week_minute - facts.week_minute % _STEP_MINUTES + ahead) % WEEK_MINUTES
        yield Change("at", write_minute(minute)), replace(facts, week_minute=minute)
    tried = 0
    for account in policy.accounts:
        if account != facts.account and may_speak_for(policy, facts.borrower_site, account):
            classes = classes_of(policy, account, used_msgs, now_s)
            yield Change("account", account), replace(facts, account=account, classes=classes)
            tried += 1
            if tried == _MAX_ACCOUNTS_TRIED:
                break


def _other_models(policy: Policy, facts: RequestFacts) -> Iterator[tuple[Change, RequestFacts]]:
    matches = [rule.match for rule in policy.deny] + [rule.match for rule in policy.models.rules]
    sizes = {match.larger_than_bytes for match in matches} | {policy.models.max_bytes}
    for size in sorted((size for size in sizes if size is not None), reverse=True):
        if size < facts.total_bytes:
            yield Change("size", write_size(size)), replace(facts, total_bytes=size)
    for publisher in policy.models.publishers:
        if publisher not in {ANY, facts.publisher}:
            yield Change("publisher", publisher), replace(facts, publisher=publisher)
    for licence in policy.models.licences:
        if licence not in {ANY, facts.licence}:
            yield Change("licence", licence), replace(facts, licence=licence)
