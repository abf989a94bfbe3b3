"""The shape of a policy file and of a donor's overlay: what pydantic checks and editors complete from.

Rules: nothing here decides; a form becomes a ``Policy`` in ``federation.policy.build`` after the checks that
need more than one field. Unknown keys are refused, types are strict, every bound is on the field. The JSON
Schemas in ``policies/`` are generated from these classes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from federation.limits import (
    MAX_ACCOUNTS,
    MAX_CLASSES,
    MAX_POLICY_DURATION_S,
    MAX_POLICY_NAMES,
    MAX_POLICY_TESTS,
    MAX_ROLE_VERSION,
    MAX_RULES,
    MAX_WEIGHT,
)
from federation.policy.fields import (
    Account,
    Accounts,
    Hours,
    Label,
    Labels,
    ModelNames,
    Size,
    Text,
    Texts,
    Time,
    Use,
    Words,
    duration,
    ratio,
)


class Form(BaseModel):
    """What all parts have in common: strict types, no unknown keys, no changes."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class AccountForm(Form):
    """An account: its weight among its siblings, who may speak for it, and its classes."""

    weight: Annotated[int, Field(ge=1, le=MAX_WEIGHT)] = Field(
        default=1, description="Its share among its siblings."
    )
    sites: Labels | None = Field(
        default=None,
        description="Sites whose requests may name it, inherited below. By default the institution's own "
        "name; an institution without a site is sponsored by the sites named here.",
    )
    classes: dict[Label, Label] = Field(
        default_factory=dict, max_length=MAX_CLASSES, description="Its classes, each with who attests it."
    )
    open: bool | None = Field(
        default=None,
        description="Accounts below that are not named here exist, with weight 1; inherited below.",
    )
    accounts: dict[str, AccountForm] = Field(
        default_factory=dict, max_length=MAX_ACCOUNTS, description="The accounts below it."
    )


class ClassForm(Form):
    """A class of accounts with a reserve."""

    reserve: Annotated[int, *ratio(0, 500)] = Field(
        default=0, description="Of each donor's devices; all reserves together are at most 50%."
    )
    attesters: Annotated[list[Label], Field(min_length=1, max_length=MAX_POLICY_NAMES)] = Field(
        description="Who may say that an account is in it: sites, or consortium."
    )
    until_use: Use | None = Field(
        default=None, description="An account leaves the class after this much use in all."
    )
    until: Time | None = Field(default=None, description="The class ends for everybody then.")


class PurposeForm(Form):
    """A purpose: what it does to the charge, and who may claim it."""

    factor: Annotated[int, *ratio(500, 2000)] = Field(
        default=1000, description="Multiplies the charge; 0.5 to 2."
    )
    claimants: Annotated[Accounts, Field(min_length=1)] = Field(
        description="Accounts that may claim it, with what is below them; any: everybody."
    )


class DecayForm(Form):
    """How use is forgotten."""

    half_life: Annotated[int, *duration(3600, 28 * 86400)] = Field(
        default=7 * 86400, description="Use counts half."
    )
    window: Annotated[int, Field(ge=4, le=20)] = Field(
        default=10, description="Half-lives after which use is gone."
    )


class CapsForm(Form):
    """Bounds on what one account holds, and on how long anyone waits."""

    over_share: Annotated[int, *ratio(1000, 100_000)] = Field(
        default=2000, description="An account holds at most this times its share while another would fit."
    )
    wide_hold: Annotated[int, *duration(0, 4 * 3600)] = Field(
        default=3600,
        description="How long devices idle, in all, while their node is kept for the head of the line.",
    )
    max_wait: Annotated[int, *duration(600, 30 * 86400)] = Field(
        default=4 * 3600,
        description="After it a request ages, and no narrower one of its account outruns it.",
    )
    max_age_factor: Literal[1, 2, 4, 8, 16] = Field(
        default=16, description="The most that aging multiplies by."
    )
    preempt_every: Annotated[int, *duration(0, MAX_POLICY_DURATION_S)] = Field(
        default=3600,
        description="A lease is preempted for another guest at most once in this time; 0s: never.",
    )
    max_devices: Annotated[int, Field(ge=1, le=1024)] = Field(default=8, description="Devices of one lease.")
    max_requests: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=100, description="Requests of one account in one donor's queue."
    )
    reserved_wait: Annotated[int, *duration(20, 1820)] = Field(
        default=30, description="The promise: a request within its reserve waits at most this long."
    )
    reserve_from: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="Donors with fewer devices reserve nothing."
    )


