"""From a valid form to the values of a policy, with the checks that need more than one field.

Rules: whoever is named exists: accounts, classes, purposes, device classes, sites, attesters; ids are unique.
Every problem is told with its place; nothing is repaired. The guarantee behind reserves is checked in
``federation.policy.guarantee``, accounts are in ``federation.policy.account_tree``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from federation.fairshare.decay import EPOCH_S
from federation.policy.account_tree import accounts_of, check_attested, check_exist, sites_of
from federation.policy.findings import Findings
from federation.policy.form import DenyForm, MatchForm, ModelMatchForm, ModelsForm, PolicyForm
from federation.policy.permit import BUILT_IN_RULES
from federation.policy.policy import (
    AccountRule,
    Caps,
    Carbon,
    ClassRule,
    Data,
    Decay,
    DenyRule,
    Lend,
    Match,
    ModelRule,
    Models,
    Policy,
    PurposeRule,
    Where,
)
from federation.policy.tree import Path
from federation.policy.units import write_time

CONSORTIUM: Final = "consortium"
"""The attester that is no site: the consortium's own signers."""
_PLACES: Final[tuple[Path, ...]] = (
    ("accounts",),
    ("purposes",),
    ("classes",),
    ("lend", "to"),
    ("models", "publishers"),
    ("models", "licences"),
    ("models", "max_size"),
    ("data", "regions"),
)


def build(form: PolicyForm, findings: Findings, digest: str) -> Policy:
    """Return the policy of a form; what is wrong with it is added to the findings."""
    tree = findings.tree
    accounts = accounts_of(form.accounts, findings)
    sites = sites_of(accounts)
    classes = {
        name: ClassRule(
            name,
            each.reserve,
            tuple(each.attesters),
            each.until_use,
            each.until,
            tree.key(("classes", name)).where,
        )
        for name, each in form.classes.items()
    }
    for name, rule in classes.items():
        for at, attester in enumerate(rule.attesters):
            findings.known(("classes", name, "attesters", at), attester, {*sites, CONSORTIUM}, "site")
    check_attested(form.accounts, (), classes, findings)
    purposes = {
        name: PurposeRule(name, each.factor, tuple(each.claimants), tree.key(("purposes", name)).where)
        for name, each in form.purposes.items()
    }
    for name, purpose in purposes.items():
        check_exist(("purposes", name, "claimants"), purpose.claimants, accounts, findings)
    lend, caps = form.lend, form.caps
    check_exist(("lend", "to"), lend.to, accounts, findings)
    if form.effective_at % EPOCH_S:
        meant = write_time(form.effective_at - form.effective_at % EPOCH_S)
        findings.value(
            ("effective_at",), "agents change at a multiple of ten minutes", "such as 06:10", meant
        )
    policy = Policy(
        name=form.name,
        version=form.version,
        effective_at_s=form.effective_at,
        digest=digest,
        accounts=accounts,
        classes=classes,
        purposes=purposes,
        device_classes=dict(form.device_classes),
        idle_discount_permille=form.idle_discount,
        decay=Decay(form.decay.half_life, form.decay.window),
        caps=Caps(
            over_share_permille=caps.over_share,
            wide_hold_s=caps.wide_hold,
            max_wait_s=caps.max_wait,
            max_age_factor=caps.max_age_factor,
            preempt_every_s=caps.preempt_every,
            max_devices=caps.max_devices,
            max_requests=caps.max_requests,
            reserved_wait_s=caps.reserved_wait,
            reserve_from=caps.reserve_from,
        ),
        lend=Lend(
            grace_s=lend.grace,
            batch_grace_s=lend.batch_grace,
            instant_grace_s=lend.instant_grace,
            min_runtime_s=lend.min_runtime,
            max_duration_s=lend.max_duration,
            to=tuple(lend.to),
            headroom_devices=lend.headroom,
            hours=tuple(lend.hours),
            where=tree.key(("lend",)).where if ("lend",) in tree.keys else None,
        ),
        models=models_of(form.models, accounts, sites, findings),
        data=Data(form.data.egress_per_day, form.data.source_per_s, tuple(form.data.regions)),
        carbon=Carbon(form.carbon.weight),
        deny=(),
        notice_s=form.notice,
        places={".".join(map(str, path)): tree.keys[path].where for path in _PLACES if path in tree.keys},
    )
    if form.decay.half_life % EPOCH_S:
        findings.value(("decay", "half_life"), "use is counted in ten minutes", "a multiple of 10min")
    if lend.min_runtime > lend.max_duration:
        findings.key(("lend", "min_runtime"), "min_runtime is longer than max_duration")
    rules = deny_rules(form.deny, policy, findings)
    unique_ids(form.models, form.deny, {}, findings)
    return replace(policy, deny=rules)


