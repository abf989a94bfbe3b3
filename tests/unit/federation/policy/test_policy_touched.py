"""Which running leases a change touches: those that were permitted and would be refused."""

from __future__ import annotations

from pathlib import Path

from federation.policy.file import PolicyFile, read_policy
from federation.policy.policy import Policy
from federation.policy.touched import RunningLease, touched

SHIPPED = (Path(__file__).parents[4] / "policies/consortium.yaml").read_text()
LEASE = RunningLease("1", "/uni-a/biology", "uni-a/m", "uni-b", "uni-a")


def after(old: str, new: str) -> Policy:
    assert old in SHIPPED
    return read_policy(SHIPPED.replace(old, new).encode(), "after.yaml").policy


def test_nothing_touches_nothing(shipped: PolicyFile) -> None:
    """The same policy refuses nobody; a lease that was not permitted before is no news."""
    unknown = RunningLease("2", "/nobody", "uni-a/m", "uni-b", "uni-a")
    assert touched(shipped.policy, shipped.policy, [LEASE, unknown]) == ()
    assert touched(shipped.policy, after("headroom: 0", "headroom: 1"), [LEASE, unknown]) == ()


def test_a_lease_of_an_account_that_is_lent_nothing_any_more(shipped: PolicyFile) -> None:
    """It names the rule and its line in the later file."""
    (one,) = touched(
        shipped.policy, after("  to: [any]", "  to: [/uni-b, /college-d, /uni-a/teaching]"), [LEASE]
    )
    assert (one.rule_id, one.purposes) == ("lend.to", ())
    assert one.where is not None
    assert one.where.file == "after.yaml"


def test_what_a_list_does_not_say_is_not_guessed(shipped: PolicyFile) -> None:
    """Without its purpose a lease may be touched; with it, it is or is not."""
    policy = after("purposes: [commercial], sites: [institute-c]", "purposes: [commercial]")
    (one,) = touched(shipped.policy, policy, [LEASE])
    assert one.purposes == ("commercial",)
    research = RunningLease("3", "/uni-a/biology", "uni-a/m", "uni-b", "uni-a", "research")
    assert touched(shipped.policy, policy, [research]) == ()
