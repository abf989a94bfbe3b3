"""Which running leases a change of policy touches: what was permitted and no longer would be.

Rules: a lease is looked at as a request that is made again, by ``permit``, under both policies. What a list
of leases does not say (purpose, size, licence) is not guessed: where the purpose is missing, each that was
permitted is tried, and the answer says for which of them it would be refused. A change of policy ends no
lease: it is refused when it is asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from federation.policy.permit import Denied, Permitted, RequestFacts, classes_of, permit
from federation.policy.policy import Policy, Where


@dataclass(frozen=True, slots=True)
class RunningLease:
    """A lease as a list shows it; empty: the list does not say."""

    id: str
    account: str
    model: str
    donor_site: str
    borrower_site: str
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class Touched:
    """A lease that would be refused.

    Args:
        lease: which.
        rule_id: the rule that would refuse it.
        where: the rule's place in the later policy.
        sentence: why.
        purposes: those for which it would be refused; empty: for whatever purpose it has.
    """

    lease: RunningLease
    rule_id: str
    where: Where | None
    sentence: str
    purposes: tuple[str, ...]


def touched(before: Policy, after: Policy, leases: Iterable[RunningLease]) -> tuple[Touched, ...]:
    """Return the leases that were permitted before and would not be after."""
    found = []
    for lease in leases:
        purposes = (lease.purpose,) if lease.purpose else tuple(sorted(before.purposes))
        permitted = [each for each in purposes if isinstance(_asked(before, lease, each), Permitted)]
        answers = {each: _asked(after, lease, each) for each in permitted}
        refused = {each: answer for each, answer in answers.items() if isinstance(answer, Denied)}
        if refused:
            first = next(iter(refused.values()))
            some = tuple(refused) if len(refused) < len(permitted) else ()
            found.append(Touched(lease, first.rule_id, first.where, first.sentence, some))
    return tuple(found)


def _asked(policy: Policy, lease: RunningLease, purpose: str) -> Permitted | Denied:
    facts = RequestFacts(
        account=lease.account,
        borrower_site=lease.borrower_site,
        purpose=purpose,
        model=lease.model,
        donor_site=lease.donor_site,
    )
    classes = classes_of(policy, lease.account, {}, policy.effective_at_s)
    return permit(policy, replace(facts, classes=classes))
