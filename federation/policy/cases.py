"""The tests inside a policy file: each names a request and what the policy must answer.

Rules: a test that names an account, site, purpose, class, device class or rule that there is not is a problem
of the file, never a pass. Only a test that expects ``accounts.unknown`` or ``purposes.unknown`` may name
what is unknown. Tests see what ``permit`` and ``classes_of`` say and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from federation.fairshare.reserve import reserve_class
from federation.policy.account_tree import exists, sites_of
from federation.policy.findings import Findings
from federation.policy.form import CaseForm
from federation.policy.hours import DAY_MINUTES, DAYS
from federation.policy.permit import (
    ACCOUNT_UNKNOWN,
    BUILT_IN_RULES,
    PURPOSE_UNKNOWN,
    Denied,
    RequestFacts,
    classes_of,
    permit,
    rule_for,
)
from federation.policy.policy import Policy, Where
from federation.policy.problems import closest
from federation.policy.tree import Path
from federation.policy.units import write_percent

_AT: Final = re.compile(r"([a-z]{3}) ([0-2][0-9]):([0-5][0-9])")
AT_EXPECTED: Final = "a day and a time, such as sat 03:30"


@dataclass(frozen=True, slots=True)
class Case:
    """A test: a request and what the policy must answer.

    Args:
        facts: the request without its classes, which the policy says.
        used_msgs: use in all so far, by account.
        now_s: when.
        decision: ``allow`` or ``deny``.
        rule: the rule that must refuse, or ``None``: any.
        classes: all classes that the account must be in, or ``None``: not looked at.
        reserve_permille: of the class on whose reserve it draws, or ``None``: not looked at.
    """

    name: str
    where: Where
    facts: RequestFacts
    used_msgs: Mapping[str, int]
    now_s: int
    decision: str
    rule: str | None
    classes: tuple[str, ...] | None
    reserve_permille: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a test; ``faults`` is empty when it passed."""

    case: Case
    faults: tuple[str, ...]


def run_cases(cases: Sequence[Case], policy: Policy) -> tuple[Outcome, ...]:
    """Return what becomes of each test under a policy."""
    return tuple(Outcome(case, _faults(case, policy)) for case in cases)


def minute_of_week(text: str) -> int:
    """Return the minute of the week of ``sat 03:30``.

    Raises:
        ValueError: it is none.
    """
    found = _AT.fullmatch(text)
    if found is None or found[1] not in DAYS or int(found[2]) > 23:
        raise ValueError(f"{text!r} is no time of the week")
    return DAYS.index(found[1]) * DAY_MINUTES + int(found[2]) * 60 + int(found[3])


def rule_ids(policy: Policy) -> tuple[str, ...]:
    """Return every rule that a refusal may name."""
    own = (rule.id for rules in (policy.models.rules, policy.deny) for rule in rules)
    return (*BUILT_IN_RULES, *own)


def cases_of(
    forms: Sequence[CaseForm], policy: Policy, findings: Findings, *, donor: str = ""
) -> tuple[Case, ...]:
    """Return a file's tests; what names nothing is added to the findings.

    Args:
        forms: as the file has them.
        policy: under which they are run.
        findings: of the file.
        donor: the donor of requests that name none; empty: the first site of the policy.
    """
    sites = sites_of(policy.accounts)
    return tuple(
        _case(form, ("tests", at), policy, findings, sites=sites, donor=donor)
        for at, form in enumerate(forms)
    )


def _case(
    form: CaseForm, path: Path, policy: Policy, findings: Findings, *, sites: frozenset[str], donor: str
) -> Case:
    asked, expect = form.request, form.expect
    place: Path = (*path, "request")
    if expect.rule != ACCOUNT_UNKNOWN and not exists(asked.account, policy.accounts):
        meant = closest(asked.account, policy.accounts)
        message = f"there is no account {asked.account!r}"
        findings.value((*place, "account"), message, "an account of the tree", meant)
    if expect.rule != PURPOSE_UNKNOWN:
        findings.known((*place, "purpose"), asked.purpose, policy.purposes, "purpose")
    if asked.site is not None:
        findings.known((*place, "site"), asked.site, sites, "site")
    if asked.donor is not None:
        findings.known((*place, "donor"), asked.donor, sites, "site")
    if asked.device_class is not None:
        findings.known((*place, "device_class"), asked.device_class, policy.device_classes, "device class")
    for account in asked.used:
        if not exists(account, policy.accounts):
            message = f"there is no account {account!r}"
            findings.key((*place, "used", account), message, "", closest(account, policy.accounts))
    _check_expected(form, (*path, "expect"), policy, findings)
    minute = 0
    try:
        minute = minute_of_week(asked.at)
    except ValueError as error:
        findings.value((*place, "at"), str(error), AT_EXPECTED)
    rule = rule_for(policy, asked.account)
    speaker = rule.sites[0] if rule is not None and rule.sites else min(sites, default="")
    facts = RequestFacts(
        account=asked.account,
        borrower_site=asked.site or speaker,
        purpose=asked.purpose,
        device_class=asked.device_class or "",
        model=asked.model,
        publisher=asked.publisher,
        licence=asked.licence,
        total_bytes=asked.size,
        donor_site=asked.donor or donor or min(sites, default=""),
        donor_region=asked.region,
        week_minute=minute,
    )
    return Case(
        name=form.name,
        where=findings.tree.value(path).where,
        facts=facts,
        used_msgs=dict(asked.used),
        now_s=policy.effective_at_s if asked.now is None else asked.now,
        decision=expect.decision,
        rule=expect.rule,
        classes=None if expect.classes is None else tuple(sorted(expect.classes)),
        reserve_permille=expect.reserve,
    )


def _check_expected(form: CaseForm, path: Path, policy: Policy, findings: Findings) -> None:
    expect = form.expect
    if expect.rule is not None:
        findings.known((*path, "rule"), expect.rule, rule_ids(policy), "rule")
        if expect.decision == "allow":
            findings.value((*path, "rule"), "what is allowed has no rule that refuses", "decision: deny")
    for at, name in enumerate(expect.classes or ()):
        findings.known((*path, "classes", at), name, policy.classes, "class")


def _faults(case: Case, policy: Policy) -> tuple[str, ...]:
    classes = classes_of(policy, case.facts.account, case.used_msgs, case.now_s)
    answer = permit(policy, replace(case.facts, classes=classes))
    faults = []
    if isinstance(answer, Denied):
        if case.decision == "allow":
            faults.append(f"it is denied by {answer.rule_id}: {answer.sentence}")
        elif case.rule is not None and case.rule != answer.rule_id:
            faults.append(f"it is denied by {answer.rule_id}, not by {case.rule}: {answer.sentence}")
    elif case.decision == "deny":
        faults.append("it is allowed" + (f", not denied by {case.rule}" if case.rule else ""))
    if case.classes is not None and case.classes != classes:
        faults.append(f"its classes are {_listed(classes)}, not {_listed(case.classes)}")
    drawn = reserve_class(policy, classes)
    reserve = 0 if drawn is None else policy.classes[drawn].reserve_permille
    if case.reserve_permille is not None and case.reserve_permille != reserve:
        faults.append(f"its reserve is {write_percent(reserve)}, not {write_percent(case.reserve_permille)}")
    return tuple(faults)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
