"""The policy of a trace that comes without one: every institution of it has the same weight."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from agent.replay.trace import Job
from agent.replay.world import DEVICE_CLASS
from federation.policy.policy import ANY, PER_MILLE, AccountRule, ClassRule, Policy, PurposeRule


def alike(jobs: Iterable[Job]) -> Policy:
    """Return a policy under which a trace's accounts and purposes are known, classes have no reserve.

    Groups and projects below an institution share alike as well. All else is as in a policy that does not
    speak of it.
    """
    sites: dict[str, set[str]] = {}
    classes: dict[str, set[str]] = {}
    purposes: set[str] = set()
    for job in jobs:
        if job.local:
            continue
        path = f"/{job.institution}"
        sites.setdefault(path, set()).add(job.site)
        if job.account_class:
            classes.setdefault(path, set()).add(job.account_class)
        purposes.add(job.purpose)
    accounts = {
        path: AccountRule(
            path=path,
            weight=1,
            classes=tuple(sorted(classes.get(path, ()))),
            sites=tuple(sorted(sites[path])),
            attested_by=dict.fromkeys(sorted(classes.get(path, ())), "consortium"),
            open=True,
        )
        for path in sorted(sites)
    }
    named = sorted({name for some in classes.values() for name in some})
    return Policy(
        name="alike",
        version=1,
        effective_at_s=0,
        digest=sha256(repr(sorted(accounts)).encode()).hexdigest(),
        accounts=accounts,
        classes={name: ClassRule(name, 0, ("consortium",)) for name in named},
        purposes={name: PurposeRule(name, PER_MILLE, (ANY,)) for name in sorted(purposes)},
        device_classes={DEVICE_CLASS: PER_MILLE},
    )