class LendForm(Form):
    """On which terms a donor lends."""

    grace: Annotated[int, *duration(0, 1800)] = Field(
        default=10, description="Inference leases: notice to kill."
    )
    batch_grace: Annotated[int, *duration(0, 1800)] = Field(
        default=120, description="Batch leases, which come later: notice to kill. No lease of today has it."
    )
    instant_grace: Annotated[int, *duration(0, 1800)] = Field(
        default=5, description="Instant leases, which idle reserve is lent to: notice to kill."
    )
    min_runtime: Annotated[int, *duration(0, 86400)] = Field(
        default=900, description="What a guest may count on from other guests."
    )
    max_duration: Annotated[int, *duration(60, 90 * 86400)] = Field(
        default=7 * 86400, description="Of one lease."
    )
    to: Annotated[Accounts, Field(min_length=1)] = Field(
        default_factory=lambda: ["*"], description="Accounts that are lent to; any: everybody."
    )
    headroom: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="Donated devices kept free."
    )
    hours: Hours = Field(default_factory=list, description="When devices are lent; empty: always.")


class OverlayLendForm(Form):
    """Terms of one donor; each may only be stricter than the consortium's."""

    grace: Annotated[int, *duration(0, 1800)] | None = Field(
        default=None, description="At most the consortium's."
    )
    batch_grace: Annotated[int, *duration(0, 1800)] | None = Field(
        default=None, description="At most the consortium's."
    )
    instant_grace: Annotated[int, *duration(0, 1800)] | None = Field(
        default=None, description="At most the consortium's."
    )
    min_runtime: Annotated[int, *duration(0, 86400)] | None = Field(
        default=None, description="At most the consortium's."
    )
    max_duration: Annotated[int, *duration(60, 90 * 86400)] | None = Field(
        default=None, description="At most the consortium's."
    )
    to: Annotated[Accounts, Field(min_length=1)] | None = Field(
        default=None, description="Accounts within those of the consortium."
    )
    headroom: Annotated[int, Field(ge=0, le=1024)] | None = Field(
        default=None, description="At least the consortium's."
    )
    hours: Hours | None = Field(default=None, description="Within the consortium's.")


class ModelMatchForm(Form):
    """Which models a rule speaks of; every field that is there must hold."""

    models: ModelNames = Field(default_factory=list, description="SITE/NAME, or SITE/*.")
    publishers: Texts = Field(default_factory=list, description="Who published it.")
    licences: Texts = Field(default_factory=list, description="Its licence.")
    larger_than: Size | None = Field(default=None, description="The image in memory is larger.")


class MatchForm(ModelMatchForm):
    """What a deny rule speaks of; every field that is there must hold."""

    accounts: Annotated[list[Account], Field(max_length=MAX_POLICY_NAMES)] = Field(
        default_factory=list, description="These accounts and what is below them."
    )
    classes: Labels = Field(default_factory=list, description="Accounts in any of these classes.")
    purposes: Labels = Field(default_factory=list, description="Requests for any of these purposes.")
    device_classes: Labels = Field(default_factory=list, description="Devices of these classes.")
    sites: Labels = Field(default_factory=list, description="Donors.")
    regions: Texts = Field(default_factory=list, description="Regions of donors.")
    hours: Hours = Field(default_factory=list, description="In the donor's time.")


class ModelRuleForm(Form):
    """Where, or for whom, some models may run."""

    id: Label = Field(description="What a refusal names.")
    match: ModelMatchForm = Field(description="The models it speaks of.")
    only_at: Labels = Field(default_factory=list, description="Donors at which they may run.")
    only_for: Annotated[list[Account], Field(max_length=MAX_POLICY_NAMES)] = Field(
        default_factory=list, description="Accounts that may run them."
    )


class ModelsForm(Form):
    """What may run at all."""

    publishers: Words = Field(default_factory=lambda: ["*"], description="Whose models; any: everybody's.")
    licences: Words = Field(default_factory=lambda: ["*"], description="Under which licences; any: all.")
    max_size: Size | None = Field(default=None, description="Of an image in memory.")
    rules: Annotated[list[ModelRuleForm], Field(max_length=MAX_RULES)] = Field(
        default_factory=list, description="All that match must hold."
    )


class DataForm(Form):
    """Bounds on bytes that leave a site."""

    egress_per_day: Size | None = Field(default=None, description="Of one site as a source.")
    source_per_s: Size | None = Field(default=None, description="Bytes a second of one site as a source.")
    regions: Texts = Field(default_factory=list, description="Images stay there; empty: anywhere.")


class CarbonForm(Form):
    """How much carbon intensity counts when offers are ranked; never a gate."""

    weight: Annotated[int, *ratio(0, 1000)] = Field(
        default=0, description="1: a gram per kWh counts like a millisecond of waiting."
    )


class DenyForm(Form):
    """A rule that refuses what it matches."""

    id: Label = Field(description="What a refusal names.")
    match: MatchForm = Field(description="Every field that is there must hold.")
    reason: Text = Field(description="What whoever is refused is told.")


