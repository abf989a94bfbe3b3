"""Explanations are true: what they say would change a refusal does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.policy.cases import minute_of_week
from federation.policy.explain import Change, explain, write_minute
from federation.policy.file import PolicyFile
from federation.policy.permit import Denied, Permitted, RequestFacts, classes_of, permit
from federation.policy.units import size_bytes

BASE = RequestFacts(account="/uni-a/biology", borrower_site="uni-a", purpose="research", donor_site="uni-b")
FIELDS = {
    "purpose": "purpose",
    "site": "borrower_site",
    "donor": "donor_site",
    "region": "donor_region",
    "device-class": "device_class",
    "publisher": "publisher",
    "licence": "licence",
    "account": "account",
}


def changed(facts: RequestFacts, change: Change, shipped: PolicyFile) -> RequestFacts:
    if change.field == "size":
        return replace(facts, total_bytes=size_bytes(change.value))
    if change.field == "at":
        return replace(facts, week_minute=minute_of_week(change.value))
    other: RequestFacts = replace(facts, **{FIELDS[change.field]: change.value})  # type: ignore[arg-type]
    return replace(other, classes=classes_of(shipped.policy, other.account, {}, 0))


asked = st.builds(
    RequestFacts,
    account=st.sampled_from(["/uni-a/biology", "/uni-a/x", "/college-d", "/institute-c", "/institute-c/x"]),
    borrower_site=st.sampled_from(["uni-a", "uni-b", "institute-c"]),
    purpose=st.sampled_from(["research", "teaching", "safety", "commercial", "none"]),
    donor_site=st.sampled_from(["uni-a", "uni-b", "institute-c"]),
    model=st.sampled_from(["uni-b/clinical-70b", "uni-b/other"]),
    total_bytes=st.sampled_from([1, 500 * 10**9, 900 * 10**9]),
    week_minute=st.integers(0, 10079),
)


@settings(max_examples=40, deadline=None)
@given(asked)
def test_each_change_that_is_named_turns_the_refusal(shipped: PolicyFile, facts: RequestFacts) -> None:
    """The answer is that of ``permit``; every change makes it a permission."""
    told = explain(shipped.policy, facts, {}, 0)
    assert told.answer == permit(shipped.policy, told.facts)
    for change in told.changes:
        assert permit(shipped.policy, changed(told.facts, change, shipped)) == Permitted()


def test_a_refusal_by_hours_names_the_hour(shipped: PolicyFile) -> None:
    """The first time at which it would be permitted."""
    facts = replace(BASE, total_bytes=500 * 10**9, week_minute=minute_of_week("mon 10:07"))
    told = explain(shipped.policy, facts, {}, 0)
    assert isinstance(told.answer, Denied)
    assert Change("at", "mon 18:00") in told.changes
    assert Change("size", "400GB") in told.changes


def test_terms_are_told(shipped: PolicyFile) -> None:
    """The class on whose reserve the account draws, and what an hour counts with its purpose."""
    facts = replace(BASE, account="/uni-a/teaching", purpose="teaching", device_class="a100")
    told = explain(shipped.policy, facts, {}, 0)
    assert told.answer == Permitted()
    assert told.facts.classes == ("student",)
    assert told.reserve == "student"
    assert told.charge_permille == 250
    assert told.paused_minutes == 0
    assert told.changes == ()


@pytest.mark.parametrize("text", ["mon 00:00", "wed 12:30", "sun 23:59"])
def test_minutes_are_written_as_they_are_read(text: str) -> None:
    """There and back."""
    assert write_minute(minute_of_week(text)) == text
