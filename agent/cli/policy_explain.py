"""``policy explain``: what a policy says of one request, by which rule, and what would change it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import json_option
from agent.cli.policy_files import file_type, load_both, overlay_option, say_problems

if TYPE_CHECKING:
    from federation.policy.explain import Explanation
    from federation.policy.permit import RequestFacts
    from federation.policy.policy import Policy


@click.command(short_help="Say whether a request is permitted, and why.")
@click.argument("file", type=file_type)
@overlay_option
@click.option("--account", required=True, help="Who is charged: /institution[/group[/project]].")
@click.option("--site", help="Who asks; by default the first site that may speak for the account.")
@click.option("--purpose", required=True, help="What it is for.")
@click.option("--model", default="", help="SITE/NAME of the model.")
@click.option("--publisher", default="", help="Who published the model.")
@click.option("--licence", default="", help="The model's licence.")
@click.option("--size", help="The image in memory, such as 20GB.")
@click.option("--donor", help="Who would serve it; by default the overlay's donor, or the first site.")
@click.option("--region", default="", help="Where the donor is.")
@click.option("--device-class", default="", help="The class of the device, such as h100.")
@click.option("--at", help="Day and time at the donor, such as 'sat 03:30'; by default now, in UTC.")
@click.option(
    "--used", multiple=True, metavar="ACCOUNT=GPUh", help="Use in all so far, such as /uni-a=500GPUh."
)
@json_option
def explain(*, file: str, overlay: str | None, as_json: bool, **asked: Any) -> int:
    """Say what FILE answers to one request: the decision, the rule with its line, what would change it.

    Exit code 4: it is denied.
    """
    from agent.cli.output import data_json
    from agent.error_table import ExitCode
    from federation.policy.explain import explain as explain_request
    from federation.policy.permit import Denied
    from federation.policy.problems import PolicyProblemsError

    try:
        loaded = load_both(file, overlay)
    except PolicyProblemsError as error:
        say_problems(error.problems)
        return ExitCode.USAGE
    now_s = int(time.time())
    used = dict(_used(one) for one in asked["used"])
    facts = _facts(loaded.policy, asked, now_s, loaded.donor)
    explanation = explain_request(loaded.policy, facts, used, now_s)
    if as_json:
        data_json(_document(loaded.policy, explanation))
    else:
        _say(loaded.policy, explanation)
    return ExitCode.DENIED if isinstance(explanation.answer, Denied) else ExitCode.OK


def _facts(policy: Policy, asked: dict[str, Any], now_s: int, donor: str) -> RequestFacts:
    from federation.fairshare.accounts import check_account
    from federation.policy.account_tree import sites_of
    from federation.policy.cases import AT_EXPECTED, minute_of_week
    from federation.policy.hours import WEEK_MINUTES
    from federation.policy.permit import RequestFacts, rule_for
    from federation.policy.units import UnitError, size_bytes

    account = check_account(asked["account"])
    rule = rule_for(policy, account)
    sites = sites_of(policy.accounts)
    for option in ("site", "donor"):
        if asked[option] is not None and asked[option] not in sites:
            raise click.UsageError(
                f"the policy has no site {asked[option]!r} (--{option}); it has {', '.join(sorted(sites))}."
            )
    if asked["device_class"] and asked["device_class"] not in policy.device_classes:
        known = ", ".join(sorted(policy.device_classes))
        raise click.UsageError(f"the policy has no device class {asked['device_class']!r}; it has {known}.")
    try:
        total_bytes = 0 if asked["size"] is None else size_bytes(asked["size"])
    except UnitError as error:
        raise click.UsageError(f"{error.message} (--size): {error.expected}.") from error
    # 1970 began on a Thursday, the fourth day of a week.
    minute = (now_s // 60 + 3 * 24 * 60) % WEEK_MINUTES
    if asked["at"] is not None:
        try:
            minute = minute_of_week(asked["at"])
        except ValueError as error:
            raise click.UsageError(f"{error} (--at): {AT_EXPECTED}.") from error
    return RequestFacts(
        account=account,
        borrower_site=asked["site"] or (rule.sites[0] if rule is not None else min(sites)),
        purpose=asked["purpose"],
        device_class=asked["device_class"],
        model=asked["model"],
        publisher=asked["publisher"],
        licence=asked["licence"],
        total_bytes=total_bytes,
        donor_site=asked["donor"] or donor or min(sites),
        donor_region=asked["region"],
        week_minute=minute,
    )


def _used(text: str) -> tuple[str, int]:
    from federation.fairshare.accounts import check_account
    from federation.policy.units import UnitError, use_msgs

    account, _, amount = text.partition("=")
    try:
        return check_account(account), use_msgs(amount)
    except UnitError as error:
        raise click.UsageError(f"{error.message} (--used): {error.expected}.") from error


def _say(policy: Policy, explanation: Explanation) -> None:
    from agent.cli.output import data
    from federation.policy.explain import write_minute
    from federation.policy.permit import Denied
    from federation.policy.units import write_percent, write_ratio

    facts, answer = explanation.facts, explanation.answer
    data(
        f"{facts.account} through {facts.borrower_site}, for {facts.purpose}, at {facts.donor_site}, "
        f"{write_minute(facts.week_minute)}"
    )
    if isinstance(answer, Denied):
        data(f"denied by {answer.rule_id}: {answer.sentence}")
        if answer.where is not None:
            data(f"  rule:   {answer.where}")
        if explanation.changes:
            for change in explanation.changes:
                data(f"  permitted with --{change.field} '{change.value}'")
        else:
            data(f"  no single change of the request helps; {answer.fix}")
    else:
        data("permitted: no rule refuses it")
    if explanation.account_where is not None:
        data(f"  account: {explanation.account_where}, classes: {', '.join(facts.classes) or 'none'}")
    if explanation.reserve:
        share = write_percent(policy.classes[explanation.reserve].reserve_permille)
        data(f"  reserve: draws on that of {explanation.reserve}, {share} of each donor's devices")
    if explanation.charge_permille is not None:
        data(
            f"  charge:  an hour on {facts.device_class} counts {write_ratio(explanation.charge_permille)} "
            f"standard-GPU hours, {write_ratio(policy.idle_discount_permille)} of that while others are idle"
        )
    if explanation.paused_minutes is None:
        data("  hours:   the donor never lends")
    elif explanation.paused_minutes:
        later = write_minute(facts.week_minute + explanation.paused_minutes)
        data(f"  hours:   the donor lends again from {later}; a request keeps its place until then")


def _document(policy: Policy, explanation: Explanation) -> dict[str, Any]:
    from federation.policy.permit import Denied

    facts, answer = explanation.facts, explanation.answer
    denied = answer if isinstance(answer, Denied) else None
    return {
        "schema": 1,
        "decision": "allow" if denied is None else "deny",
        "rule": "" if denied is None else denied.rule_id,
        "where": "" if denied is None or denied.where is None else str(denied.where),
        "sentence": "" if denied is None else denied.sentence,
        "fix": "" if denied is None else denied.fix,
        "lasting": denied is not None and denied.lasting,
        "changes": [{"field": one.field, "value": one.value} for one in explanation.changes],
        "account": facts.account,
        "site": facts.borrower_site,
        "purpose": facts.purpose,
        "donor": facts.donor_site,
        "classes": list(facts.classes),
        "reserve": explanation.reserve,
        "charge_permille": explanation.charge_permille,
        "paused_minutes": explanation.paused_minutes,
        "policy": policy.digest,
        "overlay": policy.overlay_digest,
    }
