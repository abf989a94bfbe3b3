"""From a valid form to the values of a policy, with the checks that need more than one field.

Rules: whoever is named exists: accounts, classes, purposes, device classes, sites, attesters; accounts are a
tree; ids are unique. Every problem is told with its place; nothing is repaired. The guarantee behind
reserves is checked in ``federation.policy.guarantee``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from federation.errors import FederationInputError
from federation.fairshare.accounts import ancestors, check_account, institution
from federation.fairshare.decay import EPOCH_S
from federation.identity.names import check_label
from federation.limits import MAX_ACCOUNTS
from federation.policy.form import AccountForm, DenyForm, MatchForm, ModelMatchForm, ModelsForm, PolicyForm
from federation.policy.permit import BUILT_IN_RULES
from federation.policy.policy import (
    ANY,
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
from federation.policy.problems import Problem, closest
from federation.policy.tree import Path, Tree
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


class Findings:
    """Collects problems of one file.

    Args:
        tree: the file's places.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.problems: list[Problem] = []

    def value(self, path: Path, message: str, expected: str = "", did_you_mean: str = "") -> None:
        """Add a problem with a value."""
        span = self.tree.value(path)
        self.problems.append(Problem(span.where, message, expected, did_you_mean, span.end_column))

    def key(self, path: Path, message: str, expected: str = "", did_you_mean: str = "") -> None:
        """Add a problem with a key, or with what is missing below it."""
        span = self.tree.key(path)
        self.problems.append(Problem(span.where, message, expected, did_you_mean, span.end_column))

    def known(self, path: Path, word: str, among: Iterable[str], what: str) -> None:
        """Add a problem where a word names nothing."""
        names = sorted(among)
        if word not in names:
            listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            self.value(path, f"there is no {what} {word!r}", f"one of {listed}", closest(word, names))


def build(form: PolicyForm, findings: Findings, digest: str) -> Policy:
    """Return the policy of a form; what is wrong with it is added to the findings."""
    tree = findings.tree
    accounts = _accounts(form.accounts, findings)
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
    _attested(form.accounts, (), classes, findings)
    purposes = {
        name: PurposeRule(name, each.factor, tuple(each.claimants), tree.key(("purposes", name)).where)
        for name, each in form.purposes.items()
    }
    for name, purpose in purposes.items():
        _exist(("purposes", name, "claimants"), purpose.claimants, accounts, findings)
    lend, caps = form.lend, form.caps
    _exist(("lend", "to"), lend.to, accounts, findings)
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


def sites_of(accounts: Mapping[str, AccountRule]) -> frozenset[str]:
    """Return the sites that the account tree names."""
    return frozenset(site for rule in accounts.values() for site in rule.sites)


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
        _exist((*path, "only_for"), rule.only_for, accounts, findings)
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
        _exist((*path, "accounts"), match.accounts, policy.accounts, findings)
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


def _exist(path: Path, accounts: Sequence[str], known: Mapping[str, AccountRule], findings: Findings) -> None:
    """Add a problem for each account that the tree does not have and no open account would."""
    for at, account in enumerate(accounts):
        if account != ANY and not exists(account, known):
            meant = closest(account, known)
            findings.value((*path, at), f"there is no account {account!r}", "an account of the tree", meant)


def exists(account: str, known: Mapping[str, AccountRule]) -> bool:
    """Return whether the tree has an account, by name or because the nearest one above is open."""
    for path in reversed(ancestors(account)):
        rule = known.get(path)
        if rule is not None:
            return path == account or rule.open
    return False


def _accounts(forms: Mapping[str, AccountForm], findings: Findings) -> dict[str, AccountRule]:
    """Return the accounts by path, parents first; sites and their inheritance resolved."""
    found: dict[str, tuple[AccountForm, Path]] = {}
    _flatten(forms, "", ("accounts",), found, findings)
    if len(found) > MAX_ACCOUNTS:
        findings.key(("accounts",), f"there are {len(found)} accounts", f"at most {MAX_ACCOUNTS}")
    rules: dict[str, AccountRule] = {}
    for path in sorted(found, key=lambda each: (each.count("/"), each)):
        form, place = found[path]
        above = rules.get(path.rpartition("/")[0])
        if above is None and path.count("/") > 1:
            parent = path.rpartition("/")[0]
            findings.key(
                place, f"there is no account {parent!r} above it", "its parent, too", closest(parent, found)
            )
            continue
        sites = form.sites
        if sites is None:
            sites = [institution(path)] if above is None else list(above.sites)
        elif not sites:
            findings.key((*place, "sites"), "nobody could speak for this account", "at least one site")
        rules[path] = AccountRule(
            path,
            form.weight,
            tuple(sorted(form.classes)),
            tuple(sites),
            dict(form.classes),
            form.open if form.open is not None else above is not None and above.open,
            findings.tree.key(place).where,
        )
    return rules


def _flatten(
    forms: Mapping[str, AccountForm],
    above: str,
    place: Path,
    found: dict[str, tuple[AccountForm, Path]],
    findings: Findings,
) -> None:
    for name, form in forms.items():
        here: Path = (*place, name)
        path = name if name.startswith("/") and not above else f"{above}/{name}"
        try:
            if above:
                check_label(name, "account")
            check_account(path)
        except FederationInputError:
            folded = name.lower().replace("_", "-").replace(" ", "-")
            deep = "/" not in name and path.count("/") > 3
            message = f"{path} is below a project" if deep else f"{name!r} is no name of an account"
            expected = (
                "three levels: institution, group, project" if deep else "lower-case letters, digits, '-'"
            )
            findings.key(here, message, expected, "" if deep or folded == name or "/" in name else folded)
            continue
        if path in found:
            first = findings.tree.key(found[path][1]).where
            findings.key(here, f"{path} is here twice; the first one is in line {first.line}", "each once")
            continue
        found[path] = (form, here)
        _flatten(form.accounts, path, (*here, "accounts"), found, findings)


def _attested(
    forms: Mapping[str, AccountForm], place: Path, classes: Mapping[str, ClassRule], findings: Findings
) -> None:
    """Add a problem for each class of an account that is none, or that nobody may attest so."""
    for name, form in forms.items():
        here: Path = (*(place or ("accounts",)), name)
        for given, attester in form.classes.items():
            rule = classes.get(given)
            if rule is None:
                listed = ", ".join(sorted(classes)) or "none are defined"
                meant = closest(given, classes)
                findings.key((*here, "classes", given), f"there is no class {given!r}", listed, meant)
            elif attester not in rule.attesters:
                findings.value(
                    (*here, "classes", given),
                    f"{attester!r} may not attest the class {given!r}",
                    f"one of {', '.join(rule.attesters)}",
                    closest(attester, rule.attesters),
                )
        _attested(form.accounts, (*here, "accounts"), classes, findings)
