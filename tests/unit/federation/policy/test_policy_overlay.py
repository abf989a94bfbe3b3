"""Overlays: a donor can be stricter than its consortium and never looser (I16)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.policy.file import read_policy
from federation.policy.hours import minutes_of
from federation.policy.overlay import read_overlay, restrict
from federation.policy.permit import Denied, Permitted, RequestFacts, permit
from federation.policy.policy import Policy
from federation.policy.problems import PolicyProblemsError

BASE = read_policy((Path(__file__).parent / "corpus/overlays/consortium.base").read_bytes(), "c").policy
HEAD = "kind: overlay\nversion: 1\nsite: uni-b\nconsortium: lab\n"

words = st.lists(st.sampled_from(["eth", "mit", "acme", "any"]), min_size=1, max_size=2, unique=True)
accounts = st.sampled_from(["/uni-a", "/uni-a/bio", "/uni-a/courses", "/uni-b", "any"])
hours = st.sampled_from(["mon-fri 18:00-08:00", "mon 19:00-23:00", "sat-sun 00:00-24:00", "17:00-19:00"])
sizes = st.sampled_from(["1GB", "200GB", "300GB"])


def listed(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    items = st.lists(strategy, min_size=1, max_size=2)
    return items.map(lambda given: "[" + ", ".join(f'"{one}"' for one in given) + "]")


def field(section: str, key: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, str]]:
    return values.map(lambda value: (section, f"{key}: {value}"))


MATCHES = [
    "{accounts: [/uni-a/bio]}",
    "{purposes: [research], device_classes: [h100]}",
    "{larger_than: 1GB}",
    '{hours: ["mon 19:00-23:00"]}',
]
fields = st.one_of(
    field("lend", "grace", st.sampled_from(["0s", "10s", "20s"])),
    field("lend", "instant_grace", st.sampled_from(["5s", "6s"])),
    field("lend", "to", listed(accounts)),
    field("lend", "headroom", st.sampled_from(["0", "1", "2"])),
    field("lend", "hours", listed(hours)),
    field("lend", "max_duration", st.sampled_from(["1h", "7d", "8d"])),
    field("models", "publishers", words.map(lambda given: f"[{', '.join(given)}]")),
    field("models", "licences", words.map(lambda given: f"[{', '.join(given)}]")),
    field("models", "max_size", sizes),
    field("data", "regions", st.sampled_from(["[]", "[eu]", "[us]", "[eu, us]"])),
    field("data", "egress_per_day", st.sampled_from(["1TB", "5TB", "6TB"])),
    field("deny", "match", st.sampled_from(MATCHES)),
)


def overlay_of(given: list[tuple[str, str]]) -> str:
    """An overlay of a few fields; of one key the first counts."""
    sections: dict[str, dict[str, str]] = {}
    for section, text in given:
        sections.setdefault(section, {}).setdefault(text.split(":")[0], text)
    parts = [
        f"{section}: [{{id: own, reason: r, {texts['match']}}}]"
        if section == "deny"
        else f"{section}: {{{', '.join(texts.values())}}}"
        for section, texts in sections.items()
    ]
    return HEAD + "\n".join(parts) + "\n"


overlays = st.lists(fields, min_size=1, max_size=3).map(overlay_of)
ASKED = [
    RequestFacts(
        account=account,
        borrower_site=account.split("/")[1],
        purpose="research",
        device_class="h100",
        model="uni-a/m",
        publisher=publisher,
        licence=licence,
        total_bytes=total_bytes,
        donor_site="uni-b",
        donor_region=region,
        week_minute=minute,
    )
    for account in ("/uni-a", "/uni-a/bio", "/uni-b")
    for publisher in ("eth", "acme")
    for licence in ("mit", "acme")
    for total_bytes in (1, 10**9 + 1, 250 * 10**9)
    for region in ("eu", "us")
    for minute in (600, 1200)
]
ANSWERS = [permit(BASE, one) for one in ASKED]


def combined(text: str) -> Policy | None:
    """The policy under the overlay, or nothing where it is refused."""
    try:
        return restrict(BASE, read_overlay(text.encode(), "o")).policy
    except PolicyProblemsError:
        return None


@settings(max_examples=150, deadline=None)
@given(overlays)
def test_an_overlay_only_restricts(text: str) -> None:
    """Whatever is permitted under both is permitted under the consortium's alone; no term promises more."""
    both = combined(text)
    if both is None:
        return
    for one, answer in zip(ASKED, ANSWERS, strict=True):
        assert isinstance(answer, Permitted) or isinstance(permit(both, one), Denied)
    assert minutes_of(both.lend.hours) & ~minutes_of(BASE.lend.hours) == 0
    assert both.lend.grace_s <= BASE.lend.grace_s
    assert both.lend.instant_grace_s <= BASE.lend.instant_grace_s
    assert both.lend.max_duration_s <= BASE.lend.max_duration_s
    assert both.lend.headroom_devices >= BASE.lend.headroom_devices
    assert (both.data.egress_bytes_per_day or 0) <= (BASE.data.egress_bytes_per_day or 0)
    assert (both.accounts, both.classes, both.purposes) == (BASE.accounts, BASE.classes, BASE.purposes)


def test_the_property_meets_permitted_requests() -> None:
    """The requests that it looks at are permitted for some and denied for others."""
    assert 5 < sum(isinstance(one, Permitted) for one in ANSWERS) < len(ANSWERS) - 5


def test_an_overlay_that_says_nothing_changes_nothing() -> None:
    """But the digest is recorded."""
    both = combined(HEAD)
    assert both is not None
    assert both.overlay_digest
    assert (both.lend, both.models, both.data, both.deny) == (BASE.lend, BASE.models, BASE.data, BASE.deny)


def test_a_refusal_names_the_overlays_line() -> None:
    """Whoever is refused by a donor's own rule sees that it is the donor's."""
    both = combined(HEAD + "models: {publishers: [eth]}\n")
    assert both is not None
    asked = RequestFacts(
        account="/uni-a/bio",
        borrower_site="uni-a",
        purpose="research",
        publisher="mit",
        licence="mit",
        donor_site="uni-b",
        donor_region="eu",
    )
    answer = permit(both, asked)
    assert not isinstance(answer, Permitted)
    assert str(answer.where) == "o:5:10"
    assert permit(BASE, asked) == Permitted()


def test_all_loosening_is_told_at_once() -> None:
    """Each place, in one go."""
    text = HEAD + "lend: {grace: 1min, headroom: 0}\nmodels: {max_size: 1TB}\n"
    with pytest.raises(PolicyProblemsError) as caught:
        restrict(BASE, read_overlay(text.encode(), "o"))
    assert [str(one.where) for one in caught.value.problems] == ["o:5:15", "o:5:31", "o:6:20"]
