"""What a policy permits: one rule decides, by its name and line; classes end by use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation.policy.file import PolicyFile, read_policy
from federation.policy.permit import (
    Denied,
    Permitted,
    RequestFacts,
    claims,
    classes_of,
    may_speak_for,
    permit,
)
from federation.policy.policy import Policy

FACTS = RequestFacts(
    account="/uni-a/biology",
    borrower_site="uni-a",
    purpose="research",
    device_class="h100",
    model="uni-a/small",
    publisher="uni-a",
    licence="mit",
    total_bytes=10**9,
    donor_site="uni-b",
    donor_region="eu",
)
HOUR = 3600 * 1000


@pytest.fixture
def policy(shipped: PolicyFile) -> Policy:
    return shipped.policy


def rule_of(policy: Policy, **changes: object) -> str:
    answer = permit(policy, replace(FACTS, **changes))  # type: ignore[arg-type]
    return answer.rule_id if isinstance(answer, Denied) else ""


def test_what_no_rule_refuses_is_permitted(policy: Policy) -> None:
    """The plain case."""
    assert permit(policy, FACTS) == Permitted()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"account": "/nobody"}, "accounts.unknown"),
        ({"account": "/institute-c/x", "borrower_site": "institute-c"}, "accounts.unknown"),
        ({"borrower_site": "uni-b"}, "accounts.sites"),
        ({"purpose": "fun"}, "purposes.unknown"),
        ({"purpose": "teaching"}, "purposes.claimants"),
        ({"total_bytes": 801 * 10**9}, "models.max_size"),
        ({"model": "uni-b/clinical-70b"}, "clinical-at-home"),
        ({"purpose": "commercial", "donor_site": "institute-c"}, "no-commercial-at-institute-c"),
        ({"total_bytes": 500 * 10**9, "week_minute": 9 * 60}, "big-models-by-day"),
    ],
)
def test_the_deciding_rule_is_named(policy: Policy, changes: dict[str, object], rule: str) -> None:
    """By its section, or its own id; a sentence and a fix go with it."""
    answer = permit(policy, replace(FACTS, **changes))  # type: ignore[arg-type]
    assert isinstance(answer, Denied)
    assert answer.rule_id == rule
    assert answer.sentence
    assert answer.fix
    assert answer.where is not None or rule == "models.max_size"


def test_a_rule_of_hours_does_not_last(policy: Policy) -> None:
    """By night the same request is permitted, and the refusal says so."""
    answer = permit(policy, replace(FACTS, total_bytes=500 * 10**9, week_minute=9 * 60))
    assert isinstance(answer, Denied)
    assert not answer.lasting
    assert rule_of(policy, total_bytes=500 * 10**9, week_minute=20 * 60) == ""


def test_every_field_of_a_match_must_hold() -> None:
    """A rule with two fields does not hold where one of them does not."""
    text = (
        "version: 1\nname: lab\neffective_at: 2026-12-01T06:00Z\n"
        "accounts: {a: {}, b: {}}\npurposes: {x: {claimants: [any]}, y: {claimants: [any]}}\n"
        "device_classes: {h100: 1, cpu: 1}\n"
        "deny:\n  - {id: r, match: {accounts: [/a], purposes: [x], device_classes: [h100]}, reason: no}\n"
    )
    policy = read_policy(text.encode(), "p").policy
    base = RequestFacts(account="/a", borrower_site="a", purpose="x", device_class="h100", donor_site="b")
    assert isinstance(permit(policy, base), Denied)
    for other in (
        replace(base, account="/b", borrower_site="b"),
        replace(base, purpose="y"),
        replace(base, device_class="cpu"),
        replace(base, device_class=""),
    ):
        assert permit(policy, other) == Permitted()


def test_a_path_matches_what_is_below_it_and_no_namesake(policy: Policy) -> None:
    """``/uni-a`` speaks of ``/uni-a/x`` and not of ``/uni-ab``."""
    assert claims(policy, "/uni-a/teaching/ml", "teaching")
    assert not claims(policy, "/uni-a/teaching-staff", "teaching")
    assert not claims(policy, "/uni-a", "teaching")
    assert not claims(policy, "/uni-a/teaching", "no-such-purpose")


def test_sponsored_accounts_have_their_sponsors_sites(policy: Policy) -> None:
    """Only the sites that the policy names may speak for an account."""
    assert may_speak_for(policy, "uni-a", "/college-d")
    assert not may_speak_for(policy, "college-d", "/college-d")
    assert may_speak_for(policy, "uni-a", "/uni-a/not/entered")
    assert not may_speak_for(policy, "uni-b", "/uni-a/biology")
    assert not may_speak_for(policy, "institute-c", "/institute-c/x")


def test_classes_are_inherited_and_end_by_use(policy: Policy) -> None:
    """Use counts at the account that has the class: splitting below it renews nothing."""
    assert classes_of(policy, "/uni-a/teaching/ml-101", {}, 0) == ("student",)
    assert classes_of(policy, "/college-d", {}, 0) == ("newcomer", "under-resourced")
    assert classes_of(policy, "/college-d", {"/college-d": 2000 * HOUR - 1}, 0) == (
        "newcomer",
        "under-resourced",
    )
    assert classes_of(policy, "/college-d", {"/college-d": 2000 * HOUR}, 0) == ("under-resourced",)
    assert classes_of(policy, "/college-d/new", {"/college-d": 2000 * HOUR}, 0) == ("under-resourced",)
    assert classes_of(policy, "/college-d", {"/college-d/new": 2000 * HOUR}, 0) == (
        "newcomer",
        "under-resourced",
    )


def test_classes_end_by_date(policy: Policy) -> None:
    """At the second that the policy says."""
    student = replace(policy.classes["student"], until_s=1000)
    ending = replace(policy, classes={**policy.classes, "student": student})
    assert classes_of(ending, "/uni-a/teaching", {}, 999) == ("student",)
    assert classes_of(ending, "/uni-a/teaching", {}, 1000) == ()