def models_of(
    form: ModelsForm, accounts: Mapping[str, AccountRule], sites: Iterable[str], findings: Findings
) -> Models:
    """Return what may run."""
    known = sorted(sites)
    rules = []
    for at, rule in enumerate(form.rules):
        path: Path = ("models", "rules", at)
        if not rule.only_at and not rule.only_for:
            findings.value(path, f"rule {rule.id!r} restricts nothing", "only_at or only_for")
        _says_something(rule.match, (*path, "match"), findings)
        for place, site in enumerate(rule.only_at):
            findings.known((*path, "only_at", place), site, known, "site")
        check_exist((*path, "only_for"), rule.only_for, accounts, findings)
        where = findings.tree.value(path).where
        match = _model_match(rule.match)
        rules.append(ModelRule(rule.id, match, tuple(rule.only_at), tuple(rule.only_for), where))
    return Models(tuple(form.publishers), tuple(form.licences), form.max_size, tuple(rules))


def deny_rules(forms: Sequence[DenyForm], policy: Policy, findings: Findings) -> tuple[DenyRule, ...]:
    """Return the deny rules; what they name must be in the policy."""
    sites = sites_of(policy.accounts)
    rules = []
    for at, rule in enumerate(forms):
        path: Path = ("deny", at, "match")
        match = rule.match
        _says_something(match, path, findings)
        check_exist((*path, "accounts"), match.accounts, policy.accounts, findings)
        for key, words, among, what in (
            ("classes", match.classes, policy.classes, "class"),
            ("purposes", match.purposes, policy.purposes, "purpose"),
            ("device_classes", match.device_classes, policy.device_classes, "device class"),
            ("sites", match.sites, sites, "site"),
        ):
            for place, word in enumerate(words):
                findings.known((*path, key, place), word, among, what)
        rules.append(DenyRule(rule.id, match_of(match), rule.reason, findings.tree.value(("deny", at)).where))
    return tuple(rules)


def unique_ids(
    models: ModelsForm, deny: Sequence[DenyForm], taken: Mapping[str, Where | None], findings: Findings
) -> None:
    """Add a problem for each id that another rule has."""
    seen: dict[str, object] = dict.fromkeys(BUILT_IN_RULES, "the program") | dict(taken)
    places: list[tuple[str, Path]] = [
        (rule.id, ("models", "rules", at, "id")) for at, rule in enumerate(models.rules)
    ]
    places += [(rule.id, ("deny", at, "id")) for at, rule in enumerate(deny)]
    for name, path in places:
        if name in seen:
            findings.value(path, f"another rule is called {name!r}: {seen[name]}", "an id of its own")
        seen.setdefault(name, findings.tree.value(path).where)


def match_of(form: MatchForm) -> Match:
    """Return a match as the value that decisions read."""
    return Match(
        accounts=tuple(form.accounts),
        classes=tuple(form.classes),
        purposes=tuple(form.purposes),
        device_classes=tuple(form.device_classes),
        models=tuple(form.models),
        publishers=tuple(form.publishers),
        licences=tuple(form.licences),
        sites=tuple(form.sites),
        regions=tuple(form.regions),
        hours=tuple(form.hours),
        larger_than_bytes=form.larger_than,
    )


def _model_match(form: ModelMatchForm) -> Match:
    return Match(
        models=tuple(form.models),
        publishers=tuple(form.publishers),
        licences=tuple(form.licences),
        larger_than_bytes=form.larger_than,
    )


def _says_something(form: ModelMatchForm, path: Path, findings: Findings) -> None:
    if not form.model_dump(exclude_defaults=True):
        findings.key(path, "a match without fields holds for every request", "at least one field")