class RequestForm(Form):
    """The request of a test."""

    account: Account = Field(description="Who is charged.")
    site: Label | None = Field(default=None, description="Who asks; by default the first that may.")
    purpose: Label = Field(description="What it is for.")
    model: str = Field(default="test/model", max_length=128, description="SITE/NAME.")
    publisher: str = Field(default="", max_length=64, description="Who published it.")
    licence: str = Field(default="", max_length=64, description="Its licence.")
    size: Size = Field(default=1, description="Of the image in memory.")
    device_class: Label | None = Field(default=None, description="Of the device.")
    donor: Label | None = Field(
        default=None, description="Who would serve it; by default the overlay's donor, or the first site."
    )
    region: str = Field(default="", max_length=64, description="Where the donor is.")
    at: str = Field(default="mon 12:00", description="Day and time at the donor, such as sat 03:30.")
    used: dict[Account, Use] = Field(default_factory=dict, description="Use in all so far, by account.")
    now: Time | None = Field(default=None, description="When; by default when the policy begins.")


class ExpectForm(Form):
    """What a test expects."""

    decision: Literal["allow", "deny"] = Field(description="Whether it is permitted.")
    rule: str | None = Field(default=None, max_length=64, description="The rule that refuses.")
    classes: Labels | None = Field(default=None, description="The account's classes, all of them.")
    reserve: Annotated[int, *ratio(0, 500)] | None = Field(
        default=None, description="Of the class on whose reserve it draws; 0: on none."
    )


class CaseForm(Form):
    """A test of the policy, run by ``policy test`` and before a version is taken."""

    name: Text = Field(description="What it shows.")
    request: RequestForm = Field(description="Who asks for what.")
    expect: ExpectForm = Field(description="What the policy must answer.")


Deny = Annotated[list[DenyForm], Field(max_length=MAX_RULES)]
Cases = Annotated[list[CaseForm], Field(max_length=MAX_POLICY_TESTS)]
Version = Annotated[int, Field(ge=1, le=MAX_ROLE_VERSION)]


class PolicyForm(Form):
    """A consortium's policy."""

    kind: Literal["consortium"] = Field(default="consortium", description="What this file is.")
    version: Version = Field(description="Rises with each change.")
    name: Label = Field(description="The consortium's name.")
    effective_at: Time = Field(description="Every agent goes over to it then: a multiple of ten minutes.")
    notice: Annotated[int, *duration(0, 90 * 86400)] = Field(
        default=86400, description="A later version is published at least this long before it counts."
    )
    accounts: Annotated[dict[str, AccountForm], Field(min_length=1, max_length=MAX_ACCOUNTS)] = Field(
        description="Institutions by name, with their groups and projects; or paths."
    )
    classes: Annotated[dict[Label, ClassForm], Field(max_length=MAX_CLASSES)] = Field(
        default_factory=dict, description="Classes of accounts and their reserves."
    )
    purposes: Annotated[dict[Label, PurposeForm], Field(min_length=1, max_length=MAX_POLICY_NAMES)] = Field(
        description="What a lease may be for."
    )
    device_classes: Annotated[
        dict[Label, Annotated[int, *ratio(1, 100_000)]], Field(min_length=1, max_length=MAX_POLICY_NAMES)
    ] = Field(description="What a second of each class counts, in seconds of the standard GPU.")
    idle_discount: Annotated[int, *ratio(0, 1000)] = Field(
        default=500, description="Factor on use while the federation had idle devices of the class."
    )
    decay: DecayForm = Field(default_factory=DecayForm, description="How use is forgotten.")
    caps: CapsForm = Field(default_factory=CapsForm, description="What one account may hold.")
    lend: LendForm = Field(default_factory=LendForm, description="On which terms donors lend.")
    models: ModelsForm = Field(default_factory=ModelsForm, description="What may run.")
    data: DataForm = Field(default_factory=DataForm, description="What may leave a site.")
    carbon: CarbonForm = Field(default_factory=CarbonForm, description="A preference among offers.")
    deny: Deny = Field(default_factory=list, description="What is refused, by id.")
    tests: Cases = Field(default_factory=list, description="What this file must answer.")


class OverlayForm(Form):
    """A donor's overlay: what it lends more strictly than its consortium."""

    kind: Literal["overlay"] = Field(description="What this file is.")
    version: Version = Field(description="Rises with each change.")
    site: Label = Field(description="The donor whose overlay it is.")
    consortium: Label = Field(description="The name of the consortium.")
    lend: OverlayLendForm = Field(default_factory=OverlayLendForm, description="Stricter terms.")
    models: ModelsForm = Field(default_factory=ModelsForm, description="What may run here.")
    data: DataForm = Field(default_factory=DataForm, description="What may leave this site.")
    deny: Deny = Field(default_factory=list, description="What is refused here, by id.")
    tests: Cases = Field(default_factory=list, description="What both files together must answer.")


def schema_of(kind: Literal["policy", "overlay"]) -> dict[str, Any]:
    """Return the JSON Schema that editors complete from."""
    form: type[Form] = PolicyForm if kind == "policy" else OverlayForm
    schema = form.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
