"""Which policy this site goes by at a moment, and whether it lends under it: a function of values, no I/O.

Rules:

- which of the published versions counts, and what opting out of one means, is ``federation.policy.in_force``;
- a version that cannot be read here leaves the one before in force, and that is said: the signers published
  only what they could read, so this agent is probably too old;
- a donor's overlay restricts the version in force. Where there is one that cannot be used, the site lends
  nothing rather than more than its people meant to: an overlay that is damaged leaves the one before in
  force, and one that does not fit the version in force stops lending; it is said as soon as the version is
  known, while there is time to mend it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from federation.errors import FederationError, PolicyFileError
from federation.policy.file import read_policy
from federation.policy.in_force import PolicyInForce
from federation.policy.overlay import Overlay, read_overlay, restrict
from federation.policy.policy import Policy
from federation.registry.membership import PolicyText
from federation.registry.policies import policy_path


@dataclass(frozen=True, slots=True)
class Version:
    """A published version as it reads here; without ``policy`` there is a ``fault``."""

    text: PolicyText
    policy: Policy | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class OverlayFile:
    """A donor's overlay file as it stands.

    Args:
        data: the bytes of the file that was read; empty when there is no file.
        overlay: what it says, or what the last one that could be read says.
        fault: why the file as it stands is not in force.
        lost: there is a file, it cannot be read, and no earlier one is known.
    """

    data: bytes = b""
    overlay: Overlay | None = None
    fault: str = ""
    lost: bool = False


@dataclass(frozen=True, slots=True)
class InForce:
    """What holds now.

    Args:
        policy: what this donor decides by, its overlay in it; ``None``: the consortium has none in force.
        base: the version itself, as all sites have it.
        overlay: the version of the overlay in it; 0: none.
        why_not: why this site lends nothing under it; empty: it lends.
        upcoming: the versions to come, each with its time, in order.
        faults: what is wrong and must be said, one sentence each.
    """

    policy: Policy | None = None
    base: Policy | None = None
    overlay: int = 0
    why_not: str = ""
    upcoming: tuple[tuple[int, int], ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def lends(self) -> bool:
        """Whether this site lends under it."""
        return not self.why_not


def read_versions(
    texts: Iterable[PolicyText], consortium: str, known: Mapping[str, Version]
) -> dict[str, Version]:
    """Return published versions by digest, those in ``known`` as they were read before."""
    found = {}
    for text in texts:
        before = known.get(text.digest)
        found[text.digest] = before if before is not None and before.text == text else _read(text, consortium)
    return found


def read_overlay_file(data: bytes | None, file: str, before: OverlayFile) -> OverlayFile:
    """Return an overlay file as it stands now.

    Args:
        data: its bytes; ``None``: there is no file.
        file: its name for people.
        before: how it stood.
    """
    if data is None:
        return OverlayFile()
    if data == before.data:
        return before
    try:
        return OverlayFile(data, read_overlay(data, file))
    except FederationError as error:
        return OverlayFile(data, before.overlay, error.message, lost=before.overlay is None)


def known_versions(versions: Iterable[Version], opted_out: frozenset[int]) -> PolicyInForce:
    """Return the versions that can be read here, past ones as well."""
    readable = {one.text.version: one.policy for one in versions if one.policy is not None}
    return PolicyInForce(readable, opted_out=opted_out)


def in_force(
    versions: Sequence[Version], overlay: OverlayFile, opted_out: frozenset[int], site: str, now_s: float
) -> InForce:
    """Return what holds at a time.

    Args:
        versions: all that are published, in order.
        overlay: the donor's.
        opted_out: versions under which this site has said in time that it will not lend.
        site: this one's name.
        now_s: Unix time.
    """
    coming = [one for one in versions if one.text.effective_at_s > now_s]
    begun = versions[: len(versions) - len(coming)]
    upcoming = tuple((one.text.version, one.text.effective_at_s) for one in coming)
    # One that cannot be read matters when it is in force or to come; the past is past.
    faults = [one.fault for one in (*begun[-1:], *coming) if one.policy is None]
    if overlay.fault:
        stays = "; the one before it stays in force." if overlay.overlay is not None else "."
        faults.append(f"the overlay: {overlay.fault.rstrip('.')}{stays}")
    for one in coming:
        if one.policy is not None:
            faults += _fitted(one.policy, overlay.overlay, site)[1]
    known = known_versions(versions, opted_out)
    base = known.at(int(now_s))
    if base is None:
        why = "no version of the policy that is in force can be read here" if begun else ""
        return InForce(why_not=why, upcoming=upcoming, faults=tuple(faults))
    policy, unfit = _fitted(base, overlay.overlay, site)
    faults += unfit
    why_not = ""
    if unfit:
        why_not = f"its overlay does not fit version {base.version} of the policy"
    elif overlay.lost:
        why_not = "its overlay cannot be read"
    elif not known.lends(int(now_s)):
        why_not = f"it has opted out of version {base.version} of the policy"
    number = overlay.overlay.version if overlay.overlay is not None and not unfit else 0
    return InForce(policy, base, number, why_not, upcoming, tuple(faults))


def _read(text: PolicyText, consortium: str) -> Version:
    name = policy_path(text.version)
    try:
        policy = read_policy(text.data, name).policy
    except FederationError as error:
        return Version(
            text, None, f"version {text.version} of the policy cannot be read here: {error.message}"
        )
    said = (policy.name, policy.version, policy.effective_at_s, policy.digest)
    if said != (consortium, text.version, text.effective_at_s, text.digest):
        return Version(text, None, f"{name} is not the policy that the registry's list says it is.")
    return Version(text, policy)


def _fitted(policy: Policy, overlay: Overlay | None, site: str) -> tuple[Policy, list[str]]:
    """Return a policy with an overlay in it, or why that does not fit."""
    if overlay is None:
        return policy, []
    try:
        if overlay.site != site:
            raise PolicyFileError(f"it is the overlay of {overlay.site}, and this is {site}.")
        return restrict(policy, overlay).policy, []
    except FederationError as error:
        return policy, [f"the overlay does not fit version {policy.version}: {error.message}"]
