"""Whether a policy lets a request be served at all, and by which rule not; who may speak for an account.

Rules: a pure function of the policy and of typed facts; the first rule that says no, in the order below, is
the one that is named. The policy may be a consortium's alone or one that a donor's overlay has restricted.
Not here: what depends on who else is there (caps, reserves, order, capacity), and whether the donor lends at
this hour (``lend.hours``), which is a pause and no refusal.

Order: the account exists; the site may speak for it; the purpose exists; the account may claim it; lend.to;
models; data.regions; deny rules as they stand in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from federation.policy.hours import in_hours
from federation.policy.policy import ANY, AccountRule, Match, Policy, Where

ACCOUNT_UNKNOWN: Final = "accounts.unknown"
ACCOUNT_SITES: Final = "accounts.sites"
PURPOSE_UNKNOWN: Final = "purposes.unknown"
PURPOSE_CLAIMANTS: Final = "purposes.claimants"
LEND_TO: Final = "lend.to"
MODEL_PUBLISHERS: Final = "models.publishers"
MODEL_LICENCES: Final = "models.licences"
MODEL_SIZE: Final = "models.max_size"
DATA_REGIONS: Final = "data.regions"
BUILT_IN_RULES: Final = (
    ACCOUNT_UNKNOWN,
    ACCOUNT_SITES,
    PURPOSE_UNKNOWN,
    PURPOSE_CLAIMANTS,
    LEND_TO,
    MODEL_PUBLISHERS,
    MODEL_LICENCES,
    MODEL_SIZE,
    DATA_REGIONS,
)
"""What a refusal may name besides the ids of the file's own ``deny`` and ``models.rules``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """What rules match on.

    Args:
        account: who is charged, ``/institution[/group[/project]]``.
        borrower_site: which site asks.
        purpose: what it is for.
        classes: the account's, as ``classes_of`` says.
        device_class: of the device looked at; empty: not chosen yet, rules about device classes wait.
        model: ``SITE/NAME``.
        publisher: who published the model.
        licence: the model's.
        total_bytes: the image in memory.
        donor_site: who would serve it.
        donor_region: where that is.
        week_minute: now at the donor, minutes from Monday 00:00 of its own time.
    """

    account: str
    borrower_site: str
    purpose: str
    classes: tuple[str, ...] = ()
    device_class: str = ""
    model: str = ""
    publisher: str = ""
    licence: str = ""
    total_bytes: int = 0
    donor_site: str
    donor_region: str = ""
    week_minute: int = 0


@dataclass(frozen=True, slots=True)
class Permitted:
    """No rule says no."""


@dataclass(frozen=True, slots=True)
class Denied:
    """A rule says no.

    Args:
        rule_id: one of ``BUILT_IN_RULES``, or the id of a rule of the file.
        where: the rule's place, where the file has one.
        sentence: one sentence that says why.
        fix: what would change it.
        lasting: asking later with the same request does not help; else the rule holds at certain hours only.
    """

    rule_id: str
    where: Where | None
    sentence: str
    fix: str
    lasting: bool = True


def permit(policy: Policy, facts: RequestFacts) -> Permitted | Denied:
    """Return whether the policy lets the request be served, or the first rule that does not."""
    return (
        _speaking(policy, facts)
        or _claiming(policy, facts)
        or _lending(policy, facts)
        or _running(policy, facts)
        or _denying(policy, facts)
        or Permitted()
    )


def rule_for(policy: Policy, account: str) -> AccountRule | None:
    """Return the rule of an account: its own, or that of the nearest one above if that is open; else none."""
    rule = policy.accounts.get(account)
    if rule is not None:
        return rule
    for path in _upwards(account):
        above = policy.accounts.get(path)
        if above is not None:
            return above if above.open else None
    return None


def may_speak_for(policy: Policy, site: str, account: str) -> bool:
    """Return whether requests of a site may name the account."""
    rule = rule_for(policy, account)
    return rule is not None and site in rule.sites


def claims(policy: Policy, account: str, purpose: str) -> bool:
    """Return whether the account may claim the purpose."""
    rule = policy.purposes.get(purpose)
    return rule is not None and within_any(account, rule.claimants)


def classes_of(policy: Policy, account: str, used_msgs: Mapping[str, int], now_s: int) -> tuple[str, ...]:
    """Return the classes that an account is in now, sorted.

    A class that ends by use ends for all that stand below the account which it was given to, when these
    together have used that much: splitting an account does not renew it.

    Args:
        policy: in force.
        account: its path.
        used_msgs: use in all by account path, with what is below it; a path that is missing has used nothing.
        now_s: Unix time.
    """
    found = set()
    for path in (account, *_upwards(account)):
        rule = policy.accounts.get(path)
        for name in rule.classes if rule is not None else ():
            given = policy.classes[name]
            by_date = given.until_s is not None and now_s >= given.until_s
            by_use = given.until_msgs is not None and used_msgs.get(path, 0) >= given.until_msgs
            if not by_date and not by_use:
                found.add(name)
    return tuple(sorted(found))


def matches(match: Match, facts: RequestFacts) -> bool:
    """Return whether every field that the match names holds."""
    return (
        _matches_model(match, facts)
        and (not match.accounts or within_any(facts.account, match.accounts))
        and (not match.classes or not set(match.classes).isdisjoint(facts.classes))
        and (not match.purposes or facts.purpose in match.purposes)
        and (not match.device_classes or facts.device_class in match.device_classes)
        and (not match.sites or facts.donor_site in match.sites)
        and (not match.regions or facts.donor_region in match.regions)
        and in_hours(match.hours, facts.week_minute)
    )


def within_any(account: str, paths: Iterable[str]) -> bool:
    """Return whether an account is one of the paths or below one; ``*`` is above all."""
    return any(path in (ANY, account) or account.startswith(path + "/") for path in paths)


def _matches_model(match: Match, facts: RequestFacts) -> bool:
    site = facts.model.partition("/")[0]
    return (
        (not match.models or facts.model in match.models or f"{site}/{ANY}" in match.models)
        and (not match.publishers or facts.publisher in match.publishers)
        and (not match.licences or _is_one_of(facts.licence, match.licences))
        and (match.larger_than_bytes is None or facts.total_bytes > match.larger_than_bytes)
    )


def _is_one_of(licence: str, licences: Iterable[str]) -> bool:
    """SPDX ids are the same in capitals and in small letters."""
    return licence.lower() in {one.lower() for one in licences}


def _speaking(policy: Policy, facts: RequestFacts) -> Denied | None:
    rule = rule_for(policy, facts.account)
    if rule is None:
        return Denied(
            ACCOUNT_UNKNOWN,
            policy.places.get("accounts"),
            f"the policy has no account {facts.account}.",
            "ask the consortium to enter it, or use another account (--account)",
        )
    if facts.borrower_site not in rule.sites:
        return Denied(
            ACCOUNT_SITES,
            rule.where,
            f"site {facts.borrower_site} may not speak for {rule.path}; {', '.join(rule.sites)} may.",
            f"ask at {rule.sites[0]}" if rule.sites else "ask the consortium to name a site for it",
        )
    return None


def _claiming(policy: Policy, facts: RequestFacts) -> Denied | None:
    rule = policy.purposes.get(facts.purpose)
    if rule is None:
        return Denied(
            PURPOSE_UNKNOWN,
            policy.places.get("purposes"),
            f"the policy has no purpose {facts.purpose!r}.",
            f"name one of {', '.join(sorted(policy.purposes))} (--purpose)",
        )
    if not within_any(facts.account, rule.claimants):
        return Denied(
            PURPOSE_CLAIMANTS,
            rule.where,
            f"{facts.account} may not claim the purpose {facts.purpose}.",
            "name another purpose, or ask the consortium to enter the account under its claimants",
        )
    return None


def _lending(policy: Policy, facts: RequestFacts) -> Denied | None:
    if within_any(facts.account, policy.lend.to):
        return None
    return Denied(
        LEND_TO,
        policy.places.get(LEND_TO, policy.lend.where),
        f"{facts.donor_site} does not lend to {facts.account}.",
        "ask another donor",
    )


def _running(policy: Policy, facts: RequestFacts) -> Denied | None:
    models = policy.models
    if ANY not in models.publishers and facts.publisher not in models.publishers:
        sentence = f"models of {facts.publisher or 'an unnamed publisher'} may not run here."
        fix = f"models of {', '.join(models.publishers) or 'nobody'} may"
        return Denied(MODEL_PUBLISHERS, policy.places.get(MODEL_PUBLISHERS), sentence, fix)
    if ANY not in models.licences and not _is_one_of(facts.licence, models.licences):
        sentence = f"models under {facts.licence or 'an unnamed licence'} may not run here."
        fix = f"models under {', '.join(models.licences) or 'no licence'} may"
        return Denied(MODEL_LICENCES, policy.places.get(MODEL_LICENCES), sentence, fix)
    if models.max_bytes is not None and facts.total_bytes > models.max_bytes:
        sentence = (
            f"the model has {facts.total_bytes} bytes, and the most that may run is {models.max_bytes}."
        )
        return Denied(MODEL_SIZE, policy.places.get(MODEL_SIZE), sentence, "run a smaller model")
    for rule in models.rules:
        if not _matches_model(rule.match, facts):
            continue
        if rule.only_at and facts.donor_site not in rule.only_at:
            sentence = f"rule {rule.id}: {facts.model} may run at {', '.join(rule.only_at)} only."
            return Denied(rule.id, rule.where, sentence, "ask one of these donors")
        if rule.only_for and not within_any(facts.account, rule.only_for):
            sentence = f"rule {rule.id}: {facts.model} may run for {', '.join(rule.only_for)} only."
            return Denied(rule.id, rule.where, sentence, "use another model, or another account")
    return None


def _denying(policy: Policy, facts: RequestFacts) -> Denied | None:
    regions = policy.data.regions
    if regions and facts.donor_region not in regions:
        sentence = f"images stay in {', '.join(regions)}, and {facts.donor_site} is not there."
        return Denied(DATA_REGIONS, policy.places.get(DATA_REGIONS), sentence, "ask a donor of these regions")
    for rule in policy.deny:
        if matches(rule.match, facts):
            by_hours = bool(rule.match.hours)
            sentence = f"rule {rule.id}: {rule.reason.rstrip('.')}."
            fix = f"ask outside {', '.join(rule.match.hours)}" if by_hours else _fix_of(rule.match)
            return Denied(rule.id, rule.where, sentence, fix, lasting=not by_hours)
    return None


def _fix_of(match: Match) -> str:
    """Return what somebody could change about a request that a match holds for."""
    if match.larger_than_bytes is not None:
        return "run a smaller model"
    if match.models or match.publishers or match.licences:
        return "run another model"
    if match.sites or match.regions or match.device_classes:
        return "ask another donor"
    if match.purposes:
        return "name another purpose, if one is true"
    return "ask the consortium, or the donor if the rule is its own"


def _upwards(account: str) -> Iterable[str]:
    """Yield the paths above an account, the nearest first."""
    path = account.rpartition("/")[0]
    while path:
        yield path
        path = path.rpartition("/")[0]
