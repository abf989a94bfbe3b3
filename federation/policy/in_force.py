"""Which version of a policy counts at a time, given the versions that have been seen.

Rules: every agent goes over to a version at its ``effective_at``, a multiple of the epoch, whenever it got to
know of it: the highest version whose time has come counts. A file that is bad, of another consortium, or a
second one of a known version never replaces what is in force; it is kept as a rejection, so that ``status``
can say it. An older version changes nothing. Until its time a donor may opt out of a version: it then lends
to nobody while that one counts, since others rank by it; it never goes on by an old one alone.

Not here: signatures (the registry's), reading files, clocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from federation.errors import PolicyFileError
from federation.fairshare.decay import EPOCH_S
from federation.policy.policy import Policy
from federation.policy.units import write_duration, write_time

_MAX_REJECTIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Rejection:
    """A file that was not taken, and why."""

    digest: str
    at_s: int
    sentence: str


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """The versions that an agent knows.

    Args:
        versions: taken ones by version; never empty after the first.
        rejections: the newest last.
        opted_out: versions under which this donor lends to nobody.
    """

    versions: Mapping[int, Policy] = field(default_factory=dict)
    rejections: tuple[Rejection, ...] = ()
    opted_out: frozenset[int] = frozenset()

    def at(self, now_s: int) -> Policy | None:
        """Return the version that counts; ``None``: none does yet."""
        due = [each for each in self.versions.values() if each.effective_at_s <= now_s - now_s % EPOCH_S]
        return max(due, key=lambda each: each.version, default=None)

    def coming(self, now_s: int) -> Policy | None:
        """Return the next version that will count, if one is known."""
        current = self.at(now_s)
        later = [
            each
            for each in self.versions.values()
            if each.effective_at_s > now_s - now_s % EPOCH_S
            and (current is None or each.version > current.version)
        ]
        return min(later, key=lambda each: (each.effective_at_s, -each.version), default=None)

    def lends(self, now_s: int) -> bool:
        """Return whether this donor lends under the version that counts."""
        current = self.at(now_s)
        return current is not None and current.version not in self.opted_out

    def seen(self, policy: Policy, now_s: int) -> PolicyInForce:
        """Return what is known after a good file was seen."""
        known = self.versions.get(policy.version)
        if known is not None:
            if known.digest == policy.digest:
                return self
            sentence = f"version {policy.version} is known with other bytes ({known.digest[:12]})"
            return self.rejected(policy.digest, sentence, now_s)
        names = {each.name for each in self.versions.values()}
        if names and policy.name not in names:
            return self.rejected(policy.digest, f"it is the policy of {policy.name!r}", now_s)
        current = self.at(now_s)
        if current is not None and policy.version < current.version:
            return self
        kept = {
            version: each
            for version, each in self.versions.items()
            if current is None or version >= current.version
        }
        return replace(self, versions=kept | {policy.version: policy})

    def rejected(self, digest: str, sentence: str, now_s: int) -> PolicyInForce:
        """Return what is known after a bad file was seen: what was in force is."""
        if any(each.digest == digest for each in self.rejections):
            return self
        rejections = (*self.rejections, Rejection(digest, now_s, sentence))
        return replace(self, rejections=rejections[-_MAX_REJECTIONS:])

    def opt_out(self, version: int, now_s: int) -> PolicyInForce:
        """Return what is known after this donor said that it will not lend under a version.

        Raises:
            PolicyFileError: the version is not known, or counts already.
        """
        policy = self.versions.get(version)
        if policy is None:
            raise PolicyFileError(
                f"no version {version} of the policy is known.", fix="name one that is coming"
            )
        if policy.effective_at_s <= now_s - now_s % EPOCH_S:
            raise PolicyFileError(
                f"version {version} counts since {write_time(policy.effective_at_s)}.",
                fix="withdraw the devices, or restrict them with an overlay",
            )
        return replace(self, opted_out=self.opted_out | {version})

    def opt_in(self, version: int) -> PolicyInForce:
        """Return what is known after this donor took that back."""
        return replace(self, opted_out=self.opted_out - {version})


def check_successor(before: Policy, after: Policy, published_s: int) -> tuple[str, ...]:
    """Return why a policy may not follow another one, published at a time; nothing: it may."""
    faults = []
    if after.name != before.name:
        faults.append(f"it is the policy of {after.name!r}, not of {before.name!r}")
    if after.version <= before.version:
        faults.append(f"its version is {after.version}; one after {before.version} is expected")
    earliest_s = published_s + before.notice_s
    if after.effective_at_s < earliest_s:
        faults.append(
            f"it counts from {write_time(after.effective_at_s)}, and the version before it promises "
            f"{write_duration(before.notice_s)} of notice: "
            f"{write_time(earliest_s + -earliest_s % EPOCH_S)} or later"
        )
    return tuple(faults)
