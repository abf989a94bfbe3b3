"""The account tree of a policy file: from nested mappings, or paths, to accounts by path.

Rules: it is a tree of three levels at most, each account once, each below one that is there; a class is
attested by who may; somebody may speak for each account. Sites and openness are inherited here, so that a
decision looks at one account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from federation.errors import FederationInputError
from federation.fairshare.accounts import ancestors, check_account, institution
from federation.identity.names import check_label
from federation.limits import MAX_ACCOUNTS
from federation.policy.findings import Findings
from federation.policy.form import AccountForm
from federation.policy.policy import ANY, AccountRule, ClassRule
from federation.policy.problems import closest
from federation.policy.tree import Path


def sites_of(accounts: Mapping[str, AccountRule]) -> frozenset[str]:
    """Return the sites that the account tree names."""
    return frozenset(site for rule in accounts.values() for site in rule.sites)


def exists(account: str, known: Mapping[str, AccountRule]) -> bool:
    """Return whether the tree has an account, by name or because the nearest one above is open."""
    for path in reversed(ancestors(account)):
        rule = known.get(path)
        if rule is not None:
            return path == account or rule.open
    return False


def check_exist(
    path: Path, accounts: Sequence[str], known: Mapping[str, AccountRule], findings: Findings
) -> None:
    """Add a problem for each account that the tree does not have and no open account would."""
    for at, account in enumerate(accounts):
        if account != ANY and not exists(account, known):
            meant = closest(account, known)
            findings.value((*path, at), f"there is no account {account!r}", "an account of the tree", meant)


def accounts_of(forms: Mapping[str, AccountForm], findings: Findings) -> dict[str, AccountRule]:
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


def check_attested(
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
        check_attested(form.accounts, (*here, "accounts"), classes, findings)
