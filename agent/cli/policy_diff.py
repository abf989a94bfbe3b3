"""``policy diff``: who gains and who loses between two versions, and which rules come and go."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import json_option
from agent.cli.policy_files import file_type, load, say_problems

if TYPE_CHECKING:
    from fractions import Fraction

    from federation.policy.diff import Difference


@click.command(short_help="Say who gains and who loses between two versions.")
@click.argument("before", type=file_type)
@click.argument("after", type=file_type)
@json_option
def diff(*, before: str, after: str, as_json: bool) -> int:
    """Compare the policy file BEFORE with AFTER: shares, reserves, purposes, charges, terms and rules.

    A share is what an account is due of the whole when every account wants something.
    """
    from agent.cli.output import data_json
    from agent.error_table import ExitCode
    from federation.policy.diff import diff as compare
    from federation.policy.problems import PolicyProblemsError

    try:
        first, second = load(before).policy, load(after).policy
    except PolicyProblemsError as error:
        say_problems(error.problems)
        return ExitCode.USAGE
    difference = compare(first, second)
    if as_json:
        data_json(_document(difference))
    else:
        _say(difference)
    return ExitCode.OK


def _say(difference: Difference) -> None:
    from agent.cli.output import data, table

    if not difference.shares and not difference.entries:
        data("nothing changes")
    if difference.shares:
        data("shares of the whole")
        rows = [
            (
                each.account,
                _percent(each.before) if each.before else "-",
                _percent(each.after) if each.after else "-",
                f"{'gains' if each.gain > 0 else 'loses'} {_percent(abs(each.gain))}",
            )
            for each in difference.shares
        ]
        table(("ACCOUNT", "BEFORE", "AFTER", ""), rows)
    for section, entries in itertools.groupby(difference.entries, key=lambda each: each.section):
        data(f"{section}")
        for each in entries:
            if each.before:
                data(f"  - {each.name}: {each.before}")
            if each.after:
                data(f"  + {each.name}: {each.after}")


def _percent(share: Fraction) -> str:
    """Return a share in percent, with as many places as it takes to not be zero."""
    value = float(share * 100)
    return f"{value:.2f}%" if value >= 0.005 else f"{value:.1g}%"


def _document(difference: Difference) -> dict[str, Any]:
    return {
        "schema": 1,
        "shares": [
            {
                "account": each.account,
                "before": float(each.before),
                "after": float(each.after),
                "gain": float(each.gain),
            }
            for each in difference.shares
        ],
        "entries": [
            {
                "section": each.section,
                "name": each.name,
                "kind": each.kind,
                "before": each.before,
                "after": each.after,
            }
            for each in difference.entries
        ],
    }
