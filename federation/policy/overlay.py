"""A donor's overlay: what it lends more strictly than its consortium, and the policy that both make together.

Rules: an overlay restricts and never loosens: what is permitted under both is permitted under the policy
alone, and no term promises a guest more. A field that would loosen is a problem at its place. What the
overlay does not speak of stays as it is. Not here: whether the donor lends at all; that is its own to say
at any time, without a file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from federation.policy.account_tree import sites_of
from federation.policy.build import deny_rules, models_of, unique_ids
from federation.policy.cases import Case, cases_of
from federation.policy.file import expect_kind, read_form
from federation.policy.findings import Findings
from federation.policy.form import DataForm, ModelsForm, OverlayForm, OverlayLendForm
from federation.policy.hours import minutes_of
from federation.policy.permit import within_any
from federation.policy.policy import ANY, Data, Lend, Models, Policy, Where
from federation.policy.problems import PolicyProblemsError, closest
from federation.policy.tree import Path, Tree, read_tree
from federation.policy.units import write_duration, write_size


@dataclass(frozen=True, slots=True)
class Overlay:
    """A donor's overlay as its file says it; ``restrict`` makes it count.

    Args:
        site: the donor.
        consortium: the name of the policy that it goes with.
        version: rises with each change.
        digest: SHA-256 of the file's bytes, hex.
        form: what the file says.
        tree: where it says it.
    """

    site: str
    consortium: str
    version: int
    digest: str
    form: OverlayForm
    tree: Tree


@dataclass(frozen=True, slots=True)
class Restricted:
    """A consortium's policy under a donor's overlay.

    Args:
        policy: what the donor decides by.
        cases: the overlay's own tests.
    """

    policy: Policy
    cases: tuple[Case, ...]


def read_overlay(data: bytes, file: str) -> Overlay:
    """Return the overlay of a file.

    Raises:
        PolicyProblemsError: with every problem of its shape.
    """
    tree = read_tree(data, file)
    expect_kind(tree, "overlay")
    form = read_form(tree, OverlayForm)
    return Overlay(form.site, form.consortium, form.version, hashlib.sha256(data).hexdigest(), form, tree)


def restrict(policy: Policy, overlay: Overlay) -> Restricted:
    """Return the policy that a donor decides by.

    Raises:
        PolicyProblemsError: with each place at which the overlay loosens, or names what there is not.
    """
    form, findings = overlay.form, Findings(overlay.tree)
    sites = sites_of(policy.accounts)
    findings.known(("site",), form.site, sites, "site")
    if form.consortium != policy.name:
        findings.value(("consortium",), f"this overlay is for {form.consortium!r}", policy.name, policy.name)
    taken = {rule.id: rule.where for rules in (policy.models.rules, policy.deny) for rule in rules}
    unique_ids(form.models, form.deny, taken, findings)
    models = _models(policy, models_of(form.models, policy.accounts, sites, findings), form.models, findings)
    combined = replace(
        policy,
        lend=_lend(policy.lend, form.lend, policy, findings),
        models=models,
        data=_data(policy.data, form.data, findings),
        deny=(*policy.deny, *deny_rules(form.deny, policy, findings)),
        overlay_digest=overlay.digest,
        places=dict(policy.places) | _places(overlay.tree),
    )
    cases = cases_of(form.tests, combined, findings, donor=form.site)
    if findings.problems:
        raise PolicyProblemsError(findings.problems)
    return Restricted(combined, cases)


def _places(tree: Tree) -> dict[str, Where]:
    parts: tuple[Path, ...] = (
        ("lend", "to"),
        ("models", "publishers"),
        ("models", "licences"),
        ("models", "max_size"),
        ("data", "regions"),
    )
    return {".".join(map(str, path)): tree.keys[path].where for path in parts if path in tree.keys}


def _lend(base: Lend, form: OverlayLendForm, policy: Policy, findings: Findings) -> Lend:
    def at_most(key: str, given: int | None, limit: int) -> int:
        if given is None:
            return limit
        if given > limit:
            message = f"{key} is longer than the consortium's {write_duration(limit)}"
            findings.value(("lend", key), message, f"at most {write_duration(limit)}", write_duration(limit))
        return given

    if form.headroom is not None and form.headroom < base.headroom_devices:
        message = f"the consortium keeps {base.headroom_devices} devices free"
        findings.value(("lend", "headroom"), message, f"at least {base.headroom_devices}")
    for at, account in enumerate(form.to or ()):
        if account == ANY and ANY not in base.to:
            findings.value(
                ("lend", "to", at), "the consortium does not lend to everybody", ", ".join(base.to)
            )
        elif account != ANY and not within_any(account, base.to):
            findings.value(
                ("lend", "to", at), f"the consortium does not lend to {account}", ", ".join(base.to)
            )
        elif account != ANY and account not in policy.accounts:
            findings.value(
                ("lend", "to", at),
                f"there is no account {account!r}",
                "an account of the tree",
                closest(account, policy.accounts),
            )
    if form.hours and minutes_of(form.hours) & ~minutes_of(base.hours):
        findings.key(("lend", "hours"), "these hours are not within the consortium's", ", ".join(base.hours))
    return replace(
        base,
        grace_s=at_most("grace", form.grace, base.grace_s),
        batch_grace_s=at_most("batch_grace", form.batch_grace, base.batch_grace_s),
        instant_grace_s=at_most("instant_grace", form.instant_grace, base.instant_grace_s),
        min_runtime_s=at_most("min_runtime", form.min_runtime, base.min_runtime_s),
        max_duration_s=at_most("max_duration", form.max_duration, base.max_duration_s),
        headroom_devices=base.headroom_devices if form.headroom is None else form.headroom,
        to=base.to if form.to is None else tuple(form.to),
        hours=tuple(form.hours) or base.hours if form.hours is not None else base.hours,
    )


def _models(policy: Policy, own: Models, form: ModelsForm, findings: Findings) -> Models:
    base = policy.models
    publishers = _within("publishers", own.publishers, base.publishers, findings)
    licences = _within("licences", own.licences, base.licences, findings)
    limit = _at_most_bytes(("models", "max_size"), form.max_size, base.max_bytes, findings)
    return Models(publishers, licences, limit, (*base.rules, *own.rules))


def _within(key: str, own: tuple[str, ...], base: tuple[str, ...], findings: Findings) -> tuple[str, ...]:
    """Return an overlay's list; each word of it must be one that the consortium allows."""
    path: Path = ("models", key)
    if path not in findings.tree.keys or ANY in base:
        return own if path in findings.tree.keys else base
    for at, word in enumerate(own):
        if word not in base:
            message = (
                "the consortium does not allow all"
                if word == ANY
                else f"the consortium does not allow {word!r}"
            )
            findings.value((*path, at), message, f"some of {', '.join(base)}", closest(word, base))
    return own


def _data(base: Data, form: DataForm, findings: Findings) -> Data:
    for at, region in enumerate(form.regions):
        if base.regions and region not in base.regions:
            message = f"the consortium keeps images out of {region!r}"
            findings.value(("data", "regions", at), message, ", ".join(base.regions))
    return Data(
        _at_most_bytes(("data", "egress_per_day"), form.egress_per_day, base.egress_bytes_per_day, findings),
        _at_most_bytes(("data", "source_per_s"), form.source_per_s, base.source_bytes_per_s, findings),
        tuple(form.regions) or base.regions,
    )


def _at_most_bytes(path: Path, given: int | None, limit: int | None, findings: Findings) -> int | None:
    if given is None or limit is None:
        return limit if given is None else given
    if given > limit:
        message = f"{path[-1]} is more than the consortium's {write_size(limit)}"
        findings.value(path, message, f"at most {write_size(limit)}", write_size(limit))
    return given
