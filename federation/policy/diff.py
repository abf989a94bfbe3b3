"""What changes between two versions of a policy: who gains, who loses, and which rules come and go.

Rules: shares are nominal: what an account is due of the whole when every account wants something, as exact
fractions. Open accounts that no file names have no share here. Terms are compared field by field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Final, Literal

from federation.policy.policy import Match, Policy
from federation.policy.units import (
    write_duration,
    write_percent,
    write_ratio,
    write_size,
    write_time,
    write_use,
)

Kind = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class ShareChange:
    """An account's nominal share of the whole, before and after; 0: it is not there."""

    account: str
    before: Fraction
    after: Fraction

    @property
    def gain(self) -> Fraction:
        """What it gains; negative: loses."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Entry:
    """One part of the file that is not as it was; ``before`` or ``after`` is empty where it was not there."""

    section: str
    name: str
    kind: Kind
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes.

    Args:
        shares: accounts whose share changes, those who gain most first.
        entries: everything else, by section.
    """

    shares: tuple[ShareChange, ...]
    entries: tuple[Entry, ...]


def diff(before: Policy, after: Policy) -> Difference:
    """Return what changes from one policy to another."""
    old, new = shares_of(before), shares_of(after)
    changes = [
        ShareChange(account, old.get(account, Fraction(0)), new.get(account, Fraction(0)))
        for account in sorted({*old, *new})
    ]
    moved = sorted((each for each in changes if each.gain), key=lambda each: (-each.gain, each.account))
    first, second = _written(before), _written(after)
    entries = []
    for key in [*first, *(key for key in second if key not in first)]:
        was, now = first.get(key, ""), second.get(key, "")
        if was != now:
            kind: Kind = "changed" if was and now else "added" if now else "removed"
            entries.append(Entry(*key, kind, was, now))
    return Difference(tuple(moved), tuple(sorted(entries, key=lambda each: _SECTIONS.index(each.section))))


def shares_of(policy: Policy) -> dict[str, Fraction]:
    """Return each account's nominal share of the whole."""
    siblings: dict[str, int] = {}
    for path, rule in policy.accounts.items():
        above = path.rpartition("/")[0]
        siblings[above] = siblings.get(above, 0) + rule.weight
    shares: dict[str, Fraction] = {}
    for path, rule in policy.accounts.items():  # parents come first
        above = path.rpartition("/")[0]
        shares[path] = shares.get(above, Fraction(1)) * Fraction(rule.weight, siblings[above])
    return shares


_SECTIONS: Final = (
    "policy",
    "account",
    "reserve",
    "purpose",
    "charge",
    "decay",
    "caps",
    "lend",
    "models",
    "data",
    "carbon",
    "deny",
)


def _written(policy: Policy) -> dict[tuple[str, str], str]:
    """Return everything but shares as text by section and name."""
    text = {
        ("policy", "name"): policy.name,
        ("policy", "version"): str(policy.version),
        ("policy", "effective_at"): write_time(policy.effective_at_s),
        ("policy", "notice"): write_duration(policy.notice_s),
    }
    for path, rule in policy.accounts.items():
        classes = [f"{name} (by {rule.attested_by[name]})" for name in rule.classes]
        openness = ["open"] if rule.open else []
        text["account", path] = "; ".join([f"asks through {_listed(rule.sites)}", *openness, *classes])
    for name, each in policy.classes.items():
        until = [f"until {write_use(each.until_msgs)} used"] if each.until_msgs is not None else []
        until += [f"until {write_time(each.until_s)}"] if each.until_s is not None else []
        reserve = f"reserve {write_percent(each.reserve_permille)}"
        text["reserve", name] = "; ".join([reserve, f"attested by {_listed(each.attesters)}", *until])
    for name, purpose in policy.purposes.items():
        factor = write_ratio(purpose.factor_permille)
        text["purpose", name] = f"factor {factor}, for {_listed(purpose.claimants)}"
    for name, rho in policy.device_classes.items():
        text["charge", name] = write_ratio(rho)
    text["charge", "idle_discount"] = write_ratio(policy.idle_discount_permille)
    for section, part in (
        ("decay", policy.decay),
        ("caps", policy.caps),
        ("lend", policy.lend),
        ("data", policy.data),
        ("carbon", policy.carbon),
    ):
        for name in (each.name for each in fields(part) if each.name != "where"):
            text[section, name] = _value(name, getattr(part, name))
    models = policy.models
    text["models", "publishers"] = _listed(models.publishers)
    text["models", "licences"] = _listed(models.licences)
    text["models", "max_bytes"] = _value("max_bytes", models.max_bytes)
    for rule_of_models in models.rules:
        only = f"only at {_listed(rule_of_models.only_at)}, for {_listed(rule_of_models.only_for)}"
        text["models", rule_of_models.id] = f"{write_match(rule_of_models.match)}: {only}"
    for deny in policy.deny:
        text["deny", deny.id] = f"{write_match(deny.match)}: {deny.reason}"
    return text


def write_match(match: Match) -> str:
    """Return a match in one line."""
    parts = []
    for each in fields(match):
        value = getattr(match, each.name)
        if value is not None and value != ():
            parts.append(f"{each.name.removesuffix('_bytes')} {_value(each.name, value)}")
    return ", ".join(parts)


def _value(name: str, value: object) -> str:
    if value is None:
        return "no bound"
    if isinstance(value, tuple):
        return _listed(value)
    assert isinstance(value, int)
    for suffix, write in _WRITERS.items():
        if name.endswith(suffix):
            return write(value)
    return str(value)


_WRITERS: Final[Mapping[str, Callable[[int], str]]] = {
    "bytes_per_s": write_size,
    "bytes_per_day": write_size,
    "_bytes": write_size,
    "_permille": write_ratio,
    "_s": write_duration,
}


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join("any" if word == "*" else word for word in words) or "any"
