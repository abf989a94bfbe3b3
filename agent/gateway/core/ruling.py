"""What changes the rules: another policy, another standing, the time of day, what the site has sent."""

from __future__ import annotations

from dataclasses import replace

from agent.gateway.core.change import Change
from agent.gateway.core.events import ClockRead, EgressCounted, PolicyChanged, StandingChanged
from agent.gateway.core.law import Egress, Law
from federation.fairshare.charging import Charges
from federation.fairshare.decay import epoch_of
from federation.fairshare.standing import standing_of


def rule_by(change: Change, event: PolicyChanged) -> None:
    """Go over to another policy; leases keep the terms that their borrowers accepted."""
    law = replace(change.law, policy=event.policy)
    standing = None
    if event.policy is not None:
        known = law.standing
        standing = (
            standing_of(event.policy, epoch_of(law.unix(change.now_s)))
            if known is None
            else replace(known, policy=event.policy, policy_digest=event.policy.digest)
        )
    _stand(change, replace(law, standing=standing))


def stand(change: Change, event: StandingChanged) -> None:
    """Rank by another standing; without a policy nobody is ranked.

    Its policy is the consortium's, as all have it; the one in force may be a donor's own restriction of it.
    """
    if change.law.policy is not None:
        _stand(change, replace(change.law, standing=event.standing))


def read_clock(change: Change, event: ClockRead) -> None:
    """Take over what time it is for people."""
    change.law = replace(
        change.law, unix_s=event.unix_s, read_at_s=change.now_s, utc_offset_s=event.utc_offset_s
    )
    _look(change)


def count_egress(change: Change, event: EgressCounted) -> None:
    """Take over what the site has sent today."""
    change.law = replace(change.law, egress=Egress(event.used_bytes, change.now_s + event.renews_in_s))
    _look(change)


def _stand(change: Change, law: Law) -> None:
    change.law = law
    own = Charges() if law.policy is None else change.charges()
    change.queue = change.queue.ruled(law.standing, own)
    change.compare_s = change.now_s
    _look(change)


def _look(change: Change) -> None:
    change.look = True
