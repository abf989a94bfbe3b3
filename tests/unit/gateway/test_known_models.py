"""Rules on models speak of images: what the sites' signed lists say one is, whatever a borrower calls it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.gateway.core.admission import denied
from agent.gateway.core.law import Law
from agent.gateway.core.request import KnownModel, LeaseRequest
from agent.gateway.known_models import KnownModels, by_image
from agent.limits import MAX_NAMES_OF_IMAGE
from federation.policy.policy import (
    AccountRule,
    DenyRule,
    Match,
    ModelRule,
    Models,
    Policy,
    PurposeRule,
)
from federation.registry.membership import Membership, ModelBinding

SECRET, OPEN = "a" * 64, "b" * 64
POLICY = Policy(
    name="demo",
    version=1,
    effective_at_s=0,
    digest="d" * 64,
    accounts={
        f"/{site}": AccountRule(f"/{site}", 1, (), (site,), {}, open=True) for site in ("uni-a", "uni-b")
    },
    classes={},
    purposes={"research": PurposeRule("research", 1000, ("*",))},
    device_classes={"gpu": 1000},
    models=Models(rules=(ModelRule("ours", Match(models=("uni-a/secret",)), only_for=("/uni-a",)),)),
)


def membership(models: dict[str, ModelBinding]) -> Membership:
    """A registry with nothing but lists of models."""
    return Membership("demo", 1, 0.0, 1e12, (), models, {})


LISTED = membership(
    {
        "uni-a/secret": ModelBinding(SECRET, 10, "proprietary"),
        "uni-a/small": ModelBinding(OPEN, 10, "apache-2.0"),
        "uni-b/small": ModelBinding(OPEN, 10, "mit"),
    }
)


def request(model: str, image_id: str, registry: Membership = LISTED) -> LeaseRequest:
    """What uni-b asks, as a donor reads it."""
    return LeaseRequest(
        id="r1",
        borrower_site="uni-b",
        borrower_node="b1",
        model=model,
        image_id=image_id,
        total_bytes=10,
        account="/uni-b",
        purpose="research",
        known=KnownModels(lambda: registry).of(image_id),
    )


def rule(asked: LeaseRequest, policy: Policy = POLICY) -> str:
    """The id of the rule that refuses it for good; empty where none does."""
    answer = denied(asked, Law("uni-a", policy=policy), 0.0)
    return answer.rule_id if answer is not None and answer.lasting else ""


def licences(*names: str) -> Policy:
    """The policy with only these licences."""
    return replace(POLICY, models=Models(licences=names))


def test_an_image_is_what_every_list_says_it_is() -> None:
    """By name, with the site as publisher and its word on the licence; one that nobody lists is nothing."""
    known = KnownModels(lambda: LISTED)
    assert known.of(OPEN) == (
        KnownModel("uni-a/small", "uni-a", "apache-2.0", 10),
        KnownModel("uni-b/small", "uni-b", "mit", 10),
    )
    assert known.of("c" * 64) == ()
    assert KnownModels(lambda: None).of(OPEN) == ()


def test_a_list_that_changes_counts_at_once() -> None:
    """A model is bound to another image, and the rule goes with it."""
    now = [LISTED]
    known = KnownModels(lambda: now[0])
    assert known.of(SECRET)
    now[0] = membership({"uni-a/secret": ModelBinding("c" * 64, 10)})
    assert known.of(SECRET) == ()
    assert known.of("c" * 64) == (KnownModel("uni-a/secret", "uni-a", "", 10),)


@pytest.mark.parametrize("name", ["uni-a/secret", "secret", "uni-b/alias", "uni-a/small", ""])
def test_an_alias_does_not_get_round_a_rule(name: str) -> None:
    """Whatever the borrower calls the image, the rule on the model holds for it."""
    assert rule(request(name, SECRET)) == "ours"


def test_a_name_that_a_rule_speaks_of_harms_no_other_image() -> None:
    """An image that is listed as something else is not what the borrower calls it."""
    assert rule(request("uni-a/secret", OPEN)) == ""


def test_an_image_that_nobody_lists_goes_by_its_name_without_publisher_and_licence() -> None:
    """The name is the borrower's word; a policy that allows certain licences or publishers refuses it."""
    unlisted = "c" * 64
    assert rule(request("uni-a/secret", unlisted)) == "ours"
    assert rule(request("uni-b/m", unlisted)) == ""
    assert rule(request("uni-b/m", unlisted), licences("mit")) == "models.licences"
    publishers = replace(POLICY, models=Models(publishers=("uni-b",)))
    assert rule(request("uni-b/m", unlisted), publishers) == "models.publishers"


def test_each_name_of_an_image_has_to_be_permitted() -> None:
    """Two sites say two licences of one image: where one of them may not run, the image may not."""
    asked = request("uni-b/small", OPEN)
    assert rule(asked, licences("mit")) == "models.licences"
    assert rule(asked, licences("MIT", "Apache-2.0")) == ""


def test_the_size_is_at_least_what_the_list_says() -> None:
    """Who claims less memory for an image does not get it past the policy's largest."""
    small = replace(POLICY, models=Models(max_bytes=9))
    asked = replace(request("uni-b/small", OPEN), total_bytes=1)
    assert rule(asked, small) == "models.max_size"
    assert rule(replace(asked, known=()), small) == ""


def test_a_rule_for_good_is_named_before_one_of_certain_hours() -> None:
    """One name is refused at this hour, the other always: the request does not wait for the hour."""
    hourly = DenyRule("by-day", Match(models=("uni-a/small",), hours=("mon-sun 00:00-24:00",)), "busy")
    always = DenyRule("never", Match(models=("uni-b/small",)), "withdrawn")
    policy = replace(POLICY, models=Models(), deny=(hourly, always))
    assert rule(request("uni-b/small", OPEN), policy) == "never"


def test_a_site_that_floods_its_list_hides_nothing_of_others() -> None:
    """One image under all names of one site costs each decision a bound; other sites' names stay."""
    flood = {f"uni-c/m{at:03}": ModelBinding(SECRET, 10) for at in range(256)}
    flooded = by_image(membership({**LISTED.models, **flood, "uni-z/last": ModelBinding(SECRET, 10)}))
    publishers = [one.publisher for one in flooded[SECRET]]
    assert publishers == ["uni-a", *["uni-c"] * MAX_NAMES_OF_IMAGE, "uni-z"]
