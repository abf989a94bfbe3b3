"""``policy diff``: who gains and who loses between two versions, and which rules come and go."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import json_option
from agent.cli.policy_files import file_type, load, read_bytes, say_problems, shown_name

if TYPE_CHECKING:
    from fractions import Fraction

    from federation.policy.diff import Difference
    from federation.policy.touched import RunningLease, Touched


@click.command(short_help="Say who gains and who loses between two versions.")
@click.argument("before", type=file_type)
@click.argument("after", type=file_type)
@click.option(
    "--leases", type=file_type, help="What `leases --json` printed: which of these would be refused."
)
@click.option("--site", default="", help="The site whose leases these are, where the list does not say.")
@json_option
def diff(*, before: str, after: str, leases: str | None, site: str, as_json: bool) -> int:
    """Compare the policy file BEFORE with AFTER: shares, reserves, purposes, charges, terms and rules.

    A share is what an account is due of the whole when every account wants something. With --leases it
    also says which running leases were permitted and would be refused if they were asked for again.
    """
    from agent.cli.output import data_json
    from agent.error_table import ExitCode
    from federation.policy.diff import diff as compare
    from federation.policy.problems import PolicyProblemsError
    from federation.policy.touched import touched

    try:
        first, second = load(before).policy, load(after).policy
    except PolicyProblemsError as error:
        say_problems(error.problems)
        return ExitCode.USAGE
    difference = compare(first, second)
    hit = () if leases is None else touched(first, second, _running(leases, site))
    if as_json:
        data_json(_document(difference) | {"touched": [_touched_document(one) for one in hit]})
    else:
        _say(difference)
        if leases is not None:
            _say_touched(hit)
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


def _say_touched(hit: tuple[Touched, ...]) -> None:
    from agent.cli.output import data

    data(f"leases that would be refused: {len(hit)}")
    for one in hit:
        some = f" if it is for {', '.join(one.purposes)}" if one.purposes else ""
        data(f"  {one.lease.id} {one.lease.account} {one.lease.model}{some}: {one.rule_id}: {one.sentence}")


def _running(file: str, site: str) -> list[RunningLease]:
    """Return the active leases of a list that have an account.

    Raises:
        RequestError: it is no list of leases.
    """
    from agent.errors import RequestError
    from federation.policy.touched import RunningLease

    try:
        rows = [row for row in json.loads(read_bytes(file))["leases"] if row.get("account")]
        return [
            RunningLease(
                id=str(row["id"]),
                account=str(row["account"]),
                model=str(row["model"]),
                donor_site=str(row.get("donor", "")).partition("/")[0] or site,
                borrower_site=str(row.get("borrower", "")).partition("/")[0] or site,
                purpose=str(row.get("purpose", "")),
            )
            for row in rows
            if row.get("state") == "active"
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"{shown_name(file)} is no list of leases.", fix="write it with: pyrdma-agent leases --json"
        ) from error


def _touched_document(one: Touched) -> dict[str, Any]:
    return {
        "lease": one.lease.id,
        "account": one.lease.account,
        "rule": one.rule_id,
        "where": "" if one.where is None else str(one.where),
        "sentence": one.sentence,
        "purposes": list(one.purposes),
    }


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
