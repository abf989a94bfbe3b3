"""What changes between two versions: exact shares, and every term that is not as it was."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from federation.policy.diff import Entry, diff, shares_of
from federation.policy.file import PolicyFile, read_policy

SHIPPED = (Path(__file__).parents[4] / "policies/consortium.yaml").read_text()


def test_shares_multiply_down_the_tree(shipped: PolicyFile) -> None:
    """A group has its part of what its institution has; institutions make up the whole."""
    shares = shares_of(shipped.policy)
    assert shares["/uni-a"] == Fraction(40, 110)
    assert shares["/uni-a/biology"] == Fraction(40, 110) * Fraction(2, 4)
    assert sum(share for path, share in shares.items() if path.count("/") == 1) == 1


def test_a_policy_does_not_differ_from_itself(shipped: PolicyFile) -> None:
    """Nothing gains, nothing changes."""
    assert diff(shipped.policy, shipped.policy).shares == ()
    assert diff(shipped.policy, shipped.policy).entries == ()


def test_gains_and_losses_balance(shipped: PolicyFile) -> None:
    """What one institution gains the others lose."""
    after = read_policy(SHIPPED.replace("weight: 40", "weight: 60", 1).encode(), "b").policy
    changes = [each for each in diff(shipped.policy, after).shares if each.account.count("/") == 1]
    assert sum(each.gain for each in changes) == 0
    assert changes[0].account == "/uni-a"
    assert changes[0].gain == Fraction(60, 130) - Fraction(40, 110)
    assert all(each.gain < 0 for each in changes[1:])


def test_each_kind_of_change_is_told(shipped: PolicyFile) -> None:
    """Reserves, purposes, charges, terms and rules: what was and what will be."""
    text = (
        SHIPPED.replace("reserve: 5%", "reserve: 8%")
        .replace("  commercial: {factor: 2, claimants: [any]}", "  industry: {factor: 2, claimants: [any]}")
        .replace("purposes: [commercial]", "purposes: [industry]")
        .replace("a100: 0.5", "a100: 0.6")
        .replace("grace: 10s", "grace: 20s", 1)
        .replace("id: big-models-by-day", "id: large-by-day")
        .replace("rule: big-models-by-day", "rule: large-by-day")
    )
    entries = {
        (each.section, each.name): each
        for each in diff(shipped.policy, read_policy(text.encode(), "b").policy).entries
    }
    assert entries["reserve", "newcomer"].before.startswith("reserve 5%;")
    assert entries["reserve", "newcomer"].after.startswith("reserve 8%;")
    assert entries["purpose", "commercial"].kind == "removed"
    assert entries["purpose", "industry"].kind == "added"
    assert entries["charge", "a100"] == Entry("charge", "a100", "changed", "0.5", "0.6")
    assert entries["lend", "grace_s"] == Entry("lend", "grace_s", "changed", "10s", "20s")
    assert entries["deny", "big-models-by-day"].kind == "removed"
    assert entries["deny", "large-by-day"].kind == "added"
    assert entries["deny", "no-commercial-at-institute-c"].kind == "changed"
    assert len(entries) == 8


def test_an_account_that_goes_loses_everything(shipped: PolicyFile) -> None:
    """It stands among the losers with nothing after."""
    text = SHIPPED.replace("      history: {weight: 1}\n", "")
    lost = [
        each for each in diff(shipped.policy, read_policy(text.encode(), "b").policy).shares if not each.after
    ]
    assert [each.account for each in lost] == ["/uni-a/history"]
