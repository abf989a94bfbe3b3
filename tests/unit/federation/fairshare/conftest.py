"""Policies by their weights, laws of orders, and how a law is shown to catch a planted bug."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from federation.policy.policy import AccountRule, Caps, ClassRule, Policy, PurposeRule

HUNT = settings(
    max_examples=300,
    phases=(Phase.generate,),
    derandomize=True,
    database=None,
    report_multiple_bugs=False,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="session")
def make_policy() -> Callable[..., Policy]:
    """A function that makes a policy of weights by path, classes by path and reserves by class."""

    def make(
        weights: Mapping[str, int],
        *,
        classes: Mapping[str, tuple[str, ...]] | None = None,
        reserves: Mapping[str, int] | None = None,
        caps: Caps | None = None,
    ) -> Policy:
        given = classes or {}
        return Policy(
            name="lab",
            version=1,
            effective_at_s=0,
            digest="0" * 64,
            accounts={
                path: AccountRule(path, weight, given.get(path, ()), (), {}, open=True)
                for path, weight in weights.items()
            },
            classes={name: ClassRule(name, part, ()) for name, part in (reserves or {}).items()},
            purposes={
                "research": PurposeRule("research", 1000, ("*",)),
                "urgent": PurposeRule("urgent", 1500, ()),
            },
            device_classes={"standard": 1000, "large": 2500},
            caps=caps or Caps(),
        )

    return make


@pytest.fixture(scope="session")
def is_caught() -> Callable[[Callable[[], None] | type[RuleBasedStateMachine]], bool]:
    """A function that says whether a law fails: a hypothesis test without arguments, or a state machine."""

    def hunt(law: Callable[[], None] | type[RuleBasedStateMachine]) -> bool:
        try:
            if isinstance(law, type):
                run_state_machine_as_test(law, settings=HUNT)
            else:
                HUNT(law)()
        except AssertionError:
            return True
        return False

    return hunt
